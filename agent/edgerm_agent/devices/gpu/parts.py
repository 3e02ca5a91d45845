"""What is known of a GPU, the device that it is, and what a task gets of it. Pure.

Sources: NVML API reference; NVIDIA Container Toolkit ("Environment Variables", "CDI"); driver README, "Device files".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from edgerm.core import metadata
from edgerm.core.devices import Device, DeviceClass
from edgerm.plugin.device import DeviceNode, Mount

CLASS = "nvidia.com/gpu"
MIB = 1 << 20
DRIVER = ("/proc/driver/nvidia/version", "/dev/nvidiactl")  # one of them is there with a driver
CONTROL_NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")
CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")
TOOLKIT = ("/usr/bin/nvidia-container-runtime", "/usr/local/bin/nvidia-container-runtime")
LIBRARY = re.compile(r"\s+(lib(?:cuda|nvidia|nvcuvid|nvoptix|cudadebugger)\S*)\s.*=>\s(/\S+)")

GPU_CLASS = DeviceClass(
    CLASS,
    schema="""{
      "title": "GPU Metadata", "type": "object", "additionalProperties": false,
      "properties": {
        "uuid": {"type": "string"}, "model": {"type": "string"}, "memory_mib": {"type": "integer"},
        "driver": {"type": "string"}, "compute_capability": {"type": "string"}, "pci": {"type": "string"},
        "mig": {"type": "string"}
      }
    }""",
)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as the driver sees it, or a part of one (MIG) that can be given by itself."""

    uuid: str
    model: str
    memory_bytes: int
    driver: str
    compute_capability: str  # such as 9.0
    pci: str  # bus id of the card
    minor: int  # of /dev/nvidiaN of the card
    mig: str = ""  # the profile of the part, such as 1g.10gb; empty: it is the whole card
    gpu_instance: int = -1  # of a part
    compute_instance: int = -1
    problem: str = ""  # why it cannot be used


def device_of(gpu: Gpu) -> Device:
    """The device that it is."""
    told = {
        "uuid": gpu.uuid,
        "model": gpu.model,
        "memory_mib": gpu.memory_bytes // MIB,
        "driver": gpu.driver,
        "compute_capability": gpu.compute_capability,
        "pci": gpu.pci,
        **({"mig": gpu.mig} if gpu.mig else {}),
    }
    return Device(CLASS, gpu.uuid, problem=gpu.problem, metadata=metadata.to_text(told))


def with_missing(gpus: Sequence[Gpu], before: Iterable[Gpu]) -> tuple[Gpu, ...]:
    """These, and those from before that the driver does not name any more: a lost card is ill, it is not nowhere."""
    found = {gpu.uuid for gpu in gpus}
    lost = "the driver does not find it any more"
    gone = [gpu for gpu in before if gpu.uuid not in found and not gpu.mig]
    return (*gpus, *(replace(gpu, problem=lost) for gpu in gone))


def variables(uuids: Sequence[str], *, toolkit: bool = False) -> tuple[tuple[str, str], ...]:
    """What names the GPUs: to NVIDIA's runtime, and to CUDA in the task, which takes UUIDs for numbers."""
    listed = ",".join(uuids)
    capabilities = (("NVIDIA_DRIVER_CAPABILITIES", "compute,utility"),) if toolkit else ()
    return (("NVIDIA_VISIBLE_DEVICES", listed), ("CUDA_VISIBLE_DEVICES", listed), *capabilities)


def nodes_of(paths: Iterable[str]) -> tuple[DeviceNode, ...]:
    """These nodes, where they are on the box."""
    return tuple(DeviceNode(path, path, "rw") for path in paths)


def card_node(gpu: Gpu) -> str:
    """The card's own node."""
    return f"/dev/nvidia{gpu.minor}"


def capability_files(gpu: Gpu) -> tuple[str, ...]:
    """The files that tell which nodes open the part of a card; none for a whole one."""
    if gpu.gpu_instance < 0:
        return ()
    instance = f"/proc/driver/nvidia/capabilities/gpu{gpu.minor}/mig/gi{gpu.gpu_instance}"
    return (f"{instance}/access", f"{instance}/ci{gpu.compute_instance}/access")


def parse_capability(text: str) -> str:
    """The node that such a file names; empty: none."""
    found = re.search(r"^DeviceFileMinor:\s*(\d+)\s*$", text, re.MULTILINE | re.ASCII)
    return f"/dev/nvidia-caps/nvidia-cap{found[1]}" if found else ""


def parse_libraries(listing: str) -> tuple[Mount, ...]:
    """The driver's libraries in what `ldconfig -p` prints, each to be seen where it is."""
    paths = dict.fromkeys(match[2] for match in map(LIBRARY.match, listing.splitlines()) if match)
    return tuple(Mount(path, path, read_only=True, named=False) for path in paths)


def describes_gpus(specification: str) -> bool:
    """Whether a file of the Container Device Interface is about this class."""
    return re.search(r'"?kind"?\s*:\s*"?nvidia\.com/gpu"?', specification) is not None

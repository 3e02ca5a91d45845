"""The agent's settings: frozen, read once. `docs/examples/agent.toml` shows them all.

What does not live here: how file, environment and flags are merged (`edgerm.config`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from edgerm import config
from edgerm.core.errors import Invalid

DEFAULT_FILE = Path("/etc/edgerm/agent.toml")
DOCKER_SOCKET = "unix:///var/run/docker.sock"
MASTERS_MAX = 16
SCHEMES = ("http", "https", "coap")
PORT = 5051

Seconds = Annotated[float, msgspec.Meta(ge=0, le=366 * 86_400)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=366 * 86_400)]
Bytes = Annotated[int, msgspec.Meta(ge=1024, le=1 << 50)]


class Log(msgspec.Struct, frozen=True):
    """`[log]`"""

    form: Literal["auto", "console", "json"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Process(msgspec.Struct, frozen=True):
    """`[executors.process]`: tasks that are plain processes."""

    enabled: bool = True
    user: str = ""  # whom tasks run as; an agent that is not root runs them as itself
    users: tuple[str, ...] = ()  # whom a task may ask to run as


class Docker(msgspec.Struct, frozen=True):
    """`[executors.docker]`: tasks that are containers of a Docker engine."""

    enabled: bool = True  # false, or no engine: no containers
    socket: str = ""  # the engine's address; empty: DOCKER_HOST, else /var/run/docker.sock
    privileged: bool = False  # whether a task may ask for it: it is root on this box then
    volumes: tuple[str, ...] = ()  # below which directories of this box a task may mount
    users: tuple[str, ...] = ()  # whom a task may ask to run as; else it is whom the image says
    pull_stall_s: Positive = 60.0  # a pull without progress for so long has failed
    log_bytes: Bytes = 10 << 20  # of the output of one container that the engine keeps

    @property
    def address(self) -> str:
        """Of the engine: `unix:///PATH` or `tcp://HOST:PORT`."""
        return self.socket or os.environ.get("DOCKER_HOST") or DOCKER_SOCKET


class Wasm(msgspec.Struct, frozen=True):
    """`[executors.wasm]`: tasks that are WASM modules."""

    idle_s: Seconds = 60.0  # a host that held nothing for so long ends; the next task starts one. 0: it always runs


class Executors(msgspec.Struct, frozen=True):
    """`[executors]`"""

    process: Process = Process()
    docker: Docker = Docker()
    wasm: Wasm = Wasm()

    @property
    def idle_s(self) -> dict[str, float]:
        """The executors that may sleep, and after how long."""
        return {"wasm": self.wasm.idle_s} if self.wasm.idle_s else {}


class Sandboxes(msgspec.Struct, frozen=True):
    """`[sandboxes]`: how long the folders of ended tasks are kept."""

    retention_s: Seconds = 86_400.0
    total_bytes: Bytes = 1 << 30


class Blobs(msgspec.Struct, frozen=True):
    """`[blobs]`: the cache of modules and inputs."""

    total_bytes: Bytes = 1 << 30


class Coap(msgspec.Struct, frozen=True):
    """`[coap]`: the link to masters at `coap://`."""

    block_bytes: Literal[16, 32, 64, 128, 256, 512, 1024] = 1024  # of a blob, in one datagram


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`device_nodes` of a device."""

    host_path: str  # absolute
    container_path: str = ""  # empty: the same
    permissions: str = "rwm"  # some of r, w and m


class Volume(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`volumes` of a device."""

    host_path: str  # absolute
    container_path: str = ""  # empty: the same
    read_only: bool = False  # whether the task may only read it


class Declared(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[devices.declared]]`: one device, and what a task gets that has it."""

    name: str  # of the resource as which it is offered; several devices may share it
    id: str  # unique on this agent, such as /dev/video0
    shared: bool = False  # several tasks may have it at once
    device_nodes: tuple[Node, ...] = ()
    volumes: tuple[Volume, ...] = ()
    environment: dict[str, str] = {}  # msgspec copies it


class CpuOverride(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[devices.cpu.override]]`: what the operator knows better of some CPUs."""

    cpus: str  # a CPU list, such as 0,2-4
    kind: Literal["", "performance", "efficiency"] = ""  # empty: as found
    metadata: dict[str, Any] = {}  # goes over what was found


class Fake(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A device that stands in for hardware which is not there: it has metadata and sets variables, nothing else."""

    id: str
    metadata: dict[str, Any] = {}


class Cpu(msgspec.Struct, frozen=True):
    """`[devices.cpu]`: isolated cores."""

    enabled: bool = True
    housekeeping: str = ""  # a CPU list: never claimable
    isolated: str = ""  # a CPU list; empty: what the kernel isolates
    cpu_dma_latency: bool = True  # whether /dev/cpu_dma_latency goes to tasks with a core
    override: tuple[CpuOverride, ...] = ()
    fake: tuple[Fake, ...] = ()  # the id is the number of a CPU


class NicInterface(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[devices.nic.interfaces]]`: an interface that tasks may have."""

    name: str
    labels: dict[str, Annotated[int, msgspec.Meta(ge=0, le=4094)]] = {}  # label → VLAN tag; 0: none


class Nic(msgspec.Struct, frozen=True):
    """`[devices.nic]`"""

    enabled: bool = True
    interfaces: tuple[NicInterface, ...] = ()


class Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[devices.shm.memories]]`: a memory that tasks share."""

    name: str
    size: str  # such as 64M
    labels: tuple[str, ...] = ()
    permissions: dict[str, tuple[str, ...]] = msgspec.field(default_factory=lambda: {"*": ("rw",)})  # app → ro, rw


class Shm(msgspec.Struct, frozen=True):
    """`[devices.shm]`"""

    enabled: bool = True
    memories: tuple[Memory, ...] = ()


class Chip(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[devices.gpio.chips]]`: a GPIO chip that tasks may have."""

    path: str  # /dev/gpiochipN, or a link to it
    labels: tuple[str, ...] = ()


class Gpio(msgspec.Struct, frozen=True):
    """`[devices.gpio]`"""

    enabled: bool = True
    chips: tuple[Chip, ...] = ()


class Gpu(msgspec.Struct, frozen=True):
    """`[devices.gpu]`"""

    enabled: bool = True
    fake: tuple[Fake, ...] = ()


class Pluggable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[devices.hotplug.devices]]`: something that may be plugged in, known by what stays the same of it."""

    name: str  # its id, whatever node it gets
    kind: Literal["serial", "usb", "camera"]
    path: str = ""  # where it is plugged in: the bus path, such as pci-0000:00:14.0-usb-0:2:1.0
    serial: str = ""  # its serial number
    vendor: str = ""  # four hexadecimal digits, as lsusb shows them
    product: str = ""
    labels: tuple[str, ...] = ()


class Hotplug(msgspec.Struct, frozen=True):
    """`[devices.hotplug]`: serial ports, USB devices, cameras."""

    enabled: bool = True
    devices: tuple[Pluggable, ...] = ()


class Devices(msgspec.Struct, frozen=True):
    """`[devices]`"""

    dynamic_tuning: bool = True  # whether tasks may have kernel threads and interrupts tuned
    kubelet_dir: str = ""  # where device plugins for Kubernetes register; empty: nowhere
    sockets: tuple[str, ...] = ()  # of device plugins in processes of their own
    plugins: dict[str, dict[str, Any]] = {}  # settings of installed plugins, by name; `enabled = false`: not that one
    declared: tuple[Declared, ...] = ()
    cpu: Cpu = Cpu()
    nic: Nic = Nic()
    shm: Shm = Shm()
    gpio: Gpio = Gpio()
    gpu: Gpu = Gpu()
    hotplug: Hotplug = Hotplug()


class Config(msgspec.Struct, frozen=True):
    """All settings of an agent."""

    master: str = ""  # none: the agent stands alone, and gives devices to whoever asks on its box
    data_dir: str = ""
    name: str = ""
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] | None = None
    resources: str = ""
    attributes: str = ""
    log: Log = Log()
    executors: Executors = Executors()
    sandboxes: Sandboxes = Sandboxes()
    blobs: Blobs = Blobs()
    coap: Coap = Coap()
    devices: Devices = Devices()

    @property
    def look_port(self) -> int | None:
        """Where anybody may look at the agent; None: nowhere. What serves it takes as much memory as all the rest."""
        if self.port is None and any(url.startswith("http") for url in self.masters):  # its link takes that anyway
            return PORT
        return self.port

    @property
    def masters(self) -> tuple[str, ...]:
        """The URLs in `master`, none for an agent that stands alone; raises `Invalid`."""
        return parse_masters(self.master) if self.master.strip() else ()

    @property
    def data_path(self) -> Path:
        """The data directory, absolute."""
        return Path(self.data_dir or default_data_dir()).expanduser().absolute()


def load(file: Path | None = None, flags: Mapping[str, Any] | None = None) -> Config:
    """The settings that hold now; raises `Invalid` with the remedy."""
    settings = config.load(Config, file=file, default_file=DEFAULT_FILE, flags=flags)
    _ = settings.masters  # whether they are addresses
    return settings


def parse_masters(text: str) -> tuple[str, ...]:
    """`http://HOST:PORT` or `coap://HOST:PORT`, several with commas between; `HOST:PORT` is meant as http.

    Raises `Invalid`.
    """
    urls = tuple(_parse_master(part.strip()) for part in text.split(","))
    if len(urls) > MASTERS_MAX:
        raise Invalid(f"{len(urls)} masters, at most {MASTERS_MAX} are allowed")
    return urls


def _parse_master(text: str) -> str:
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        bare = parts.path in ("", "/") and not (parts.query or parts.fragment) and parts.username is None
        if bare and parts.scheme in SCHEMES and parts.hostname and parts.port != 0 and text.isprintable():
            return f"{parts.scheme}://{parts.netloc}"
    except ValueError:  # a port or an IPv6 address that is none
        pass
    raise Invalid(
        f"{text!r} is no master's address: write http://HOST:PORT or coap://HOST:PORT, such as http://127.0.0.1:5050"
    )


def default_data_dir() -> Path:
    """Where an agent keeps its data when nobody says otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/edgerm/agent")
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "edgerm" / "agent"

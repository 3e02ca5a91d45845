"""Promises of the plugin for NVIDIA's GPUs, on a fake of NVIDIA's library below NVIDIA's own binding."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import pynvml
import pytest
from support.fake_nvml import FakeCard, FakeLibrary

from edgerm.core.errors import Conflict
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.metadata import read
from edgerm.plugin.device import DeviceNode, Given, Grant, Mount, NotClean
from edgerm_agent.config import Fake, Gpu
from edgerm_agent.devices.gpu import parts
from edgerm_agent.devices.gpu import plugin as gpu_plugin
from edgerm_agent.devices.gpu.nvml import NotAnswering, Nvml
from edgerm_agent.devices.gpu.plugin import GpuPlugin

KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
WHOLE = FakeCard("GPU-1")
LISTING = """2 libs found in cache `/etc/ld.so.cache'
\tlibnvidia-ml.so.1 (libc6,x86-64) => /usr/lib/libnvidia-ml.so.1
\tlibcuda.so.1 (libc6,x86-64) => /usr/lib/libcuda.so.1
\tlibc.so.6 (libc6,x86-64) => /usr/lib/libc.so.6
"""


class Files:
    """A host with these files, and nothing else."""

    notes: Any = None

    def __init__(self, files: dict[str, str] | None = None) -> None:
        self.files = files or {}

    def exists(self, path: str) -> bool:
        return path in self.files

    def read(self, path: str) -> str:
        return self.files[path]

    def write(self, path: str, text: str) -> None:
        raise PermissionError(path)

    def names(self, path: str) -> tuple[str, ...]:
        found = tuple(sorted(name.rpartition("/")[2] for name in self.files if name.rpartition("/")[0] == path))
        if not found:
            raise FileNotFoundError(path)
        return found

    def link(self, path: str) -> str:
        return path

    async def run(self, *argv: str) -> str:
        assert argv == ("ldconfig", "-p")
        return LISTING


@pytest.fixture
def cards() -> Iterator[list[FakeCard]]:
    found: list[FakeCard] = []
    before = pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache)
    pynvml.nvmlLib = FakeLibrary(found)
    pynvml._nvmlGetFunctionPointer_cache.clear()
    yield found
    pynvml.nvmlLib = before[0]
    pynvml._nvmlGetFunctionPointer_cache.clear()
    pynvml._nvmlGetFunctionPointer_cache.update(before[1])


async def inventory_of(plugin: GpuPlugin) -> Any:
    return await anext(aiter(plugin.watch()))


def plugin_on(files: Any = None, settings: Gpu | None = None) -> GpuPlugin:
    return GpuPlugin(settings or Gpu(), files or Files(), Nvml(), look_s=0.0)


async def grant_of(plugin: GpuPlugin, executor: str = "docker") -> Grant:
    devices = (await inventory_of(plugin)).devices
    return Grant(KEY, parts.CLASS, (Given("gpu", {}, devices),), executor)


async def test_a_card_is_a_device_with_what_the_driver_says(cards: list[FakeCard]) -> None:
    """A whole card is one exclusive device, named by its UUID."""
    cards.append(FakeCard("GPU-1", minor=2))
    (device,) = (await inventory_of(plugin_on())).devices
    assert (device.id, device.shared, device.problem, device.fake) == ("GPU-1", False, "", False)
    told = read(device.metadata)
    assert told["model"] == "Fake GPU 9000"
    assert (told["memory_mib"], told["driver"], told["compute_capability"]) == (8192, "999.99-fake", "9.0")


async def test_a_divided_card_is_its_parts(cards: list[FakeCard]) -> None:
    """With MIG the parts are given, the card itself is not."""
    card = FakeCard("GPU-1", parts=[FakeCard("MIG-a", "Fake MIG 1g.10gb"), FakeCard("MIG-b", "Fake MIG 2g.20gb")])
    cards.append(card)
    devices = (await inventory_of(plugin_on())).devices
    assert [(device.id, read(device.metadata)["mig"]) for device in devices] == [
        ("MIG-a", "1g.10gb"),
        ("MIG-b", "2g.20gb"),
    ]


@pytest.mark.parametrize(
    ("card", "words"),
    [(FakeCard("GPU-1", row_failed=True), "replaced"), (FakeCard("GPU-1", ecc_errors=3), "3 errors")],
)
async def test_an_ill_card_is_there_with_its_problem(cards: list[FakeCard], card: FakeCard, words: str) -> None:
    """Health is a field, never an absence."""
    cards.append(card)
    (device,) = (await inventory_of(plugin_on())).devices
    assert words in device.problem


async def test_a_card_that_falls_off_its_bus_is_ill(cards: list[FakeCard]) -> None:
    """A card that was there once and is not any more is listed with that problem."""
    cards.append(FakeCard("GPU-1"))
    watching = aiter(plugin_on().watch())
    await anext(watching)
    cards[0].lost = True
    (device,) = (await anext(watching)).devices
    assert device.id == "GPU-1"
    assert "does not find it" in device.problem


async def test_fakes_need_neither_driver_nor_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a box without a driver the plugin has its fakes, and imports nothing of NVIDIA's."""
    monkeypatch.setitem(sys.modules, "edgerm_agent.devices.gpu.nvml", None)
    plugin = gpu_plugin.create(Gpu(fake=(Fake("fake-0"),)), Files())
    assert [device.id for device in (await inventory_of(plugin)).devices] == ["fake-0"]


async def test_a_driver_that_does_not_answer_has_no_devices() -> None:
    """An inventory without devices, nothing raised."""

    class Nothing:
        def gpus(self) -> Any:
            raise NotAnswering("no library")

        def users(self, uuid: str) -> Any:
            raise NotAnswering("no library")

    plugin = GpuPlugin(Gpu(), Files(), Nothing())
    assert (await inventory_of(plugin)).devices == ()


async def test_fakes_say_so_and_set_the_variables(cards: list[FakeCard]) -> None:
    """A fake has the operator's metadata, sets the variables and gives nothing else."""
    plugin = plugin_on(settings=Gpu(fake=(Fake("fake-0", {"model": "none"}),)))
    grant = await grant_of(plugin)
    assert [device.fake for device in grant.devices] == [True]
    setup = await plugin.prepare(grant)
    assert dict(setup.env) == {"NVIDIA_VISIBLE_DEVICES": "fake-0", "CUDA_VISIBLE_DEVICES": "fake-0"}
    assert (setup.nodes, setup.mounts, setup.runtime, setup.cdi_names) == ((), (), "", ())
    await plugin.release(grant)


async def test_the_interface_of_the_engine_goes_first(cards: list[FakeCard]) -> None:
    """Where a CDI file names the class, the container gets the GPU by that."""
    cards.append(FakeCard("GPU-1"))
    plugin = plugin_on(Files({"/etc/cdi/nvidia.yaml": "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\n"}))
    setup = await plugin.prepare(await grant_of(plugin))
    assert setup.cdi_names == ("nvidia.com/gpu=GPU-1",)
    assert setup.nodes == ()


async def test_the_runtime_of_nvidia_is_used_where_it_is(cards: list[FakeCard]) -> None:
    """Without CDI, NVIDIA's runtime is told by its variables."""
    cards.append(FakeCard("GPU-1"))
    plugin = plugin_on(Files({parts.TOOLKIT[0]: ""}))
    setup = await plugin.prepare(await grant_of(plugin))
    assert setup.runtime == "nvidia"
    assert dict(setup.env)["NVIDIA_VISIBLE_DEVICES"] == "GPU-1"


async def test_without_either_nodes_and_libraries_are_passed(cards: list[FakeCard]) -> None:
    """The card's node, the control nodes that exist, and the driver's libraries."""
    cards.append(FakeCard("GPU-1", minor=2))
    plugin = plugin_on(Files({"/dev/nvidiactl": "", "/dev/nvidia-uvm": ""}))
    setup = await plugin.prepare(await grant_of(plugin))
    assert setup.nodes == tuple(
        DeviceNode(path, path, "rw") for path in ("/dev/nvidia2", "/dev/nvidiactl", "/dev/nvidia-uvm")
    )
    assert Mount("/usr/lib/libcuda.so.1", "/usr/lib/libcuda.so.1", True, False) in setup.mounts
    assert all("libc.so" not in mount.source for mount in setup.mounts)


async def test_a_part_of_a_card_brings_its_capabilities(cards: list[FakeCard]) -> None:
    """A MIG part is opened through two more nodes, which the driver's files name."""
    cards.append(FakeCard("GPU-1", parts=[FakeCard("MIG-a", "Fake MIG 1g.10gb")]))
    access = "/proc/driver/nvidia/capabilities/gpu0/mig/gi3"
    files = {f"{access}/access": "DeviceFileMinor: 30\n", f"{access}/ci0/access": "DeviceFileMinor: 31\n"}
    plugin = plugin_on(Files(files))
    setup = await plugin.prepare(await grant_of(plugin))
    assert [node.host_path for node in setup.nodes] == [
        "/dev/nvidia0",
        "/dev/nvidia-caps/nvidia-cap30",
        "/dev/nvidia-caps/nvidia-cap31",
    ]


async def test_processes_get_the_variables_alone(cards: list[FakeCard]) -> None:
    """A process sees the box's nodes: it is told which GPU is its own."""
    cards.append(FakeCard("GPU-1"))
    plugin = plugin_on()
    setup = await plugin.prepare(await grant_of(plugin, "process"))
    assert dict(setup.env)["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    assert setup.nodes == ()


async def test_an_ill_card_is_not_prepared(cards: list[FakeCard]) -> None:
    """A card that fell ill after it was given is refused, with its name and what it has."""
    cards.append(FakeCard("GPU-1"))
    watching_plugin = plugin_on()
    grant = await grant_of(watching_plugin)
    cards[0].row_failed = True
    await inventory_of(watching_plugin)
    with pytest.raises(Conflict, match="GPU-1 cannot be had: a row"):
        await watching_plugin.prepare(grant)


async def test_a_gpu_in_use_is_not_clean(cards: list[FakeCard], monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU is given back only when no process is on it; the evidence names them."""
    monkeypatch.setattr(gpu_plugin, "LEAVE_S", 0.0)
    cards.append(FakeCard("GPU-1", pids=[4711]))
    plugin = plugin_on()
    grant = await grant_of(plugin)
    with pytest.raises(NotClean, match="GPU-1 is used by pid 4711"):
        await plugin.release(grant)
    cards[0].pids.clear()
    await plugin.release(grant)


async def test_a_process_that_leaves_is_waited_for(cards: list[FakeCard]) -> None:
    """What is killed may be on the card for a moment longer."""
    cards.append(FakeCard("GPU-1", pids=[4711]))
    plugin = plugin_on()
    grant = await grant_of(plugin)
    release = asyncio.create_task(plugin.release(grant))
    await asyncio.sleep(0)
    cards[0].pids.clear()
    await release

"""Shared memories for real: tmpfs of the box, kept over restarts, and seen by those tasks alone that claim them."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import ClassVar

import pytest
from support.containers import DEADLINE_S, executing, launch, run, shell
from support.engine import running_engine, why_not

from edgerm.core.devices import Device, Inventory
from edgerm.core.errors import Conflict, Invalid, NotFound
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.metadata import read
from edgerm.plugin.device import Given, Grant, HostFiles, Mount, Setup
from edgerm.plugin.executor import LaunchSpec
from edgerm.testing.conformance.device import DevicePluginSuite
from edgerm_agent import purge
from edgerm_agent.cgroups import open_cgroups
from edgerm_agent.config import Memory, Shm
from edgerm_agent.devices.hostfs import Host
from edgerm_agent.devices.shm.memories import Memories, mounted
from edgerm_agent.devices.shm.memory import CLASS
from edgerm_agent.devices.shm.mounts import MOUNTINFO, Mounted, parse_mountinfo
from edgerm_agent.devices.shm.plugin import SharedMemories
from edgerm_agent.executors.wasm import WasmExecutor

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts file systems")

MIB = 1 << 20
MOUNTED = Path(__file__).parents[1] / "fixtures/wasm/mounted.wasm"
FRAMES = Memory("frames", "1M", ("frames", "all"))
RESULTS = Memory("results", "2M", ("results", "all"))


class Box:
    """One box with its notes and mounts; agents come and go."""

    def __init__(self, folder: Path) -> None:
        self.base = str(folder / "iedge")
        self.host = Host(folder / "notes")

    def agent(self, *configured: Memory) -> SharedMemories:
        """The plugin of an agent that starts with this file."""
        return SharedMemories(Shm(memories=configured), self.host, self.base)

    def mounted(self) -> dict[str, Mounted]:
        """What is mounted, by the last part of its path."""
        found = parse_mountinfo(Path(MOUNTINFO).read_text(), self.base)
        return {place.rpartition("/")[2]: mount for place, mount in found.items()}

    def sizes(self) -> dict[str, int]:
        """The memories' sizes in MiB, by the last part of their path."""
        return {place: mount.size_bytes // MIB for place, mount in self.mounted().items()}


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """A box whose mounts are gone afterwards."""
    made = Box(tmp_path)
    yield made
    for place in made.mounted():
        subprocess.run(["umount", f"{made.base}/{place}"], check=True)


class TestConformance(DevicePluginSuite):
    """The plugin keeps to what every plugin does."""

    config: ClassVar[Mapping[str, object]] = {"id": "in", "posix_mount": True, "permissions": ["ro"]}
    wrong_configs: ClassVar[tuple[Mapping[str, object], ...]] = ({"id": 1}, {"posix_mount": 1}, {"permissions": []})

    @pytest.fixture
    def host(self, box: Box) -> HostFiles:
        """The real box."""
        self.base = box.base
        return box.host

    def make_plugin(self, host: HostFiles) -> SharedMemories:
        """With two memories."""
        return SharedMemories(Shm(memories=(FRAMES, RESULTS)), host, self.base)

    def look(self, host: HostFiles) -> object:
        """Mounts and notes."""
        return parse_mountinfo(host.read(MOUNTINFO), self.base), {key: host.notes.get(key) for key in _keys(host)}


def _keys(host: HostFiles) -> tuple[str, ...]:
    return host.notes.keys()


async def told(plugin: SharedMemories) -> Inventory:
    """The inventory with which the plugin begins."""
    inventories = plugin.watch()
    try:
        return await anext(inventories)
    finally:
        await inventories.aclose()  # type: ignore[attr-defined]


def grant(task: str, *claims: tuple[str, Mapping[str, object]], app: str = "app", executor: str = "docker") -> Grant:
    """A task's memories, each with its config."""
    key = TaskKey(FrameworkId("f"), TaskId(task), LaunchId("l"))
    given = tuple(Given(name, config, (Device(CLASS, name, shared=True),)) for name, config in claims)
    return Grant(key, CLASS, given, executor, app)


async def test_the_file_makes_memories(box: Box) -> None:
    """Each memory of the operator's file is a tmpfs of its size, told with labels and size; healthy and shared."""
    inventory = await told(box.agent(FRAMES, RESULTS))
    assert box.sizes() == {"shm0": 1, "shm1": 2}
    assert [(device.id, device.shared, device.problem, device.gives) for device in inventory.devices] == [
        ("frames", True, "", (f"directory {box.base}/shm0",)),
        ("results", True, "", (f"directory {box.base}/shm1",)),
    ]
    assert read(inventory.devices[0].metadata) == {"labels": ["frames", "all"], "size": MIB}
    (found,) = inventory.classes
    assert (found.shared, found.unambiguous, found.config_keys) == (True, True, ("id", "posix_mount", "permissions"))
    place = Path(box.base, "shm0")
    assert place.stat().st_mode & 0o7777 == 0o1777
    with pytest.raises(OSError, match="No space left"):
        (place / "much").write_bytes(bytes(MIB + 1))


async def test_tasks_of_other_users_reach_them(box: Box) -> None:
    """Whatever the agent's umask, everybody passes to a memory, where its permissions are those of any shared place."""
    before = os.umask(0o077)
    try:
        await told(box.agent(FRAMES))
    finally:
        os.umask(before)
    assert [stat.S_IMODE(Path(place).stat().st_mode) for place in (box.base, f"{box.base}/shm0")] == [0o755, 0o1777]


async def test_memories_outlive_the_agent(box: Box) -> None:
    """After a restart a memory is at its place with its files, whatever the file's order, also if notes are lost."""
    await told(box.agent(FRAMES, RESULTS))
    Path(box.base, "shm1", "kept").write_text("still here")
    again = await told(box.agent(RESULTS, FRAMES))
    assert [device.id for device in again.devices] == ["frames", "results"]
    for key in sorted(box.host.notes.keys()):
        box.host.notes.drop(key)
    (device,) = (await told(box.agent(RESULTS))).devices
    assert device.gives == (f"directory {box.base}/shm1",)
    assert Path(box.base, "shm1", "kept").read_text() == "still here"
    assert box.sizes() == {"shm0": 1, "shm1": 2}


async def test_a_purge_ends_all(tmp_path: Path) -> None:
    """What the agent's notes tell of is unmounted with what is in it, of the file or not; another agent's stays."""
    mine, other = Host(tmp_path / "devices" / "shm"), Host(tmp_path / "other")
    base = str(tmp_path / "iedge")
    plugin = SharedMemories(Shm(memories=(FRAMES,)), mine, base)
    try:
        await told(plugin)
        await plugin.memories.create("more", "1M")
        await told(SharedMemories(Shm(memories=(RESULTS,)), other, base))
        assert mounted(mine, base) == ("frames", "more")
        Path(base, "shm0", "file").write_text("gone")
        assert await purge.end_memories(tmp_path, base) == []
        assert (mounted(mine, base), mounted(other, base)) == ((), ("results",))
    finally:
        assert await Memories((), other, base).end_all() == []
    assert not Path(base).exists()


async def test_what_is_done_at_run_time_stays(box: Box) -> None:
    """Create, resize and delete are told at once and hold after a restart, until the entry in the file changes."""
    plugin = box.agent(FRAMES, RESULTS)
    inventories = plugin.watch()
    async with asyncio.timeout(DEADLINE_S):
        await anext(inventories)
        await plugin.memories.create("more", "3M", ["extra"], {"*": ["ro"]})
        assert [device.id for device in (await anext(inventories)).devices] == ["frames", "results", "more"]
        await plugin.memories.resize("frames", "4M")
        assert read((await anext(inventories)).devices[0].metadata)["size"] == 4 * MIB
        await plugin.memories.delete("results")
        assert [device.id for device in (await anext(inventories)).devices] == ["frames", "more"]
    assert box.sizes() == {"shm0": 4, "shm2": 3}
    restarted = await told(box.agent(FRAMES, RESULTS))
    assert [device.id for device in restarted.devices] == ["frames", "more"]
    assert box.sizes() == {"shm0": 4, "shm2": 3}
    edited = await told(box.agent(Memory("frames", "5M"), Memory("results", "6M")))
    assert [device.id for device in edited.devices] == ["frames", "results", "more"]
    assert box.sizes() == {"shm0": 5, "shm1": 6, "shm2": 3}


async def test_a_deleted_memory_can_be_made_again(box: Box) -> None:
    """A memory that was deleted is made anew under its name, empty, with what is said now."""
    plugin = box.agent(FRAMES)
    await told(plugin)
    Path(box.base, "shm0", "old").touch()
    await plugin.memories.delete("frames")
    await plugin.memories.create("frames", "7M")
    assert (box.sizes(), os.listdir(Path(box.base, "shm0"))) == ({"shm0": 7}, [])  # noqa: PTH208 - it reads well


async def test_what_is_used_stays_as_it_is(box: Box) -> None:
    """Resizing and deleting are refused while a task has the memory, naming it; after its end they are done."""
    plugin = box.agent(FRAMES)
    await told(plugin)
    await plugin.prepare(grant("holder", ("frames", {})))
    for attempt in (plugin.memories.resize("frames", "9M"), plugin.memories.delete("frames")):
        with pytest.raises(Conflict, match="'frames' is used by f/holder/l"):
            await attempt
    plugin = box.agent(FRAMES)  # the agent was restarted, the task runs on
    await told(plugin)
    with pytest.raises(Conflict, match="f/holder/l"):
        await plugin.memories.delete("frames")
    for _ in range(2):
        await plugin.release(grant("holder", ("frames", {})))
    await plugin.memories.delete("frames")
    assert box.mounted() == {}


async def test_what_was_edited_while_used_is_done_later(box: Box) -> None:
    """A memory that the file no longer has, or with another size, changes when its last task has ended."""
    plugin = box.agent(FRAMES, RESULTS)
    await told(plugin)
    held = grant("holder", ("frames", {}), ("results", {}))
    await plugin.prepare(held)
    plugin = box.agent(Memory("results", "8M"))
    inventories = plugin.watch()
    async with asyncio.timeout(DEADLINE_S):
        before = await anext(inventories)
        assert [(device.id, bool(device.problem)) for device in before.devices] == [
            ("frames", True),
            ("results", False),
        ]
        assert box.sizes() == {"shm0": 1, "shm1": 2}
        await plugin.release(held)
        assert [device.id for device in (await anext(inventories)).devices] == ["results"]
    assert box.sizes() == {"shm1": 8}


async def test_wrong_orders_change_nothing(box: Box) -> None:
    """A name that is taken or unknown, a size that is none or too small for the files, are refused with words."""
    plugin = box.agent(FRAMES)
    await told(plugin)
    Path(box.base, "shm0", "file").write_bytes(bytes(MIB // 2))
    with pytest.raises(Conflict, match="there is a shared memory 'frames' already"):
        await plugin.memories.create("frames", "1M")
    with pytest.raises(NotFound, match="no shared memory 'nothing'"):
        await plugin.memories.delete("nothing")
    with pytest.raises(Invalid, match="'big'"):
        await plugin.memories.create("other", "big")
    with pytest.raises(Conflict, match="cannot be resized to 64K"):
        await plugin.memories.resize("frames", "64K")
    Path(box.base, "shm0", "open").touch()
    with Path(box.base, "shm0", "open").open(), pytest.raises(Conflict, match="busy"):
        await plugin.memories.delete("frames")
    assert [device.id for device in (await told(plugin)).devices] == ["frames"]
    assert box.sizes() == {"shm0": 1}


async def test_a_place_that_is_taken(box: Box) -> None:
    """A foreign mount where a memory stood makes the memory ill, with the reason; nothing is mounted over it."""
    plugin = box.agent(FRAMES)
    await told(plugin)
    subprocess.run(["mount", "-t", "tmpfs", "foreign", f"{box.base}/shm0"], check=True)
    (device,) = (await told(plugin)).devices
    assert "foreign is mounted at" in device.problem
    with pytest.raises(Conflict, match="foreign is mounted"):
        await plugin.prepare(grant("t", ("frames", {})))
    subprocess.run(["umount", f"{box.base}/shm0"], check=True)
    assert (await told(plugin)).devices[0].problem == ""


async def test_without_root_memories_are_ill(tmp_path: Path) -> None:
    """Where nothing may be mounted, memories are there with the reason as their problem, and none can be made."""

    class Powerless(Host):
        async def run(self, *argv: str) -> str:
            return await super().run("setpriv", "--reuid=65534", "--clear-groups", *argv)

    plugin = SharedMemories(Shm(memories=(FRAMES,)), Powerless(tmp_path / "notes"), str(tmp_path / "iedge"))
    (device,) = (await told(plugin)).devices
    assert "cannot be mounted at" in device.problem
    assert "Permission denied" in device.problem
    with pytest.raises(Conflict, match="Permission denied"):
        await plugin.memories.create("more", "1M")
    assert [device.id for device in (await told(plugin)).devices] == ["frames"]


async def test_what_a_task_gets(box: Box) -> None:
    """Columns of places and ids go together, the posix one is /dev/shm, too; an agent anew prepares the same."""
    plugin = box.agent(FRAMES, RESULTS)
    await told(plugin)
    wanted = grant("t", ("frames", {"id": "in", "posix_mount": True}), ("results", {"permissions": ["ro"]}))
    first, second = f"{box.base}/shm0", f"{box.base}/shm1"
    setup = Setup(
        env=(("IEDGE_SHM_MOUNTPOINTS", f"{first},{second}"), ("IEDGE_SHM_IDS", "in,")),
        mounts=(
            Mount(first, first, read_only=False, named=False),
            Mount(second, second, read_only=True, named=False),
            Mount("/dev/shm", first, read_only=False, named=False),
        ),
    )
    assert await plugin.prepare(wanted) == setup
    assert await box.agent(FRAMES, RESULTS).prepare(wanted) == setup


@pytest.mark.parametrize(
    ("executor", "app", "configs", "words"),
    [
        ("docker", "app", [{"posix_mount": True}, {"posix_mount": True}], "posix_mount is true for frames, limited"),
        ("process", "app", [{"posix_mount": True}], "a process has no /dev/shm of its own"),
        ("wasm", "app", [{"posix_mount": True}], "a module has no /dev/shm of its own"),
        ("docker", "reader", [{}, {}], "app 'reader' asks for 'rw' of the shared memory 'limited'"),
        ("docker", "app", [{}, {}], "app 'app' not have the shared memory 'limited'"),
        ("process", "reader", [{}, {"permissions": ["ro"]}], "a process cannot be kept from writing"),
    ],
)
async def test_what_no_task_gets(
    box: Box, executor: str, app: str, configs: list[dict[str, object]], words: str
) -> None:
    """What the operator does not allow the app, or its executor cannot give, is refused with the reason."""
    plugin = box.agent(FRAMES, Memory("limited", "1M", permissions={"reader": ("ro",), "app": ()}))
    await told(plugin)
    claims = zip(("frames", "limited"), configs, strict=False)
    with pytest.raises((Conflict, Invalid), match=words):
        await plugin.prepare(grant("t", *claims, app=app, executor=executor))


async def test_three_containers(box: Box, tmp_path: Path) -> None:
    """A and B share a memory, B and C another: A and C do not meet, a reader cannot write, shm_open reaches others."""
    if why := why_not():
        pytest.skip(why)
    plugin = box.agent(FRAMES, RESULTS)
    await told(plugin)
    one, two = f"{box.base}/shm0", f"{box.base}/shm1"
    setups = {
        "a": await plugin.prepare(grant("a", ("frames", {}))),
        "b": await plugin.prepare(grant("b", ("frames", {"permissions": ["ro"]}), ("results", {}))),
        "c": await plugin.prepare(grant("c", ("results", {}))),
        "p": await plugin.prepare(grant("p", ("frames", {"posix_mount": True}))),
    }
    # The mounts are there before the engine's room is made, which has a copy of them.
    async with AsyncExitStack() as stack:
        engine = stack.enter_context(running_engine())
        executor = await stack.enter_async_context(executing(engine))

        async def say(who: str, script: str) -> str:
            setup = setups[who]
            exit_ = await run(executor, shell(tmp_path, script, mounts=setup.mounts))
            assert exit_.code == 0, exit_
            return exit_.tail.strip()

        await say("a", f"echo from a >{one}/a; test ! -e {two}; touch /dev/shm/private")
        await say("c", f"echo from c >{two}/c; test ! -e {one}; test ! -e /dev/shm/private")
        refused = f"touch {one}/b 2>/dev/null || echo read-only"
        said = await say("b", f"cat {one}/a {two}/c; echo from b >{two}/b; {refused}")
        assert said == "from a\nfrom c\nread-only"
        assert await say("a", f"ls {one}") == "a"
        assert await say("c", f"ls {two}") == "b\nc"
        writer = "fd = _posixshmem.shm_open('/frame', os.O_CREAT | os.O_RDWR, mode=0o600); os.write(fd, b'picture')"
        reader = "fd = _posixshmem.shm_open('/frame', os.O_RDONLY, mode=0); print(os.read(fd, 100).decode())"
        for program in (writer, reader):
            argv = (sys._base_executable, "-I", "-c", f"import os, _posixshmem; {program}")  # type: ignore[attr-defined]
            mounts = (*setups["p"].mounts, *our_python())
            exit_ = await run(executor, launch(tmp_path, *argv, mounts=mounts))
            assert exit_.code == 0, exit_
        assert exit_.tail == "picture\n"
    assert Path(one, "frame").read_text() == "picture"


@pytest.mark.parametrize(("permissions", "code", "left"), [(["rw"], 0, {"f"}), (["ro"], 63, set())])
async def test_a_module_sees_a_directory(
    box: Box, tmp_path: Path, permissions: list[str], code: int, left: set[str]
) -> None:
    """A module finds the memory at its place, and cannot write (errno perm) where it may only read."""
    plugin = box.agent(FRAMES)
    await told(plugin)
    setup = await plugin.prepare(grant("t", ("frames", {"permissions": permissions}), executor="wasm"))
    (sandbox := tmp_path / "sandbox").mkdir()
    cgroups = open_cgroups(f"shm-{os.getpid()}")
    executor = WasmExecutor(tmp_path, cgroups)
    try:
        spec = LaunchSpec(grant("t").task, "m", ("m",), (), sandbox, module=MOUNTED, mounts=setup.mounts)
        exit_ = await executor.wait(await executor.start(spec))
    finally:
        await executor.shutdown(force=True)
        await executor.close()
        cgroups.discard()
    assert (exit_.code, exit_.tail[: len(box.base) + 5]) == (code, f"{box.base}/shm0")
    assert {path.name for path in Path(box.base, "shm0").iterdir()} == left


def our_python() -> tuple[Mount, ...]:
    """What the interpreter that runs us needs, for an image that has none."""
    places = (Path(sys.base_prefix), Path("/lib"), Path("/lib64"))  # the loader is found by its name in one of these
    return tuple(Mount(str(place), str(place.resolve()), True, False) for place in places if place.exists())

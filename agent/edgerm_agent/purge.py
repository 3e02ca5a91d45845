"""`edgerm agent --purge`: end all that a stopped agent still holds on this box, and remove its data.

The order makes it safe to break off and repeat: first what runs ends, then devices go home, shared memories are
unmounted with what is in them, and the data go, the journal last of all: it alone tells which groups and containers are
ours. What is left in the end is the directory itself with its lock file,
which must stay (two files of one name would be two locks), and whatever there is not ours. Links are removed, never
followed; a directory with something mounted below it is left alone.

What does not live here: who runs what (`roster`), how people are asked (`edgerm.cli.agent`).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from edgerm import logs
from edgerm.core.errors import Conflict, EdgermError, Invalid
from edgerm.core.ids import AgentId
from edgerm.store.datadir import LOCK_NAME, explained, lock_alone
from edgerm.store.sqlite import SqliteStore
from edgerm.transport.local import SOCKET
from edgerm_agent import engines, host
from edgerm_agent.config import Config
from edgerm_agent.core.records import GrantRecord, Phase, RunRecord, executors_of
from edgerm_agent.devices.hostfs import doors
from edgerm_agent.devices.loader import load
from edgerm_agent.devices.manager import Devices
from edgerm_agent.devices.outside import connect
from edgerm_agent.devices.returning import give_back_all
from edgerm_agent.devices.shm.memories import Memories, mounted
from edgerm_agent.devices.shm.plugin import BASE
from edgerm_agent.journal import JOURNAL, inspect
from edgerm_agent.keeper import members
from edgerm_agent.roster import DOCKER, NO_PACKAGE, Roster

FOLDERS: Final = ("sandboxes", "blobs", "wasm-code", "devices")
FILES: Final = (
    SOCKET,  # that a killed agent left
    *(f"{name}.{suffix}" for name in ("keeper", "wasm-host", "wasm-host-2") for suffix in ("sock", "log", "lock")),
)
LAST: Final = (f"{JOURNAL}-wal", f"{JOURNAL}-shm", f"{JOURNAL}-journal", JOURNAL)
END_S = 30.0
LEFT_SHOWN = 20
SQLITE_MAGIC: Final = b"SQLite format 3\0"
REMEDY: Final = "name the agent's directory with --data-dir"

log = logs.get("agent.purge")


@dataclass(frozen=True, slots=True)
class Found:
    """What would be ended and removed."""

    path: Path
    agent_id: AgentId
    live_tasks: int  # by the journal: they may run
    executors: frozenset[str]  # that these are on
    sandboxes: int
    blobs: int
    size_bytes: int
    foreign: tuple[str, ...]  # entries that are not the agent's: they stay
    grants: tuple[GrantRecord, ...] = ()  # devices that tasks may have
    memories: tuple[str, ...] = ()  # shared memories that are mounted, by name

    def __str__(self) -> str:
        kinds = f" ({', '.join(sorted(self.executors))})" if self.executors else ""
        memories = f"shared memories with all that is in them ({', '.join(self.memories)}), " if self.memories else ""
        return (
            f"agent {self.agent_id} in {self.path}: {self.live_tasks} live tasks{kinds} with what holds them, "
            f"{memories}{self.sandboxes} sandboxes, {self.blobs} blobs, its journal and its id; "
            f"{self.size_bytes:,} bytes"
        )


def purge(settings: Config, agreed: Callable[[Found], bool], say: Callable[[str], None]) -> int:
    """Look, ask, end, remove; the exit status: 0 nothing is left, 1 something is, or `agreed` said no.

    Raises `Conflict` while the agent runs, `Invalid` for a directory that is no agent's; both leave it untouched.
    """
    path = settings.data_path
    if not _is_agents(path):
        say(f"nothing to remove: {path} has no agent's data")
        return 0
    with _locked(path):
        found = _look(path)
        if not agreed(found):
            say("nothing was removed")
            return 1
        left = asyncio.run(_end(found, settings))
        if left:
            say(_told(left, "the data stay until that has ended: try again"))
            return 1
        left = remove(path)
        if left:
            say(_told(left, f"remove what stands in the way, then repeat: edgerm agent --purge --data-dir {path}"))
            return 1
    say(f"agent {found.agent_id} and all that it had in {path} are removed; the next start is a new agent")
    if found.foreign:
        say(f"what is not the agent's stays in {path}: {', '.join(found.foreign)}")
    say(f"a master that knows it waits for it: edgerm drain {found.agent_id} --gone")
    return 0


def _told(left: list[str], remedy: str) -> str:
    return "\n".join(f"left: {thing}" for thing in left) + f"\n{remedy}"


# --- look -------------------------------------------------------------------------------------------------------


def _is_agents(path: Path) -> bool:
    """Whether an agent has data there; False: nothing is there, or nothing any more. Raises `Invalid`."""
    with explained(path, REMEDY):
        if path.is_symlink():
            raise Invalid(f"{path} is a link, and links are not followed here: name what it leads to with --data-dir")
        try:
            names = set(os.listdir(path))  # noqa: PTH208 - names, not paths
        except FileNotFoundError:
            return False
        if not names - {LOCK_NAME}:
            return False
        if JOURNAL in names and _is_database(path / JOURNAL):
            return True
    raise Invalid(f"{path} is no agent's data directory (it has no {JOURNAL} of ours): {REMEDY}")


def _is_database(path: Path) -> bool:
    if not stat.S_ISREG(path.lstat().st_mode):
        return False
    with path.open("rb") as file:
        return file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep every agent off; raises `Conflict` if one has it."""
    with explained(path, REMEDY):
        lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if holder := lock_alone(lock):
            raise Conflict(f"an agent runs in {path}, as {holder}: stop it first, its tasks run on meanwhile")
        yield
        os.ftruncate(lock, 0)
    finally:
        os.close(lock)


def _look(path: Path) -> Found:
    with closing(SqliteStore(path / JOURNAL)) as store:
        agent_id, records = inspect(store)
    live = [record for record in records if isinstance(record, RunRecord) and record.phase is not Phase.ENDED]
    names = sorted(os.listdir(path))  # noqa: PTH208 - names, not paths
    return Found(
        path,
        agent_id,
        len(live),
        executors_of(records),
        _count(path / "sandboxes"),
        _count(path / "blobs"),
        sum(_sizes(path)),
        tuple(name for name in names if name not in {LOCK_NAME, *FILES, *LAST, *FOLDERS}),
        tuple(record for record in records if isinstance(record, GrantRecord)),
        mounted(doors(path / "devices")("shm"), BASE),
    )


def _count(folder: Path) -> int:
    with suppress(OSError):
        return sum(1 for entry in os.scandir(folder) if not entry.name.startswith("."))
    return 0


def _sizes(path: Path) -> Iterator[int]:
    for folder, _, names in os.walk(path):  # links to folders are not followed
        for name in names:
            with suppress(OSError):
                yield (Path(folder) / name).lstat().st_size


# --- end --------------------------------------------------------------------------------------------------------


async def _end(found: Found, settings: Config) -> list[str]:
    """End what runs; what is still there."""
    roster = Roster(found.path, found.agent_id, settings.executors.process)
    left: list[str] = []
    try:
        for name, executor in roster.executors.items():
            left += await _try(f"tasks on {name}", executor.end_tasks())
        left += await asyncio.to_thread(_end_strays, found.path)
        left += await _end_containers(found, settings)
        left += await give_back(found, settings) if not left else ()
        left += await end_memories(found.path) if not left else ()
        left += await asyncio.to_thread(roster.clear_groups)  # with the networks, from which interfaces are home now
    finally:
        await roster.close()
    return left


async def _try(what: str, work: object) -> list[str]:
    try:
        async with asyncio.timeout(END_S):
            await work  # type: ignore[misc]
    except (EdgermError, OSError, TimeoutError) as error:
        return [f"{what}: {str(error) or 'they do not end'}"]
    return []


def _end_strays(path: Path) -> list[str]:
    """Processes of tasks whose keeper died."""
    members.sweep(str(path), END_S)
    place = members.place_of(str(path))
    pids = [pid for tag, some in members.tagged().items() if tag >> members.TASK_BITS == place for pid in some]
    return [f"process {pid} of a task: it does not die" for pid in pids]


async def _end_containers(found: Found, settings: Config) -> list[str]:
    """Remove the containers with this agent's label, also of tasks that the journal does not know any more.

    And the image that was made for those that hold networks, if no other agent's container uses it.
    """
    needed, address = DOCKER in found.executors, settings.executors.docker.address
    if not engines.is_there(address) and not needed:
        return []
    if not needed and (engines.problem(address) is not None or not engines.answers(address)):
        return []
    try:
        from edgerm_agent.executors.docker.executor import DockerExecutor  # noqa: PLC0415 - a large import
    except ImportError:
        return [f"perhaps containers with the label edgerm.agent={found.agent_id}: {NO_PACKAGE}"] if needed else []
    executor = DockerExecutor(found.agent_id, address)
    try:
        left = await _try(f"containers with the label edgerm.agent={found.agent_id}", executor.end_tasks())
        return left or await _try("the image of containers that hold networks", executor.remove_images())
    finally:
        await executor.close()


async def give_back(found: Found, settings: Config) -> list[str]:
    """Devices of tasks, all of which have ended, become as they were; what is not, a line each.

    Of a class that no plugin carries there is nobody who could do that, now or later.
    """
    if not found.grants:
        return []
    devices = Devices()
    try:
        load(settings.devices, doors(found.path / "devices"), devices)
        connect(settings.devices, devices)
        await devices.first()
        for name in {grant.name for grant in found.grants if not devices.knows(grant.name)}:
            log.warning("no plugin takes back the devices of a class", name=name)
        return await give_back_all(devices, [grant for grant in found.grants if devices.knows(grant.name)])
    finally:
        await devices.close()


async def end_memories(path: Path, base: str = BASE) -> list[str]:
    """Unmount the shared memories that this agent made; those that stay, a line each."""
    host = doors(path / "devices")("shm")
    return await Memories((), host, base).end_all() if host.notes.keys() else []


# --- remove -----------------------------------------------------------------------------------------------------


def remove(path: Path) -> list[str]:
    """Remove the data, the journal last; what could not be removed, with why. The lock stays, and what is not ours."""
    mounted = [point for point in host.mount_points() if point.startswith(f"{path.resolve()}/")]
    if mounted:
        return [f"{point}: something is mounted there; unmount it" for point in mounted]
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        left: list[str] = []
        for name in FOLDERS:
            _remove_folder(path, name, folder, left)
        for names in (FILES, LAST):
            for name in names if not left else ():
                _remove_file(path, name, folder, left)
        os.fsync(folder)
    finally:
        os.close(folder)
    return left


def _remove_folder(path: Path, name: str, folder: int, left: list[str]) -> None:
    try:
        is_folder = stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return
    if not is_folder:
        _remove_file(path, name, folder, left)
        return
    _open_up(path / name)
    with suppress(RecursionError):
        shutil.rmtree(name, ignore_errors=True, dir_fd=folder)
    for stayed in islice(_leaves(path / name), LEFT_SHOWN):
        _note(stayed, left)


def _open_up(path: Path) -> None:
    """Tasks that are us may have closed folders to us; they have ended, so nothing changes meanwhile."""
    for at, folders, _ in os.walk(path):
        for name in folders:
            with suppress(OSError):
                mode = (Path(at) / name).lstat().st_mode
                if stat.S_ISDIR(mode) and mode & stat.S_IRWXU != stat.S_IRWXU:
                    (Path(at) / name).chmod(stat.S_IRWXU)


def _leaves(path: Path) -> Iterator[Path]:
    """What is there still, the innermost first."""
    for at, folders, names in os.walk(path, topdown=False):
        yield from (Path(at) / name for name in names)
        if not folders and not names:
            yield Path(at)


def _remove_file(path: Path, name: str, folder: int, left: list[str]) -> None:
    try:
        os.unlink(name, dir_fd=folder)  # a link goes itself
    except FileNotFoundError:
        pass
    except OSError as error:
        left.append(f"{path / name}: {error.strerror}")


def _note(stayed: Path, left: list[str]) -> None:
    """Try once more, to learn why it stays."""
    why = "it is nested too deep, or in use"
    try:
        if stayed.is_dir() and not stayed.is_symlink():
            stayed.rmdir()
        else:
            stayed.unlink()
    except OSError as error:
        why = error.strerror or why
    left.append(f"{stayed}: {why}")

"""All shared memories of the box: those of the operator's file, those made at run time, and what holds them.

The file says what there is until the operator changes something at run time; that then holds, also over restarts, until
the entry in the file is changed. A memory keeps its number for as long as it is known. What does not live here: how
tasks get one (`plugin`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from edgerm import logs
from edgerm.core import metadata
from edgerm.core.devices import Device
from edgerm.core.errors import Conflict, NotFound
from edgerm.core.ids import TaskKey
from edgerm.plugin.device import HostFiles
from edgerm_agent.devices.shm import mounts
from edgerm_agent.devices.shm.memory import (
    ANY_APP,
    CLASS,
    MEMORIES_MAX,
    RW,
    Memory,
    checked,
    from_note,
    parse_size,
    to_note,
)

MEMORY, GRANT = "memory ", "grant "  # how the names of notes begin

log = logs.get("agent.devices.shm")


@dataclass(frozen=True, slots=True)
class Entry:
    """One memory, and where it stands."""

    memory: Memory
    number: int  # of its place
    file: str = ""  # its entry in the file when this was decided, as text; empty: made at run time
    gone: bool = False  # deleted, or no more in the file: it is unmounted when nobody uses it
    problem: str = "not mounted yet"


class Memories:
    """What the operator does with them. Every method but `devices` and `find` may be called at any time."""

    def __init__(self, configured: Sequence[Memory], host: HostFiles, base: str) -> None:
        self._host = host
        self._base = base
        self.changed = asyncio.Event()
        self._lock = asyncio.Lock()
        self._entries = self._recall(configured)

    # --- for the operator ---------------------------------------------------------------------------------------

    async def create(
        self, name: str, size: str, labels: Sequence[str] = (), permissions: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Make one. Raises `Invalid`, `Conflict` if there is one of this name or it cannot be mounted."""
        memory = checked("memory", name, size, labels, permissions if permissions is not None else {ANY_APP: (RW,)})
        async with self._lock:
            old = self._entries.get(name)
            if old is not None and (not old.gone or self.holders(name)):
                raise Conflict(f"there is a shared memory {name!r} already; resize or delete it")
            if old is None and len(self._entries) >= MEMORIES_MAX:
                raise Conflict(f"there are {len(self._entries)} shared memories, at most {MEMORIES_MAX} are allowed")
            if old is not None:
                await self._mend(old)  # its last mount may still be there
            entry = Entry(memory, old.number if old else self._free_number(), old.file if old else "")
            self._put(entry)
            made = await self._mend(entry)
            if made.problem:
                self._restore(name, old)
                raise Conflict(f"the shared memory {name!r} {made.problem}")
            self._tell(made)

    async def resize(self, name: str, size: str) -> None:
        """Give it another size. Raises `Invalid`, `NotFound`, `Conflict` while a task uses it or more is in it."""
        size_bytes = parse_size(size)
        async with self._lock:
            entry = self._unused(name)
            try:
                await mounts.resize(self._host, self.path(entry), size_bytes)
            except OSError as error:
                raise Conflict(f"the shared memory {name!r} cannot be resized to {size}: {error.strerror}") from error
            entry = replace(entry, memory=replace(entry.memory, size_bytes=size_bytes))
            self._put(entry)
            self._tell(entry)

    async def delete(self, name: str) -> None:
        """End it, with all that is in it. Raises `NotFound`, `Conflict` while a task uses it."""
        async with self._lock:
            entry = replace(self._unused(name), gone=True)
            left = await self._mend(entry)
            if left.problem:
                raise Conflict(f"the shared memory {name!r} {left.problem}")
            self._restore(name, entry if entry.file else None)
            self._tell(left)

    async def end_all(self) -> list[str]:
        """End all of them, with what is in them: the agent is removed. Those that stay, a line each."""
        async with self._lock:
            ended = [await self._mend(replace(entry, gone=True)) for entry in self._entries.values()]
            with suppress(OSError):  # others have some there
                await self._host.run("rmdir", self._base)
        return [f"the shared memory {entry.memory.name!r} {entry.problem}" for entry in ended if entry.problem]

    def holders(self, name: str) -> tuple[str, ...]:
        """The tasks that use it, FRAMEWORK/TASK/LAUNCH."""
        return tuple(task for task in self._noted(GRANT) if name in _names(self._host.notes.get(f"{GRANT}{task}")))

    # --- for the plugin -----------------------------------------------------------------------------------------

    async def mend(self) -> None:
        """Bring about what should be there, as far as nobody's use of it is disturbed; note why if it cannot be."""
        async with self._lock:
            for name, entry in list(self._entries.items()):
                found = await self._mend(entry)
                if found.problem != entry.problem and found.problem:
                    log.warning("a shared memory cannot be had", name=name, problem=found.problem)
                if found.gone and not found.problem and not found.file:
                    self._restore(name, None)
                else:
                    self._entries[name] = found

    def devices(self) -> tuple[Device, ...]:
        """As they are to be told."""
        shown = (entry for entry in self._entries.values() if not entry.gone or entry.problem)
        return tuple(
            Device(
                CLASS,
                entry.memory.name,
                shared=True,
                problem=entry.problem,
                gives=(f"directory {self.path(entry)}",),
                metadata=metadata.to_text({"labels": list(entry.memory.labels), "size": entry.memory.size_bytes}),
            )
            for entry in sorted(shown, key=lambda entry: entry.number)
        )

    async def hold(self, task: TaskKey, names: Sequence[str]) -> tuple[Entry, ...]:
        """From now on the task uses these; durable. Raises `Conflict` for one that cannot be had."""
        async with self._lock:
            entries = []
            for name in names:
                entry = self._entries.get(name)
                if entry is None or entry.gone:
                    raise Conflict(f"there is no shared memory {name!r} any more")
                if entry.problem:
                    entry = self._entries[name] = await self._mend(entry)
                if entry.problem:
                    raise Conflict(f"the shared memory {name!r} {entry.problem}")
                entries.append(entry)
            self._host.notes.put(f"{GRANT}{task}", {"memories": sorted(set(names))})
        return tuple(entries)

    def let_go(self, task: TaskKey) -> None:
        """It does not any more. What waited for that is done soon."""
        self._host.notes.drop(f"{GRANT}{task}")
        self.changed.set()

    def path(self, entry: Entry) -> str:
        """Where it is mounted."""
        return f"{self._base}/shm{entry.number}"

    # --- inside -------------------------------------------------------------------------------------------------

    def _recall(self, configured: Sequence[Memory]) -> dict[str, Entry]:
        """What should be there, from file and notes. Whose entry in the file is gone goes, too."""
        self._entries = {}
        for name in self._noted(MEMORY):
            note = self._host.notes.get(f"{MEMORY}{name}")
            assert note is not None
            file = str(note["file"])
            removed = bool(file) and all(memory.name != name for memory in configured)
            self._entries[name] = Entry(
                from_note(name, note), int(str(note["number"])), "" if removed else file, bool(note["gone"]) or removed
            )
        for memory in configured:
            text = json.dumps(to_note(memory), sort_keys=True)
            old = self._entries.get(memory.name)
            if old is None or old.file != text:
                self._put(Entry(memory, old.number if old else self._free_number(memory.name), text))
        return self._entries

    def _noted(self, kind: str) -> tuple[str, ...]:
        keys = self._host.notes.keys()
        return tuple(key.removeprefix(kind) for key in keys if key.startswith(kind))

    def _free_number(self, name: str = "") -> int:
        """The number of a mount of this name if there is one, else the lowest that is free of memories and mounts."""
        mounted = self._mounted()
        for place, found in mounted.items():
            number = place.removeprefix(f"{self._base}/shm")
            if name and found.memory == name and number.isdecimal():
                return int(number)
        taken = {entry.number for entry in self._entries.values()}
        return next(n for n in range(len(taken) + len(mounted) + 1) if n not in taken and self._place(n) not in mounted)

    def _place(self, number: int) -> str:
        return f"{self._base}/shm{number}"

    def _mounted(self) -> dict[str, mounts.Mounted]:
        return mounts.parse_mountinfo(self._host.read(mounts.MOUNTINFO), self._base)

    async def _mend(self, entry: Entry) -> Entry:
        """The entry with the problem that is left."""
        path, name = self.path(entry), entry.memory.name
        found = self._mounted().get(path)
        try:
            if found is not None and found.memory != name:
                problem = f"has no place: {found.source} is mounted at {path}"
                return replace(entry, problem="" if entry.gone else problem)
            if entry.gone:
                if found is not None and self.holders(name):
                    return replace(entry, problem="was taken from the operator's file, and goes with its last user")
                if found is not None:
                    await mounts.unmount(self._host, path)
            elif found is None:
                await mounts.mount(self._host, name, path, entry.memory.size_bytes)
            elif found.size_bytes != entry.memory.size_bytes and not self.holders(name):
                await mounts.resize(self._host, path, entry.memory.size_bytes)
        except OSError as error:
            verb = "unmounted from" if entry.gone else "mounted at"
            return replace(entry, problem=f"cannot be {verb} {path}: {error.strerror}")
        return replace(entry, problem="")

    def _unused(self, name: str) -> Entry:
        entry = self._entries.get(name)
        if entry is None or entry.gone:
            raise NotFound(f"there is no shared memory {name[:80]!r}")
        if holders := self.holders(name):
            raise Conflict(f"the shared memory {name!r} is used by {', '.join(holders)}")
        if entry.problem:
            raise Conflict(f"the shared memory {name!r} {entry.problem}")
        return entry

    def _put(self, entry: Entry) -> None:
        note = {**to_note(entry.memory), "number": entry.number, "file": entry.file, "gone": entry.gone}
        self._host.notes.put(f"{MEMORY}{entry.memory.name}", note)
        self._entries[entry.memory.name] = entry

    def _restore(self, name: str, entry: Entry | None) -> None:
        """As it was before, or forgotten."""
        if entry is not None:
            self._put(entry)
        else:
            self._host.notes.drop(f"{MEMORY}{name}")
            self._entries.pop(name, None)

    def _tell(self, entry: Entry) -> None:
        if not entry.gone:
            self._entries[entry.memory.name] = entry
        self.changed.set()


def mounted(host: HostFiles, base: str) -> tuple[str, ...]:
    """The names of the memories that these notes tell of and that are mounted, in order."""
    noted = {key.removeprefix(MEMORY) for key in host.notes.keys() if key.startswith(MEMORY)}  # noqa: SIM118 - no mapping
    there = mounts.parse_mountinfo(host.read(mounts.MOUNTINFO), base) if noted else {}
    return tuple(sorted({mount.memory for mount in there.values()} & noted))


def _names(note: Mapping[str, object] | None) -> list[object]:
    names = note.get("memories") if note else None
    return names if isinstance(names, list) else []

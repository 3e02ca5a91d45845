"""The loop around a core: nothing is said before what it depends on is durable."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from edgerm.core.effects import Change, Put, Spoken, Volatile
from edgerm.core.errors import Unavailable
from edgerm.core.instant import Instant
from edgerm.shell import Shell


@dataclass(frozen=True, slots=True)
class Said(Spoken):
    """Waits for the disk."""

    what: str


@dataclass(frozen=True, slots=True)
class Hint(Volatile):
    """Waits for nothing."""

    what: str

    @property
    def lane(self) -> Hashable:
        return "hints"


class Core:
    """Stores each event, then says it; "tick" only counts."""

    def __init__(self) -> None:
        self.due: float | None = None
        self.seen: list[str] = []

    def handle(self, event: str, now: Instant) -> Iterable[Any]:
        """See `edgerm.shell.Core`."""
        self.seen.append(event)
        self.due = None
        if event == "bug":
            raise AssertionError("a broken rule")
        if event.startswith("hint"):
            return [Hint(event)]
        return [Put("k", event, event), Said(event)]

    def due_s(self) -> float | None:
        """See `edgerm.shell.Core`."""
        return self.due


class Disk:
    """Makes batches durable when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.may = threading.Event()
        self.full = False

    def write(self, changes: Sequence[Change]) -> None:
        """Blocks until it is let."""
        assert self.may.wait(20)
        if self.full:
            raise Unavailable("no space left")
        self.batches.append([change.key for change in changes])


async def made(disk: Disk) -> tuple[Shell[Core, str], list[str], asyncio.Event]:
    """A shell that has started, what it has said, and an event that is set by "last"."""
    shell: Shell[Core, str] = Shell(Core(), disk.write, "tick")
    said: list[str] = []
    last = asyncio.Event()

    def take(effect: Said | Hint) -> None:
        said.append(effect.what)
        if effect.what == "last":
            last.set()

    shell.on(Said, take)
    shell.on(Hint, take)
    shell.start()
    return shell, said, last


async def test_persist_before_speak() -> None:
    """What is stored is said when it is on the disk, in order; a hint overtakes; events meanwhile share a batch."""
    disk = Disk()
    shell, said, last = await made(disk)
    for event in ("a", "b", "hint", "last"):
        shell.post(event)
    assert said == ["hint"]
    disk.may.set()
    await asyncio.wait_for(last.wait(), 20)
    assert said == ["hint", "a", "b", "last"]
    assert disk.batches == [["a"], ["b", "last"]]
    await shell.close()


async def test_all_who_asked_are_told_in_order() -> None:
    """An effect goes to each of its takers, the first that asked first."""
    disk = Disk()
    disk.may.set()
    shell, said, last = await made(disk)
    shell.on(Said, lambda effect: said.append(f"{effect.what} again"))
    shell.post("last")
    await asyncio.wait_for(last.wait(), 20)
    assert said == ["last", "last again"]
    await shell.close()


async def test_a_deadline_is_a_tick() -> None:
    """When the core's deadline comes, it is handed the tick event."""
    disk = Disk()
    disk.may.set()
    shell, said, _ = await made(disk)
    shell.core.due = asyncio.get_running_loop().time() + 0.001
    shell.start()
    async with asyncio.timeout(20):
        while "tick" not in said:
            await asyncio.sleep(0.001)
    await shell.close()


@pytest.mark.parametrize("harm", ["disk", "bug"])
async def test_a_fault_ends_it_all(harm: str) -> None:
    """A write that fails, or a broken rule of the core, is told, and nothing is said any more."""
    disk = Disk()
    disk.full = harm == "disk"
    shell, said, _ = await made(disk)
    shell.post("a" if harm == "disk" else "bug")
    disk.may.set()
    with pytest.raises(Unavailable if harm == "disk" else AssertionError):
        await asyncio.wait_for(shell.failed, 20)
    shell.post("b")
    assert said == []
    assert "b" not in shell.core.seen
    await shell.close()


async def test_close_writes_what_is_left() -> None:
    """What was accepted is on the disk and said when `close` returns; later events are not taken."""
    disk = Disk()
    shell, said, _ = await made(disk)
    shell.post("a")
    shell.post("b")
    closing = asyncio.create_task(shell.close())
    await asyncio.sleep(0)
    shell.post("late")
    disk.may.set()
    await asyncio.wait_for(closing, 20)
    assert said == ["a", "b"]
    assert disk.batches == [["a"], ["b"]]
    assert shell.closed

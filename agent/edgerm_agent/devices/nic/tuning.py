"""IRQs and threads of an interface: which there are, what must change, doing and undoing that.

An interrupt moves the IRQ's thread to where the IRQ now is, and that may be the next one long after: IRQs first,
threads after them, and looked at again (`tend`). IRQ threads end with the interface's "down" and are new after its
"up"; NAPI threads keep their pid and the name that the interface had when they were made.
What does not live here: what a claim asked (`asking`), `threaded` (`plugin`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeAlias

from edgerm.core import cpulists
from edgerm.core.errors import Conflict, Invalid
from edgerm.plugin.device import HostFiles
from edgerm_agent.devices.nic import card
from edgerm_agent.devices.nic.asking import Threads, Tuning
from edgerm_agent.devices.nic.memory import Before, Note
from edgerm_agent.devices.threads import SetScheduler, Thread, kernel_threads, set_scheduler

ROUNDS = 4

_IRQ_THREAD = re.compile(r"irq/([0-9]+)-", re.ASCII)
_NAPI_THREAD = re.compile(r"napi/(.+)-[0-9]+", re.ASCII)
SetAffinity: TypeAlias = Callable[[int, Iterable[int]], None]


# --- what must change: pure ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MoveIrq:
    """An IRQ goes to these CPUs."""

    number: int
    cpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SetThread:
    """A thread goes to these CPUs, and is scheduled so."""

    thread: Before
    cpus: tuple[int, ...]
    policy: int
    priority: int


@dataclass(frozen=True, slots=True)
class Facts:
    """How the interface's IRQs and threads are now."""

    irqs: Mapping[int, tuple[int, ...]]
    irq_threads: tuple[Before, ...] = ()
    napi_threads: tuple[Before, ...] = ()


def changes(tuning: Tuning, facts: Facts) -> tuple[tuple[MoveIrq, ...], tuple[SetThread, ...]]:
    """What is not yet as it was asked; nothing: all is."""
    irqs = (MoveIrq(number, tuning.irq_cpus) for number, cpus in facts.irqs.items() if cpus != tuning.irq_cpus)
    threads = (*_settings(tuning.irq_threads, facts.irq_threads), *_settings(tuning.napi_threads, facts.napi_threads))
    return tuple(irqs) if tuning.irq_cpus else (), threads


def _settings(asked: Threads, threads: Iterable[Before]) -> Iterable[SetThread]:
    for each in threads if asked.cpus else ():
        policy, priority = each.policy, each.priority
        if asked.scheduling is not None:
            policy, priority = int(asked.scheduling.policy), asked.scheduling.priority
        if (each.cpus, each.policy, each.priority) != (asked.cpus, policy, priority):
            yield SetThread(each, asked.cpus, policy, priority)


def irq_of(name: str) -> int | None:
    """Whose thread has this name; None: no IRQ's."""
    match = _IRQ_THREAD.match(name)
    return int(match[1]) if match else None


def napi_of(name: str) -> str | None:
    """Of which interface it is, by the name that this had; None: of none. `backlog_napi/N` is a CPU's."""
    match = _NAPI_THREAD.fullmatch(name)
    return match[1] if match else None


# --- looking, doing, undoing ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tuner:
    """The acting half. `note` is called before anything that it names is changed."""

    host: HostFiles
    set_affinity: SetAffinity = os.sched_setaffinity
    set_scheduler: SetScheduler = set_scheduler

    def strangers(self, names: Iterable[str]) -> tuple[int, ...]:
        """NAPI threads that interfaces with these names had before."""
        wanted = set(names)
        return tuple(each.pid for each in kernel_threads(self.host) if napi_of(each.name) in wanted)

    def facts(self, note: Note) -> Facts:
        """How the interface's IRQs and threads are now."""
        irqs = card.irqs(self.host, note.device)
        found: tuple[list[Before], list[Before]] = ([], [])
        for thread in kernel_threads(self.host):
            is_irq = irq_of(thread.name) in irqs
            if is_irq or (napi_of(thread.name) in (note.home, note.card_name) and thread.pid not in note.strangers):
                with suppress(OSError, Invalid):  # it ended meanwhile
                    found[not is_irq].append(self._before(thread))
        return Facts(self._affinities(irqs), tuple(found[0]), tuple(found[1]))

    def _affinities(self, irqs: Iterable[int]) -> dict[int, tuple[int, ...]]:
        found = {}
        for number in irqs:
            with suppress(FileNotFoundError):
                found[number] = cpulists.parse(self.host.read(_affinity(number)).strip())
        return found

    def _before(self, thread: Thread) -> Before:
        status = self.host.read(f"/proc/{thread.pid}/status")
        lists = [line.partition(":")[2].strip() for line in status.split("\n") if line.startswith("Cpus_allowed_list:")]
        return Before(thread.pid, thread.name, thread.policy, thread.priority, cpulists.parse(next(iter(lists), "")))

    def tune(self, note: Note, put: Callable[[Note], None]) -> Note:
        """Make it as asked; the note with all that was changed. Raises `Conflict` for what the kernel does not do."""
        for _ in range(ROUNDS):
            note, done = self._round(note, put)
            if done:
                return note
        irqs, threads = changes(note.tuning, self.facts(note))
        left = [f"IRQ {each.number}" for each in irqs] + [each.thread.name for each in threads]
        if left:
            raise Conflict(f"interface {note.home} cannot be tuned: {', '.join(left)} does not stay as it is set")
        return note

    def _round(self, note: Note, put: Callable[[Note], None]) -> tuple[Note, bool]:
        facts = self.facts(note)
        irqs, threads = changes(note.tuning, facts)
        if not (irqs or threads):
            return note, True
        changed = {each.number: facts.irqs[each.number] for each in irqs}
        more = note.with_irqs(changed).with_threads(tuple(each.thread for each in threads))
        if more != note:
            put(more)
        for irq in irqs:
            self._move(irq)
        for thread in threads:
            self._set(thread)
        return more, False

    def _move(self, irq: MoveIrq) -> None:
        try:
            self.host.write(_affinity(irq.number), cpulists.to_text(irq.cpus))
        except OSError as error:
            to = cpulists.to_text(irq.cpus)
            raise Conflict(f"IRQ {irq.number} cannot be moved to CPU {to}: {error.strerror}") from error

    def _set(self, change: SetThread) -> None:
        """A thread that has ended meanwhile is found missing, or replaced, in the next round."""
        try:
            with suppress(ProcessLookupError):
                self.set_affinity(change.thread.pid, change.cpus)
                self.set_scheduler(change.thread.pid, change.policy, change.priority)
        except OSError as error:
            raise Conflict(f"thread {change.thread.name} cannot be tuned: {error.strerror}") from error

    def revert(self, note: Note) -> list[str]:
        """All that `tune` has changed is as it was before; what is not, a line each. What is gone is clean."""
        left = []
        for number, cpus in note.irqs.items():
            try:
                self.host.write(_affinity(number), cpulists.to_text(cpus))
            except FileNotFoundError:
                continue
            except OSError as error:
                left.append(f"IRQ {number} does not go back to CPU {cpulists.to_text(cpus)}: {error.strerror}")
        now = {each.pid: each for each in kernel_threads(self.host)} if note.threads else {}
        for before in note.threads:
            if before.pid not in now or now[before.pid].name != before.name:
                continue
            try:
                self._set(SetThread(before, before.cpus, before.policy, before.priority))
            except Conflict as error:
                left.append(f"{error}: it was on CPU {cpulists.to_text(before.cpus)}")
        return left or self._reverted(note)

    def _reverted(self, note: Note) -> list[str]:
        """Look again. A thread is not compared: the next interrupt may move it, to where its IRQ is."""
        found = self._affinities(note.irqs)
        return [
            f"IRQ {number} is on CPU {cpulists.to_text(cpus)}, and was on {cpulists.to_text(note.irqs[number])}"
            for number, cpus in found.items()
            if cpus != note.irqs[number]
        ]


def tend(tuner: Tuner, note: Note, put: Callable[[Note], None]) -> Note:
    """Look again at an interface that a task has: interrupts move threads, "down" and "up" make new ones."""
    return tuner.tune(note, put) if note.ready and note.tuning.asked else note


def ready(note: Note) -> Note:
    """The same, at the end of the way in."""
    return replace(note, ready=True)


def _affinity(number: int) -> str:
    return f"/proc/irq/{number}/smp_affinity_list"

"""The way home: an interface and all that was changed for it as they were, wherever a crash has left them.

It ends with a look at what is there. What does not live here: which steps those are (`plan`), how IRQs and threads are
set back (`tuning`).
"""

from __future__ import annotations

from collections.abc import Iterable

from edgerm import logs
from edgerm.core.errors import Conflict
from edgerm.plugin.device import HostFiles, NotClean
from edgerm_agent.devices.nic import card, plan
from edgerm_agent.devices.nic.links import Netlink
from edgerm_agent.devices.nic.memory import Note
from edgerm_agent.devices.nic.plan import Down, Link, Up
from edgerm_agent.devices.nic.tuning import Tuner

BOOT_ID = "/proc/sys/kernel/random/boot_id"

log = logs.get("agent.devices.nic")


class WayHome:
    """Undoes what notes tell; all calls block."""

    def __init__(self, host: HostFiles, kernel: Netlink, tuner: Tuner) -> None:
        self._host, self._kernel, self._tuner = host, kernel, tuner

    def undo(self, notes: list[Note]) -> None:
        """What succeeds is forgotten. Raises `NotClean` for the rest, with what was found; it may be repeated."""
        left = []
        for note in notes:
            evidence = self._bring_home(note)
            if note.boot == self.boot():  # a boot has reverted all else
                evidence += self._revert(note, is_home=not evidence)
                evidence = evidence or self._restore_napi(note)
            if evidence:
                left += evidence
            else:
                self._host.notes.drop(note.home)
                log.info("an interface is home", interface=note.home, task=str(note.task))
        if left:
            raise NotClean("; ".join(left))

    def _revert(self, note: Note, is_home: bool) -> list[str]:
        """An IRQ moves when it interrupts next. One that has not, since the task had it moved, keeps that to do, and
        takes nothing else while its card is down."""
        left = self._tuner.revert(note)
        if not left or not is_home:
            return left
        try:
            self._kernel.apply("", [Up(note.home)])
            self._tuner.revert(note)
            self._kernel.apply("", [Down(note.home)])
        except (Conflict, OSError) as error:
            return [*left, str(error)]
        return self._tuner.revert(note)

    def _bring_home(self, note: Note) -> list[str]:
        try:
            self._go(note)
            return self._home_problems(note)
        except (Conflict, OSError) as error:
            return [str(error)]

    def _go(self, note: Note) -> None:
        if (found := _found(self._kernel.look(""), note)) is not None:
            self._kernel.apply("", plan.settled(found, note.home, note.mac, note.mtu))
            return
        if (path := self._path_of(note)) and (found := _found(others := self._kernel.look(path), note)) is not None:
            self._kernel.apply(path, plan.way_home(found, others, note.home, note.mac, note.mtu))

    def boot(self) -> str:
        """The kernel's name for the time since the boot."""
        try:
            return self._host.read(BOOT_ID).strip()
        except OSError:
            return ""

    def _path_of(self, note: Note) -> str:
        """To the namespace that it went into; empty: that is gone. Its number may be another one's by now."""
        try:
            if self._kernel.number_of(note.path) == note.namespace:
                return note.path
        except OSError:
            pass
        return self._kernel.find(note.namespace)

    def _home_problems(self, note: Note) -> list[str]:
        """What is to be said of the interface now. One that went with its namespace may have been made anew."""
        box = self._kernel.look("")
        found = _found(box, note)
        if found is None:
            if any(link.name == note.home for link in box) and not self._path_of(note):
                log.warning("another interface has the place of one that a task had", interface=note.home)
                return []
            return [f"interface {note.home} is neither on the box nor in its task's network: it is lost"]
        if found.name != note.home:
            return [f"interface {note.home} is home as {found.name}"]
        if found.addresses or found.up:  # it lost all that was set when it moved: this is not the task's any more
            log.info("something on the box has set up an interface that came home", interface=note.home)
        return []

    def _restore_napi(self, note: Note) -> list[str]:
        path = f"{card.NET}/{note.home}/threaded"
        if not note.napi or not self._host.exists(path):
            return []
        try:
            if self._host.read(path).strip() != note.napi:  # where nothing is switched, not even that can be
                self._host.write(path, note.napi)
            now = self._host.read(path).strip()
        except OSError as error:
            return [f"interface {note.home}: threaded NAPI cannot be set back to {note.napi}: {error.strerror}"]
        return [] if now == note.napi else [f"interface {note.home}: threaded NAPI is {now}, and was {note.napi}"]


def _found(all_: Iterable[Link], note: Note) -> Link | None:
    return next((link for link in all_ if note.identity.fits(link)), None)

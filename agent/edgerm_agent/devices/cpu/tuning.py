"""The per-CPU threads of the kernel on a task's cores: scheduled as the task asks, and as they were before after it.

How a thread was is noted before it is changed, and the note is dropped when it is so again. A note of an earlier boot
means nothing: the kernel made its threads anew. What does not live here: who may ask, and what for (`plugin`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgerm import logs
from edgerm.core.errors import Conflict, Invalid
from edgerm.core.schedstrings import Policy, Scheduling
from edgerm.plugin.device import HostFiles, NotClean
from edgerm_agent.devices.threads import SetScheduler, Thread, kernel_threads, parse_stat

KINDS = ("ksoftirqd", "ktimers")  # KIND/N runs on CPU N alone
NEEDS_RT = {"ktimers": "; only a kernel with PREEMPT_RT has threads of this kind"}
BOOT_ID = "/proc/sys/kernel/random/boot_id"

log = logs.get("agent.devices")


@dataclass(frozen=True, slots=True)
class Wish:
    """A task wants the thread `kind`/`cpu` to be scheduled so."""

    claim: str
    kind: str
    cpu: int
    scheduling: Scheduling

    @property
    def thread(self) -> str:
        """Its name."""
        return f"{self.kind}/{self.cpu}"

    def __str__(self) -> str:
        return f"claim {self.claim!r}: {self.kind}_sched = '{self.scheduling}'"


def check(wishes: Iterable[Wish]) -> None:
    """Raises `Invalid` for a scheduling that the kernel does not take."""
    for wish in wishes:
        try:
            applied = wish.scheduling.applied
        except Invalid as error:
            raise Invalid(f"{wish}: {error}") from None
        if applied != wish.scheduling:
            log.warning("a priority has no meaning for its policy", asked=str(wish), applied=str(applied))


class Tuning:
    """Changes threads of the kernel, and undoes it. All calls block, on reads of /proc and on notes."""

    def __init__(self, host: HostFiles, change: SetScheduler) -> None:
        self._host = host
        self._change = change

    def apply(self, wishes: Iterable[Wish]) -> None:
        """May be repeated. Raises `Conflict`, naming the claim, if it cannot be; `revert` is to follow then."""
        wishes = tuple(wishes)
        threads = self._threads() if wishes else {}
        for wish in wishes:
            if wish.thread not in threads:
                raise Conflict(f"{wish}: there is no thread {wish.thread}{NEEDS_RT.get(wish.kind, '')}")
        for wish in wishes:
            thread, applied = threads[wish.thread], wish.scheduling.applied
            if self._noted(wish.thread) is None:
                former = {"boot": self._boot(), "policy": thread.policy, "priority": thread.priority}
                self._host.notes.put(wish.thread, former)
            try:
                self._change(thread.pid, applied.policy, applied.priority)
            except PermissionError as error:
                raise Conflict(f"{wish}: only an agent that runs as root can do that ({error.strerror})") from error
            except OSError as error:
                raise Conflict(f"{wish}: the kernel refuses it: {error.strerror}") from error

    def revert(self, cpus: Iterable[int], but: Iterable[Wish] = ()) -> None:
        """Their threads are as they were before any task, except those of these wishes. May be repeated.

        Raises `NotClean` for one that is not.
        """
        kept = {wish.thread for wish in but}
        names = {f"{kind}/{cpu}" for cpu in cpus for kind in KINDS} - kept
        noted = {name: self._noted(name) for name in sorted(names & set(self._host.notes.keys()))}
        threads = self._threads() if any(noted.values()) else {}
        left = []
        for name, note in noted.items():
            thread = threads.get(name)
            evidence = self._restore(thread, note) if thread is not None and note is not None else ""
            if evidence:
                left.append(evidence)
            else:  # as it was, or gone, or never changed in this boot
                self._host.notes.drop(name)
        if left:
            raise NotClean("; ".join(left))

    def _restore(self, thread: Thread, note: Mapping[str, object]) -> str:
        """What is not as it was; empty: all is."""
        policy, priority = note.get("policy"), note.get("priority")
        if not isinstance(policy, int) or not isinstance(priority, int):
            return f"{thread.name}: how it was is not known any more: {dict(note)}"
        if (thread.policy, thread.priority) == (policy, priority):
            return ""
        try:
            self._change(thread.pid, policy, priority)
            now = parse_stat(self._host.read(f"/proc/{thread.pid}/stat"))
        except (ProcessLookupError, FileNotFoundError):
            return ""
        except OSError as error:
            return f"{thread.name} cannot be made {_words(policy, priority)} again: {error.strerror}"
        if (now.policy, now.priority) == (policy, priority):
            return ""
        return f"{thread.name} is {_words(now.policy, now.priority)}, and was {_words(policy, priority)}"

    def _noted(self, name: str) -> Mapping[str, object] | None:
        """How the thread was, if it was changed in this boot."""
        note = self._host.notes.get(name)
        return note if note is not None and note.get("boot") == self._boot() else None

    def _boot(self) -> str:
        try:
            return self._host.read(BOOT_ID).strip()
        except OSError:
            return ""

    def _threads(self) -> dict[str, Thread]:
        return {thread.name: thread for thread in kernel_threads(self._host) if thread.name.startswith(KINDS)}


def _words(policy: int, priority: int) -> str:
    known = {int(each): f"SCHED_{each.name}" for each in Policy}
    return f"{known.get(policy, f'policy {policy}')} {priority}"

"""Mailboxes: the UNIX socket of a task that exchanges messages with its framework, in its sandbox.

A stream socket, named by EDGERM_MESSAGES in the task's environment. Both ways each message is a record: its length in
decimal digits, a line feed, then so many bytes (1 to 65,536). A task may connect several times; what is for it goes to
the connection that was opened last, and what came before a first one waits. Nothing is ever blocked on a task: what it
does not read is kept up to a bound, then the oldest is dropped and counted. After a restart of the agent the socket
is there anew under the same name, so tasks connect again when their connection ends; `edgerm.sdk.mailbox` does. A
module's socket is beside its sandbox: the host connects for it, and would follow a link that the module put there.

What does not live here: one task's socket (`mailbox_socket.py`), how messages travel on (the core, the link).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from edgerm import logs
from edgerm.core.ids import TaskKey
from edgerm.core.link import Letter
from edgerm_agent.core.effects import MessageIn
from edgerm_agent.core.events import Event, SendMessage
from edgerm_agent.mailbox_socket import NAME, Mailbox, Waiting, listen

MARK = "messages"  # beside it: the task has a mailbox, for the agent that takes it back
VARIABLE = "EDGERM_MESSAGES"
WASM = "wasm"
PATH_BYTES_MAX = 107  # of a socket's address (unix(7)), without the NUL
EARLY_TASKS_MAX = 16  # tasks that have messages waiting and no socket yet

log = logs.get("agent.mailbox")


def place_of(sandbox: Path, executor: str) -> Path:
    """Where the socket of this executor's task is."""
    return (sandbox.parent if executor == WASM else sandbox) / NAME


def told_path(sandbox: str) -> str:
    """What the task is told: where the socket is, as its sandbox is seen by it; from there if that is too long."""
    path = f"{sandbox}/{NAME}"
    return path if len(os.fsencode(path)) <= PATH_BYTES_MAX else f"./{NAME}"


class Mailboxes:
    """All mailboxes of one agent. All of it is for the event loop's thread."""

    def __init__(self) -> None:
        self._post: Callable[[Event], None] = lambda event: None
        self._open: dict[TaskKey, Mailbox] = {}
        self._early: dict[TaskKey, Waiting] = {}  # of tasks that have no socket yet
        self._deaf: set[TaskKey] = set()
        self._logged = False
        self.dropped = 0

    def begin(self, post: Callable[[Event], None]) -> None:
        """Where tasks' messages go."""
        self._post = post

    def open(self, key: TaskKey, sandbox: Path, executor: str) -> None:
        """Make the task's socket, or anew. One that cannot be made is logged: the task goes on without.

        It is made beside the sandbox, where nothing is the task's, and then put into it: so whatever a task leaves
        under that name is replaced, and never followed.
        """
        self.close(key, keep_early=True)
        try:
            (sandbox.parent / MARK).touch()
            listener = listen(sandbox, place_of(sandbox, executor))
        except OSError as error:
            log.warning("a task has no socket for messages", task=str(key), error=error.strerror or str(error))
            return
        waiting = self._early.pop(key, None) or Waiting()
        self._open[key] = Mailbox(listener, waiting, lambda data: self._post(SendMessage(Letter(key, data))))

    def reopen(self, key: TaskKey, sandbox: Path, executor: str) -> None:
        """As `open`, of a task that runs since before the agent's start, if it had a socket."""
        if (sandbox.parent / MARK).exists():
            self.open(key, sandbox, executor)
        else:
            self.refuse(key)

    def refuse(self, key: TaskKey) -> None:
        """The task gets no messages: what comes for it is dropped until `close`."""
        self.close(key)
        self._deaf.add(key)

    def take(self, effect: MessageIn) -> None:
        """A message for a task came; one that has no socket yet may get it."""
        letter = effect.letter
        mailbox = self._open.get(letter.key)
        if mailbox is not None:
            self._count(mailbox.put(letter.data))
            return
        if letter.key in self._deaf:
            self._count(1)
            return
        waiting = self._early.setdefault(letter.key, Waiting())
        self._count(waiting.put(letter.data))
        while len(self._early) > EARLY_TASKS_MAX:
            self._count(len(self._early.pop(next(iter(self._early))).messages))

    def close(self, key: TaskKey, *, keep_early: bool = False) -> None:
        """The task has ended."""
        self._deaf.discard(key)
        mailbox = self._open.pop(key, None)
        if mailbox is not None:
            mailbox.close()
        if not keep_early and (early := self._early.pop(key, None)) is not None:
            self._count(len(early.messages))

    def close_all(self) -> None:
        """The agent ends; the sockets' names stay, and lead nowhere until it is back."""
        for key in list(self._open):
            self.close(key)

    def _count(self, dropped: int) -> None:
        self.dropped += dropped
        if dropped and not self._logged:
            self._logged = True
            log.warning("messages to tasks are dropped that nobody reads; it is said once, and counted")

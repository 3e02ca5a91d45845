"""Tasks that a process holds, and the verbs that are the same for each kind: what the keeper and the WASM host share.

What lives here: idempotent start, stop with a grace that only shrinks, waiting, lists, output, release, shutdown.
Not here: how a task is started, asked and killed; subclasses of `Holding` know.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

from edgerm_agent.keeper import protocol
from edgerm_agent.keeper.feeding import Feed
from edgerm_agent.keeper.loop import Loop, Timer
from edgerm_agent.keeper.protocol import Body, Key, Refused
from edgerm_agent.keeper.ring import Ring
from edgerm_agent.keeper.server import Request

LIST_MAX = 50
WAIT_S_MAX = 60.0
GRACE_S_MAX = 1e6
STREAMS = ("stdout", "stderr")

STARTING, RUNNING, ENDED = "starting", "running", "ended"


class Reader:
    """An `output` request that waits for bytes."""

    __slots__ = ("max_bytes", "offset", "request", "ring", "timer", "until")

    def __init__(self, request: Request, ring: Ring, now: float) -> None:
        body = request.body
        self.request = request
        self.ring = ring
        self.offset = protocol.integer_of(body, "offset", -(1 << 62), 1 << 62)
        self.max_bytes = protocol.integer_of(body, "max", 1, protocol.PAYLOAD_BYTES_MAX)
        self.until = now + min(protocol.seconds_of(body, "wait_s"), WAIT_S_MAX)
        self.timer: Timer | None = None

    def try_reply(self, now: float) -> bool:
        """Answer if there is anything to say by now."""
        if self.timer:
            self.timer.cancel()
        ring = self.ring
        offset = ring.place(self.offset)
        data = ring.read(offset, self.max_bytes)
        if not data and not ring.closed and now < self.until:
            return False
        self.request.reply({"offset": offset, "ended": ring.closed and offset + len(data) == ring.end}, data)
        return True


class Held:
    """One task, from its start to its release. Subclasses add what their kind needs."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.state = STARTING
        self.pid: int | None = None
        self.rings = {stream: Ring() for stream in STREAMS}
        self.note: Body = {}
        self.exit: Body | None = None
        self.stop_reason: Body = {}
        """What the first stop that gave a reason wants to see in the exit."""
        self.starters: list[Request] = []
        self.waiters: list[Request] = []
        self.readers: list[Reader] = []
        self.feed: Feed | None = None
        """Its standard input, if that stays open."""
        self.kill_at: float | None = None
        self.kill_timer: Timer | None = None

    def tail(self) -> str:
        """The end of stderr, else of stdout."""
        ring = self.rings["stderr"] if self.rings["stderr"].end else self.rings["stdout"]
        return protocol.tail_text(ring.read(-protocol.TAIL_BYTES_MAX, protocol.TAIL_BYTES_MAX))


H = TypeVar("H", bound=Held)


class Holding(ABC, Generic[H]):
    """The holder behind a `Server`. All methods run in the loop's thread."""

    role: str

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.held: dict[Key, H] = {}
        self.closing = False
        self._verbs: dict[str, Callable[[Request], None]] = {
            "start": self._start,
            "describe": self._describe,
            "wait": self._wait,
            "stop": self._stop,
            "list": self._list,
            "output": self._output,
            "input": self._input,
            "usage": self._usage,
            "release": self._release,
            "shutdown": self._shutdown,
        }

    # What a kind of task must know.

    @abstractmethod
    def launch(self, key: Key, body: Body, payload: bytes) -> H:
        """Begin to start a task; `launched` or `launch_failed` must follow, after the return.

        Raises `Refused`, with `LAUNCH_FAILED` where it is certain at once that the task can never start.
        """

    @abstractmethod
    def ask(self, held: H) -> None:
        """Ask a starting or running task to end (SIGTERM)."""

    @abstractmethod
    def kill(self, held: H) -> None:
        """Make a starting or running task end; `ended` must follow. May be called again."""

    @abstractmethod
    def measure(self, held: H) -> Body:
        """cpu_s and memory_bytes, or None each."""

    @abstractmethod
    def dropped(self, held: H) -> None:
        """The task was released or never started: free what is left of it."""

    # What a kind of task reports.

    def launched(self, held: H) -> None:
        """The task runs."""
        held.state = RUNNING
        for request in held.starters:
            request.reply({"pid": held.pid})
        held.starters.clear()

    def launch_failed(self, held: H, message: str) -> None:
        """The task did not start; its key is free again."""
        if held.kill_timer:
            held.kill_timer.cancel()
        self._forget(held)
        for request in held.starters:
            request.fail(protocol.LAUNCH_FAILED, message)
        for request in [*held.waiters, *(reader.request for reader in held.readers)]:
            request.fail(protocol.NOT_FOUND, "the task did not start")
        self._leave_if_done()

    def wrote(self, held: H) -> None:
        """A ring has news: answer who waits for it."""
        if held.readers:
            now = self.loop.now()
            held.readers = [reader for reader in held.readers if not reader.try_reply(now)]
            for reader in held.readers:
                reader.timer = self.loop.later(reader.until - now, lambda: self.wrote(held))

    def ended(self, held: H, exit_: Body) -> None:
        """The task has ended, whole; nothing will be written any more. `exit_` lacks the tail."""
        held.state = ENDED
        if held.feed is not None:
            held.feed.close()
        held.exit = {**exit_, "tail": held.tail(), **held.stop_reason}
        if held.kill_timer:
            held.kill_timer.cancel()
        for ring in held.rings.values():
            ring.closed = True
        self.wrote(held)
        for request in held.waiters:
            request.reply({"exit": held.exit})
        held.waiters.clear()
        self._leave_if_done()

    # The verbs.

    def handle(self, request: Request) -> None:
        """Answer a request; `Refused` says why not."""
        verb = self._verbs.get(request.verb)
        if verb is None:
            raise Refused(protocol.UNKNOWN_VERB, f"{self.role} does not know the verb {request.verb!r:.50}")
        verb(request)

    def client_gone(self) -> None:
        """Forget requests that nobody waits for."""
        for held in self.held.values():
            held.starters = [request for request in held.starters if not request.gone]
            held.waiters = [request for request in held.waiters if not request.gone]
            held.readers = [reader for reader in held.readers if not reader.request.gone]
            if held.feed is not None:
                held.feed.forget_gone()

    def _find(self, request: Request) -> H:
        key = protocol.key_of(request.body)
        held = self.held.get(key)
        if held is None:
            raise Refused(protocol.NOT_FOUND, f"{self.role} holds no task {'/'.join(key)}")
        return held

    def _start(self, request: Request) -> None:
        key = protocol.key_of(request.body)
        held = self.held.get(key)
        if held is not None and held.state != STARTING:
            request.reply({"pid": held.pid})
            return
        if held is None:
            if self.closing:
                raise Refused(protocol.BUSY, f"{self.role} is ending")
            note = protocol.note_of(request.body)
            held = self.held[key] = self.launch(key, request.body, request.payload)
            held.note = note
        held.starters.append(request)

    def _describe(self, request: Request) -> None:
        held = self._find(request)
        request.reply({"state": held.state, "pid": held.pid, "note": held.note})

    def _wait(self, request: Request) -> None:
        held = self._find(request)
        if held.exit is not None:
            request.reply({"exit": held.exit})
        else:
            held.waiters.append(request)

    def _stop(self, request: Request) -> None:
        held = self._find(request)
        grace_s = protocol.seconds_of(request.body, "grace_s", GRACE_S_MAX)
        for name in ("reason", "message"):
            text = protocol.optional_text_of(request.body, name)
            if text is not None and held.state != ENDED:
                held.stop_reason.setdefault(name, text[:1000])
        self.stop(held, grace_s)
        request.reply()

    def stop(self, held: H, grace_s: float) -> None:
        """Ask once; kill `grace_s` from now, or earlier if an earlier stop said so."""
        if held.state == ENDED:
            return
        kill_at = self.loop.now() + grace_s
        if held.kill_at is None:
            if grace_s > 0:
                self.ask(held)
        elif kill_at >= held.kill_at:
            return
        if held.kill_timer:
            held.kill_timer.cancel()
        held.kill_at = kill_at
        if grace_s > 0:
            held.kill_timer = self.loop.later(grace_s, lambda: self.kill(held))
        else:
            self.kill(held)

    def _list(self, request: Request) -> None:
        after = protocol.key_of(request.body, "after") if request.body.get("after") is not None else None
        keys = sorted(key for key in self.held if after is None or key > after)
        tasks = [{"key": key, "state": self.held[key].state, "pid": self.held[key].pid} for key in keys[:LIST_MAX]]
        request.reply({"tasks": tasks, "more": len(keys) > LIST_MAX})

    def _output(self, request: Request) -> None:
        held = self._find(request)
        ring = held.rings.get(protocol.text_of(request.body, "stream"))
        if ring is None:
            raise Refused(protocol.INVALID, f"stream is neither stdout nor stderr: {request.body['stream']!r:.50}")
        held.readers.append(Reader(request, ring, self.loop.now()))
        self.wrote(held)

    def _input(self, request: Request) -> None:
        held = self._find(request)
        if held.feed is None:
            raise Refused(protocol.NOT_FOUND, "the task was not started with an open standard input")
        held.feed.put(request)

    def _usage(self, request: Request) -> None:
        request.reply(self.measure(self._find(request)))

    def _release(self, request: Request) -> None:
        held = self.held.get(protocol.key_of(request.body))
        if held is not None:
            if held.state != ENDED:
                raise Refused(protocol.BUSY, f"the task {'/'.join(held.key)} has not ended")
            self._forget(held)
        request.reply()

    def _forget(self, held: H) -> None:
        self.held.pop(held.key, None)
        if held.feed is not None:
            held.feed.close()
        self.dropped(held)

    def _shutdown(self, request: Request) -> None:
        if not request.body.get("force") and self.held:
            raise Refused(protocol.BUSY, f"{self.role} holds {len(self.held)} tasks")
        grace_s = protocol.seconds_of(request.body, "grace_s", GRACE_S_MAX)
        request.reply()
        self.shutdown(grace_s)

    def shutdown(self, grace_s: float) -> None:
        """Start nothing more, end all tasks, then stop the loop."""
        self.closing = True
        for held in list(self.held.values()):
            self.stop(held, grace_s)
        self._leave_if_done()

    def _leave_if_done(self) -> None:
        if self.closing and all(held.state == ENDED for held in self.held.values()):
            self.loop.stop()

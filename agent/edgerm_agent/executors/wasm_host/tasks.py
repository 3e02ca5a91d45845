"""The tasks of a WASM host: a thread and two pipes each, behind the verbs that the keeper has too.

`start` takes, beside the key: module (a path), argv, env [[name, value]...], sandbox, stdin or null, entry_point,
memory_bytes or null, threads [files of CPU groups that the task's thread writes "0" into], mounts [[directory, where
the guest sees it, read-only]...] or absent, stdin_open (version 2, as the keeper's), messages (the task's socket for
messages) or null, cpus [those that its thread runs on] and chips [paths of the GPIO chips whose lines it may use] (both
version 3) or absent.

A kill ends WASM code at its next loop or call, and sleeps at once. What else a guest may be in is a call of the
kernel's on a file; a thread that has not ended `STUCK_S` after its kill cannot be helped: the host takes no new task
and leaves when all others are released.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from edgerm_agent.executors.wasm_host.code_cache import CodeCache
from edgerm_agent.executors.wasm_host.engine import MEMORY_BYTES_MAX, PAGE_BYTES, Guest, Settings, Shared
from edgerm_agent.executors.wasm_host.values import BadModule, GuestSpec, Outcome
from edgerm_agent.keeper import protocol
from edgerm_agent.keeper.feeding import Feed
from edgerm_agent.keeper.holding import ENDED, STARTING, STREAMS, Held, Holding
from edgerm_agent.keeper.loop import Loop, Timer
from edgerm_agent.keeper.protocol import Body, Key, Refused

STUCK_S = 2.0
READ_BYTES = 65536
THREAD_STACK_BYTES = 2 << 20
CPU_MAX = 8191


class WasmTask(Held):
    """One guest. Its thread writes `cpu_s`, `outcome` and `prepared`; all else is the loop's."""

    def __init__(self, key: Key, guest: Guest, memory_bytes: int | None) -> None:
        super().__init__(key)
        self.guest = guest
        self.memory_limit = memory_bytes
        self.outcome: Outcome | None = None
        self.cpu_s = 0.0
        self.cpu_base_s = 0.0
        """What its thread had used before it was the task's: compiling is on the host."""
        self.tid: int | None = None
        self.prepared = False
        """The module is compiled: from here on a kill ends the thread soon."""
        self.pipes: dict[str, int] = {}
        self.stuck_timer: Timer | None = None
        self.stuck = False


class WasmHolding(Holding[WasmTask]):
    """Starts guests, and says how they ended."""

    role = "wasm"

    def __init__(self, loop: Loop, settings: Settings, cache: CodeCache) -> None:
        super().__init__(loop)
        self._shared = Shared(settings, cache.get_bytes)
        self._cache = cache
        self._bad = False
        threading.stack_size(THREAD_STACK_BYTES)

    # What the loop's thread does.

    def launch(self, key: Key, body: Body, payload: bytes) -> WasmTask:
        if self._bad:
            raise Refused(protocol.BUSY, f"{self.role} host has a task that does not end; start another host")
        module = Path(protocol.text_of(body, "module"))
        place = _Place(protocol.texts_of(body, "threads"), protocol.numbers_of(body, "cpus", CPU_MAX))
        memory_bytes = protocol.optional_integer_of(body, "memory_bytes", 0, 1 << 62)
        texts = _Texts(body)
        task = WasmTask(key, Guest(self._shared), memory_bytes)
        write_ends: dict[str, int] = {}
        stdin, stdin_fd = texts.stdin, None
        try:
            for stream in STREAMS:
                write_ends[stream] = self._open_pipe(task, stream)
            if body.get("stdin_open"):
                stdin_fd = self._open_feed(task, texts.stdin)
                stdin = f"/proc/self/fd/{stdin_fd}"
            spec = GuestSpec(
                argv=texts.argv,
                env=texts.env,
                sandbox=texts.sandbox,
                stdin=stdin,
                stdout_fd=write_ends["stdout"],
                stderr_fd=write_ends["stderr"],
                memory_bytes=memory_bytes,
                entry_point=texts.entry_point,
                stdin_fd=stdin_fd,
                messages=texts.messages,
                mounts=texts.mounts,
                chips=texts.chips,
            )
            threading.Thread(target=self._work, args=(task, module, spec, place), daemon=True).start()
        except (OSError, RuntimeError) as error:  # no descriptors or no threads are left
            for fd in (*write_ends.values(), *(() if stdin_fd is None else (stdin_fd,))):
                os.close(fd)
            if task.feed is not None:
                task.feed.close()
            task.guest.close()
            self.dropped(task)
            raise Refused(protocol.LAUNCH_FAILED, f"{self.role} host: {error}") from error
        return task

    def ask(self, held: WasmTask) -> None:
        """WASM code cannot be asked, so no grace is waited for."""
        self.kill(held)

    def kill(self, held: WasmTask) -> None:
        held.guest.kill()
        if held.feed is not None:  # after the epoch: a guest that waits for input wakes, and ends
            held.feed.close()
        if held.state == STARTING and not held.prepared:
            # Its thread compiles, for the cache's benefit, and finds later that nobody waits.
            self.loop.call_threadsafe(lambda: self._failed(held, "killed while its module was being compiled"))
        elif held.stuck_timer is None:
            held.stuck_timer = self.loop.later(STUCK_S, lambda: self._give_up(held))

    def measure(self, held: WasmTask) -> Body:
        if held.state != ENDED and held.tid is not None:
            held.cpu_s = max(held.cpu_s, _thread_cpu_s(held.tid) - held.cpu_base_s)
        return {"cpu_s": held.cpu_s, "memory_bytes": held.guest.memory_bytes()}

    def dropped(self, held: WasmTask) -> None:
        if held.stuck_timer:
            held.stuck_timer.cancel()
        for stream in list(held.pipes):
            self._close_pipe(held, stream)
        self._leave_if_only_stuck()

    def shutdown(self, grace_s: float) -> None:
        super().shutdown(grace_s)
        self._leave_if_only_stuck()

    def _open_feed(self, task: WasmTask, stdin: str | None) -> int:
        """The read end of a standard input that stays open. Raises `OSError`."""
        source = None if stdin is None else os.open(stdin, os.O_RDONLY | os.O_CLOEXEC)
        try:
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
        except OSError:
            if source is not None:
                os.close(source)
            raise
        task.feed = Feed(self.loop, write_end, source)
        return read_end

    def _open_pipe(self, task: WasmTask, stream: str) -> int:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(read_end, False)
        task.pipes[stream] = read_end
        self.loop.watch(read_end, lambda: self._readable(task, stream))
        return write_end

    def _readable(self, task: WasmTask, stream: str) -> None:
        """Take one piece at a time, so that a flood does not keep others waiting."""
        self._read(task, stream)

    def _read(self, task: WasmTask, stream: str) -> bool:
        """Take one piece; True if there may be more."""
        try:
            data = os.read(task.pipes[stream], READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            task.rings[stream].write(data)
            self.wrote(task)
            return True
        self._close_pipe(task, stream)
        self._end_if_whole(task)
        return False

    def _close_pipe(self, task: WasmTask, stream: str) -> None:
        read_end = task.pipes.pop(stream)
        self.loop.unwatch(read_end)
        os.close(read_end)

    def _runs(self, task: WasmTask) -> None:
        if self.held.get(task.key) is task:
            self.launched(task)

    def _failed(self, task: WasmTask, message: str) -> None:
        if self.held.get(task.key) is task and task.state == STARTING:
            self.launch_failed(task, message)

    def _finished(self, task: WasmTask, outcome: Outcome) -> None:
        """The thread has closed its pipes; what is in them comes before the end."""
        task.outcome = outcome
        for stream in list(task.pipes):
            while self._read(task, stream):
                pass
        self._end_if_whole(task)

    def _end_if_whole(self, task: WasmTask) -> None:
        if task.outcome is None or task.pipes or task.state == ENDED or self.held.get(task.key) is not task:
            return
        if task.stuck_timer:
            task.stuck_timer.cancel()
        task.stuck = False
        self.ended(task, _exit_of(task, task.outcome))
        self._leave_if_only_stuck()

    def _give_up(self, task: WasmTask) -> None:
        """The thread lives on after its kill."""
        if task.state != ENDED:
            task.stuck = self._bad = True
            self._leave_if_only_stuck()

    def _leave_if_only_stuck(self) -> None:
        others = (task for task in self.held.values() if not task.stuck)
        if self._bad and all(self.closing and task.state == ENDED for task in others):
            self.loop.stop()

    # What the task's thread does.

    def _work(self, task: WasmTask, module: Path, spec: GuestSpec, place: _Place) -> None:
        problem: str | None = None
        try:
            self._prepare(task, module, spec, place)
        except (BadModule, OSError, ValueError) as error:
            problem = str(error)
        except Exception as error:  # a fault of ours ends this task alone
            problem = repr(error)
        finally:
            for fd in (spec.stdout_fd, spec.stderr_fd, spec.stdin_fd):
                if fd is not None:  # the guest has opened its own
                    os.close(fd)
        if problem is not None:
            task.guest.close()
            message = f"killed before it ran: {problem}" if task.guest.killed else problem
            self.loop.call_threadsafe(lambda: self._failed(task, message))
            return
        self.loop.call_threadsafe(lambda: self._runs(task))
        outcome = task.guest.run()
        task.cpu_s = time.thread_time() - task.cpu_base_s
        task.guest.close()
        self.loop.call_threadsafe(lambda: self._finished(task, outcome))

    def _prepare(self, task: WasmTask, module: Path, spec: GuestSpec, place: _Place) -> None:
        code = self._cache.get(module)  # before the thread takes its place: it is work for all, with threads that stay
        task.cpu_base_s = time.thread_time()
        task.tid = threading.get_native_id()
        place.take()
        task.prepared = True
        task.guest.load(code, spec)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a task's thread runs: in CPU groups, and on which CPUs; none: on any."""

    groups: list[str]
    cpus: list[int]

    def take(self) -> None:
        """The calling thread, and those that it makes, run there from now on. Raises `OSError`."""
        for path in self.groups:
            Path(path).write_text("0")
        if self.cpus:
            try:
                os.sched_setaffinity(0, self.cpus)
            except OSError as error:
                raise OSError(f"cannot run on the CPUs {self.cpus}: {error.strerror}") from error


class _Texts:
    """The texts of a start request, checked: C strings cannot hold every Python one."""

    def __init__(self, body: Body) -> None:
        self.argv = [_c_text("argv", text) for text in protocol.texts_of(body, "argv")]
        self.env = _pairs(body)
        self.sandbox = _c_text("sandbox", protocol.text_of(body, "sandbox"))
        stdin = protocol.optional_text_of(body, "stdin")
        self.stdin = None if stdin is None else _c_text("stdin", stdin)
        messages = protocol.optional_text_of(body, "messages")
        self.messages = None if messages is None else _c_text("messages", messages)
        self.entry_point = _c_text("entry_point", protocol.text_of(body, "entry_point"))
        self.mounts = _mounts(body)
        self.chips = tuple(_c_text("chips", path) for path in protocol.texts_of(body, "chips"))


def _pairs(body: Body) -> list[tuple[str, str]]:
    value = body.get("env", [])
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise Refused(protocol.INVALID, "env is not a list of [name, value]")
    return [(_c_text("env", name), _c_text("env", text)) for name, text in value]


def _mounts(body: Body) -> tuple[tuple[str, str, bool], ...]:
    value = body.get("mounts", [])
    if not isinstance(value, list) or not all(isinstance(mount, list) and len(mount) == 3 for mount in value):
        raise Refused(protocol.INVALID, "mounts is not a list of [source, path, read_only]")
    return tuple((_c_text("mounts", source), _c_text("mounts", path), bool(fixed)) for source, path, fixed in value)


def _c_text(name: str, text: object) -> str:
    if not isinstance(text, str):
        raise Refused(protocol.INVALID, f"{name} holds what is not a string: {text!r:.100}")
    try:
        fits = b"\0" not in text.encode()
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise Refused(protocol.LAUNCH_FAILED, f"{name} holds a NUL or is not valid Unicode: {text!r:.100}")
    return text


def _exit_of(task: WasmTask, outcome: Outcome) -> Body:
    memory_bytes = task.guest.memory_bytes()
    if task.guest.killed and outcome.trap is not None:
        return _exit("ended", trap="killed", message="killed")
    if outcome.code == 0:
        return _exit("ended", code=0, message="exit code 0")
    if is_near_limit(memory_bytes, task.memory_limit):
        message = f"failed with {memory_bytes} bytes of memory, its limit is {task.memory_limit}"
        return _exit("memory", code=outcome.code, trap=outcome.trap, message=message)
    if outcome.trap is not None:
        return _exit("ended", trap=outcome.trap, message=outcome.trap.splitlines()[0])
    return _exit("ended", code=outcome.code, message=f"exit code {outcome.code}")


def _exit(reason: str, code: int | None = None, trap: str | None = None, message: str = "") -> Body:
    return {"reason": reason, "code": code, "signal": None, "trap": trap, "message": message}


def is_near_limit(memory_bytes: int, limit: int | None) -> bool:
    """Whether a failure with so much memory is told as one of memory.

    The engine refuses to grow a memory without telling us, so we look how far it had come: allocators ask for small
    pieces, and those that double have more than half of it. The last eighth, at least four pages, counts as near.
    """
    if limit is None or limit > MEMORY_BYTES_MAX:
        return False
    return memory_bytes > limit - max(limit // 8, 4 * PAGE_BYTES)


def _thread_cpu_s(tid: int) -> float:
    """CPU time of a thread of ours; 0 if it has ended. In ticks where the kernel was built without schedstat."""
    folder = Path(f"/proc/self/task/{tid}")
    try:
        return int((folder / "schedstat").read_text().split()[0]) / 1e9
    except OSError:
        pass
    try:
        ticks = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]  # proc(5): utime, stime
    except OSError:
        return 0.0
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

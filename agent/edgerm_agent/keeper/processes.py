"""Process tasks: fork and exec, pipes into rings, reaping, and making sure that nothing of an ended task is left."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from edgerm_agent.keeper import child, members, protocol
from edgerm_agent.keeper.feeding import Feed
from edgerm_agent.keeper.holding import ENDED, Held, Holding
from edgerm_agent.keeper.loop import Loop, Timer
from edgerm_agent.keeper.protocol import Body, Key, Refused

READ_BYTES = 65536
DRAIN_BYTES_MAX = 4 << 20  # more cannot lie in a pipe unless somebody outside still writes
RECHECK_FIRST_S = 0.02
RECHECK_MAX_S = 1.0
LOOK_S = 0.2  # whoever measures many tasks asks for one after the other: they share a look at all processes
SWEEP_S_MAX = 5.0  # longer lives only what sleeps in the kernel; the agent looks again, task by task


class Process(Held):
    """A task, its main process, and what that left behind."""

    def __init__(self, key: Key, plan: child.Plan, pid: int) -> None:
        super().__init__(key)
        self.plan = plan
        self.pid = pid
        self.status_fd: int | None = None
        self.pipes: dict[int, str] = {}
        self.failure = ""
        self.wait_status: int | None = None
        self.cpu_s: float | None = None

    def members(self, tagged: dict[int, list[int]]) -> set[int]:
        """The living processes of this task, the main one also before it has its tag."""
        main = {self.pid} if self.pid and self.wait_status is None else set()
        return main | members.in_cgroups(self.plan.procs) | set(tagged.get(self.plan.tag, ()))


class Processes(Holding[Process]):
    """What the keeper holds. The current directory is the data directory; no other code here has children."""

    role = "keeper"

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self._by_pid: dict[int, Process] = {}
        self._signals: dict[Key, tuple[Process, int]] = {}
        self._recheck: Timer | None = None
        self._recheck_s = RECHECK_FIRST_S
        self._tagged: dict[int, list[int]] = {}
        self._tagged_until = loop.now()
        members.sweep(".", SWEEP_S_MAX)
        signal.signal(signal.SIGCHLD, lambda *_: loop.call_threadsafe(self._reap))

    def launch(self, key: Key, body: Body, payload: bytes) -> Process:
        """Fork; the exec's success or failure arrives on a pipe that it closes."""
        plan = child.Plan(body)
        source = _source(plan)
        ours: list[int] = []  # status, stdout, stderr, and stdin if that stays open
        theirs: list[int] = []
        try:
            for is_input in (False, False, False, True)[: 3 + plan.stdin_open]:
                read_end, write_end = os.pipe2(os.O_CLOEXEC)
                ours.append(write_end if is_input else read_end)
                theirs.append(read_end if is_input else write_end)
            pid = _fork(plan, theirs)
        except OSError as error:
            for fd in (*source, *ours, *theirs):
                os.close(fd)
            raise Refused(protocol.BUSY, f"cannot fork: {error.strerror}") from error
        for fd in theirs:
            os.close(fd)
        process = Process(key, plan, pid)
        self._by_pid[pid] = process
        self._watch_pipes(process, *ours[:3])
        if plan.stdin_open:
            process.feed = Feed(self.loop, ours[3], *source)
        return process

    def _watch_pipes(self, process: Process, status_fd: int, stdout_fd: int, stderr_fd: int) -> None:
        process.status_fd = status_fd
        self.loop.watch(status_fd, lambda: self._read_status(process))
        for fd, stream in ((stdout_fd, "stdout"), (stderr_fd, "stderr")):
            os.set_blocking(fd, False)
            process.pipes[fd] = stream
            self.loop.watch(fd, lambda fd=fd: self._read_pipe(process, fd))  # type: ignore[misc, arg-type]

    def _read_status(self, process: Process) -> None:
        """The exec has closed the pipe, or the child says what failed."""
        fd, process.status_fd = process.status_fd, None
        if fd is None:
            return
        text = os.read(fd, 4096)
        self.loop.unwatch(fd)
        os.close(fd)
        if text:
            process.failure = text.decode("utf-8", "replace")  # told when the child has left its cgroups
        else:
            self.launched(process)

    def _read_pipe(self, process: Process, fd: int) -> int:
        """One read, so that a flooding task gets no more turns than its neighbours."""
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return 0
        ring = process.rings[process.pipes[fd]]
        if data:
            ring.write(data)
        else:
            ring.closed = True
            self._close_pipe(process, fd)
        self.wrote(process)
        return len(data)

    def _close_pipe(self, process: Process, fd: int) -> None:
        del process.pipes[fd]
        self.loop.unwatch(fd)
        os.close(fd)

    def _reap(self) -> None:
        """Collect the dead: main processes, and orphans of tasks, whose reaper we are."""
        with suppress(ChildProcessError):
            while (dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                process = self._by_pid.get(dead.si_pid)
                if process is not None:
                    with suppress(OSError):  # before the number is free for others
                        os.killpg(dead.si_pid, signal.SIGKILL)
                _, status, used = os.wait4(dead.si_pid, 0)
                if process is not None:
                    process.wait_status = status
                    process.cpu_s = used.ru_utime + used.ru_stime
                    self._read_status(process)
        self._finish([process for process in self._by_pid.values() if process.wait_status is not None])

    def _finish(self, ending: list[Process]) -> None:
        """Main processes have ended: kill what else belongs to their tasks; a task of which none is left has ended."""
        tagged = members.tagged() if ending else {}
        lingering = False
        for process in ending:
            left = process.members(tagged)
            if left:
                lingering = True
                members.kill(left, process.plan.procs)
            else:
                self._by_pid.pop(process.pid or 0, None)
                for fd in list(process.pipes):
                    self._drain(process, fd)
                if process.failure:
                    self.launch_failed(process, process.failure)
                else:
                    self.ended(process, _exit_of(process))
        self._plan_recheck(lingering)

    def _plan_recheck(self, lingering: bool) -> None:
        """The dead are mostly reaped by SIGCHLD; what takes longer, or fled into a fork, is looked for again."""
        if self._recheck:
            self._recheck.cancel()
        self._recheck = self.loop.later(self._recheck_s, self._reap) if lingering else None
        self._recheck_s = min(self._recheck_s * 2, RECHECK_MAX_S) if lingering else RECHECK_FIRST_S

    def _drain(self, process: Process, fd: int) -> None:
        total = 0
        while fd in process.pipes and total < DRAIN_BYTES_MAX:
            size = self._read_pipe(process, fd)
            total += size
            if not size:
                break
        if fd in process.pipes:
            self._close_pipe(process, fd)

    def ask(self, held: Process) -> None:
        """SIGTERM to all that belongs to the task."""
        self._signal_soon(held, signal.SIGTERM)

    def kill(self, held: Process) -> None:
        """SIGKILL to all; reaping the main process does the rest."""
        self._signal_soon(held, signal.SIGKILL)

    def _signal_soon(self, process: Process, number: signal.Signals) -> None:
        """In the loop's next turn: finding the processes of many tasks takes as long as those of one."""
        if not self._signals:
            self.loop.later(0, self._send_signals)
        if self._signals.get(process.key, (process, 0))[1] != signal.SIGKILL:
            self._signals[process.key] = (process, number)

    def _send_signals(self) -> None:
        tagged = members.tagged()
        signals, self._signals = self._signals, {}
        for process, number in signals.values():
            if process.state == ENDED:
                continue
            pids = process.members(tagged)
            if number == signal.SIGKILL:
                members.kill(pids, process.plan.procs)
            else:
                members.send(pids, number)
                members.send(pids, signal.SIGCONT)  # a stopped process would not see it

    def measure(self, held: Process) -> Body:
        """From /proc; what orphans used before they died is not in it."""
        if held.state == ENDED:
            return {"cpu_s": held.cpu_s, "memory_bytes": 0}
        if self.loop.now() >= self._tagged_until:
            self._tagged = members.tagged()
            self._tagged_until = self.loop.now() + LOOK_S
        cpu_s, memory_bytes = members.use(held.members(self._tagged))
        return {"cpu_s": cpu_s, "memory_bytes": memory_bytes}

    def dropped(self, held: Process) -> None:
        """Close the pipes of a task that never started; an ended one has none."""
        for fd in list(held.pipes):
            self._close_pipe(held, fd)


def _source(plan: child.Plan) -> list[int]:
    """The file that an open standard input begins with, if there is one. Raises `Refused`."""
    if not plan.stdin_open or plan.stdin is None:
        return []
    try:
        return [child.open_input(plan.stdin)]
    except OSError as error:
        raise Refused(protocol.LAUNCH_FAILED, f"cannot open the input {plan.stdin}: {error.strerror}") from error


def _fork(plan: child.Plan, fds: list[int]) -> int:
    """The child's pid. Signals wait meanwhile: the child must not run the keeper's handlers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            child.become(plan, *fds)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _exit_of(process: Process) -> Body:
    status = process.wait_status or 0
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        code, message = None, f"killed by {_signal_name(number)}"
    else:
        number = None
        code = os.WEXITSTATUS(status)
        message = f"exited with code {code}"
    if process.plan.as_bytes is not None and status:
        message += f"; its address space was limited to {process.plan.as_bytes >> 20} MiB"
    return {"reason": "ended", "code": code, "signal": number, "trap": None, "message": message}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

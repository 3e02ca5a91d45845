"""What a child does between fork and exec: become the task's main process, or say why not."""

from __future__ import annotations

import os
import resource
import signal
import stat
from typing import NoReturn

from edgerm_agent.keeper import protocol
from edgerm_agent.keeper.members import RLIMIT_TAG
from edgerm_agent.keeper.protocol import Body, Refused

NOFILE_SOFT = 1024
ID_MAX = (1 << 32) - 2
CPU_MAX = 8191
CLONE_NEWNET = 0x4000_0000
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"


def to_bytes(text: str) -> bytes:
    """As the kernel takes names; Python's own conversion would depend on the locale."""
    return text.encode("utf-8", "surrogateescape")


class Plan:
    """A `start` request, checked. The constructor raises `Refused`."""

    def __init__(self, body: Body) -> None:
        self.tag = protocol.integer_of(body, "tag", 1, (1 << 62) - 1)
        self.argv = [to_bytes(part) for part in protocol.texts_of(body, "argv")]
        program = protocol.optional_text_of(body, "program")
        self.program = to_bytes(program) if program is not None else next(iter(self.argv), b"")
        self.env = dict(_pair(part) for part in _list(body, "env"))
        self.sandbox = protocol.text_of(body, "sandbox")
        self.stdin = protocol.optional_text_of(body, "stdin")
        self.stdin_open = bool(body.get("stdin_open"))
        self.uid = protocol.optional_integer_of(body, "uid", 0, ID_MAX)
        self.gid = protocol.optional_integer_of(body, "gid", 0, ID_MAX)
        self.groups = [group for group in _list(body, "groups") if isinstance(group, int) and 0 <= group <= ID_MAX]
        self.procs = protocol.texts_of(body, "procs")
        self.as_bytes = protocol.optional_integer_of(body, "as_bytes", 1, (1 << 62) - 1)
        self.cpus = protocol.numbers_of(body, "cpus", CPU_MAX)
        self.network = protocol.optional_text_of(body, "network") or ""
        if not self.argv or not self.argv[0] or not self.program:
            raise Refused(protocol.LAUNCH_FAILED, "the command, or its name in argv, is empty")
        if any(b"\0" in text for text in (self.program, *self.argv, *self.env, *self.env.values())):
            raise Refused(protocol.LAUNCH_FAILED, "the command or its environment holds a NUL character")
        if any(not name or b"=" in name for name in self.env):
            raise Refused(protocol.LAUNCH_FAILED, "the environment holds a name that is empty or contains '='")


def _list(body: Body, name: str) -> list[object]:
    value = body.get(name) or []
    if isinstance(value, list):
        return value
    raise Refused(protocol.INVALID, f"{name} is not a list")


def _pair(value: object) -> tuple[bytes, bytes]:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
        return to_bytes(value[0]), to_bytes(value[1])
    raise Refused(protocol.INVALID, f"env holds what is no pair of strings: {value!r:.100}")


def become(plan: Plan, status_fd: int, stdout_fd: int, stderr_fd: int, stdin_fd: int | None = None) -> NoReturn:
    """Exec the task's program. If that fails, write one line why to `status_fd`, which the exec closes."""
    step = "start"
    try:
        step = "make a session"
        os.setsid()
        step = f"open the input {plan.stdin}"
        source = open_input(plan.stdin) if stdin_fd is None else stdin_fd
        _wire(source, stdout_fd, stderr_fd)
        os.closerange(3, status_fd)
        os.closerange(status_fd + 1, 1 << 20)
        for path in plan.procs:
            step = f"join the cgroup {path}"
            _write(path)
        step = f"run on the CPUs {plan.cpus}"
        if plan.cpus:
            os.sched_setaffinity(0, plan.cpus)
        step = f"enter the network {plan.network}"
        if plan.network:
            _enter_network(plan.network)
        step = "set limits"
        _limit(plan)
        step = f"become user {plan.uid}"
        _change_user(plan)
        step = f"enter the sandbox {plan.sandbox}"
        os.chdir(plan.sandbox)
        os.umask(0o022)
        step = "reset signals"
        _reset_signals()
        _exec(plan)
    except OSError as error:
        text = error.strerror if step == "reset signals" else f"cannot {step}: {error.strerror}"
    except BaseException as error:  # whatever it is, this copy of the keeper must not live on
        text = f"cannot {step}: {error!r}"
    try:
        os.write(status_fd, (text or "unknown error").encode("utf-8", "replace")[:4096])
    finally:
        os._exit(127)


def open_input(stdin: str | None) -> int:
    """The file, else nothing to read; raises `OSError`."""
    source = os.open(to_bytes(stdin or "/dev/null"), os.O_RDONLY | os.O_NONBLOCK)  # a FIFO must not hang us
    if stdin is not None and not stat.S_ISREG(os.fstat(source).st_mode):
        os.close(source)
        raise OSError(None, "not a regular file")
    os.set_blocking(source, True)
    return source


def _wire(source: int, stdout_fd: int, stderr_fd: int) -> None:
    for number, fd in enumerate((source, stdout_fd, stderr_fd)):
        os.dup2(fd, number, inheritable=True)


def _write(path: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b"0")
    os.close(fd)


def _enter_network(path: str) -> None:
    """setns(2), which Python has from 3.12 on; ctypes is imported by this child alone."""
    import ctypes  # noqa: PLC0415 - the keeper stays small

    descriptor = os.open(to_bytes(path), os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(None, os.strerror(ctypes.get_errno()))
    os.close(descriptor)


def _limit(plan: Plan) -> None:
    resource.setrlimit(RLIMIT_TAG, (plan.tag, plan.tag))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    soft = NOFILE_SOFT if hard == resource.RLIM_INFINITY else min(NOFILE_SOFT, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if plan.as_bytes is not None:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = plan.as_bytes if hard == resource.RLIM_INFINITY else min(plan.as_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _change_user(plan: Plan) -> None:
    if plan.uid is None or plan.gid is None:
        return
    if os.geteuid() == 0:
        os.setgroups(plan.groups)
    os.setresgid(plan.gid, plan.gid, plan.gid)
    os.setresuid(plan.uid, plan.uid, plan.uid)


def _reset_signals() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is not signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _exec(plan: Plan) -> NoReturn:
    """execvpe(3), with the search path of the task's own environment; argv[0] is as it was given."""
    name = plan.program
    search = plan.env.get(b"PATH", DEFAULT_PATH.encode())
    candidates = [name] if b"/" in name else [os.path.join(folder, name) for folder in search.split(b":")]  # noqa: PTH118
    failure: OSError | None = None
    for path in candidates:
        try:
            os.execve(path, plan.argv, plan.env)
        except (FileNotFoundError, NotADirectoryError) as error:
            failure = failure or error
        except OSError as error:
            failure = error
            if not isinstance(error, PermissionError):
                break
    shown = name.decode("utf-8", "replace")
    if b"/" not in name and isinstance(failure, (FileNotFoundError, NotADirectoryError)):
        raise OSError(None, f"no such program: {shown} (PATH={search.decode('utf-8', 'replace')})")
    raise OSError(None, f"cannot run {shown}: {failure.strerror if failure else 'nothing to run'}")

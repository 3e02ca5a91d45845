"""What the keeper and the WASM host do at their start and end: arguments, lock, socket, signals, lifeline.

Arguments: `DIR NAME [--ready FD] [--lifeline FD] [--engine SOCKET --label LABEL]`. In DIR lie `NAME.lock` (one such
process per directory) and `NAME.sock`. One byte is written to the ready pipe once requests are served. The end of the
lifeline pipe ends all tasks and the process, as SIGTERM does, and removes the containers with that label from that
Docker engine; SIGHUP and SIGINT are ignored, so that a terminal ends nothing.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress

from edgerm_agent.keeper import containers
from edgerm_agent.keeper.holding import H, Holding
from edgerm_agent.keeper.loop import Loop
from edgerm_agent.keeper.server import Server, listen, remove_quietly

EXIT_LOCKED = 3
FAREWELL_GRACE_S = 3.0
IDLE_S = 600.0
"""A process that holds nothing and serves nobody for so long ends."""


def run(argv: list[str], make: Callable[[Loop], Holding[H]]) -> int:
    """Serve until the end; the process's exit code."""
    directory, name = argv[:2]
    options = dict(zip(argv[2::2], argv[3::2], strict=True))
    os.chdir(directory)
    while os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC) <= 2:
        pass  # 0 to 2 must not become something else's
    lock = os.open(f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return EXIT_LOCKED
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    loop = Loop()
    holding = make(loop)
    server = Server(loop, listen(f"{name}.sock"), holding)
    _watch_ends(loop, holding, options)
    if "--engine" not in options:  # else it stays for what it has to do at the end
        _leave_when_idle(loop, server, holding)
    if "--ready" in options:
        ready = int(options["--ready"])
        with suppress(BrokenPipeError):  # who started us has died meanwhile: the next agent finds us serving
            os.write(ready, b"\n")
        os.close(ready)
    loop.run()
    loop.close()
    remove_quietly(f"{name}.sock")
    return 0


def _watch_ends(loop: Loop, holding: Holding[H], options: Mapping[str, str]) -> None:
    def farewell() -> None:
        holding.shutdown(FAREWELL_GRACE_S)

    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: loop.call_threadsafe(farewell))
    signal.set_wakeup_fd(loop.wake_fd, warn_on_full_buffer=False)
    if "--lifeline" in options:
        lifeline = int(options["--lifeline"])
        os.set_inheritable(lifeline, False)

        def ended() -> None:
            if not os.read(lifeline, 1):
                loop.unwatch(lifeline)
                _remove_containers(options)
                farewell()

        loop.watch(lifeline, ended)


def _remove_containers(options: Mapping[str, str]) -> None:
    """Beside the tasks' end; the process waits for this thread before it exits."""
    if "--engine" in options:
        import threading  # noqa: PLC0415 - a keeper that lives needs it never

        threading.Thread(target=containers.remove_all, args=(options["--engine"], options["--label"])).start()


def _leave_when_idle(loop: Loop, server: Server, holding: Holding[H]) -> None:
    idle = False

    def look() -> None:
        nonlocal idle
        was_idle, idle = idle, not holding.held and not server.connections
        if was_idle and idle:
            holding.shutdown(0)
        loop.later(IDLE_S / 2, look)

    look()

"""The agent's process: settings, signals, exit status, and what it says to whoever started it.

What does not live here: how an agent is put together (`running.py`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgerm import logs
from edgerm.core.errors import Conflict, EdgermError, Invalid
from edgerm_agent import config, doctor
from edgerm_agent.config import Config
from edgerm_agent.devices.loader import WrongSettings
from edgerm_agent.running import Running, running
from edgerm_agent.telling import check as check_told

EXIT_GONE = 3
UMASK = 0o077  # what an agent writes is nobody else's business; tasks have a umask of their own

log = logs.get("agent.main")


class Dismissed(Conflict):
    """The master took this agent in no more, and never will."""

    def __init__(self, why: str, data_path: Path) -> None:
        remedy = f"to use this box as a new agent: edgerm agent --purge --data-dir {data_path}, then start it again"
        super().__init__(f"{why}: its tasks were ended; {remedy}")


def main(config_file: Path | None, flags: Mapping[str, Any], lifeline: int | None) -> int:
    """Run an agent until it is told to stop.

    The exit status: 0 stopped, 1 failed, 2 the settings are wrong, 3 an operator marked it gone: a start is in vain.
    """
    try:
        settings = config.load(config_file, flags)
        check_told(settings)
    except Invalid as error:
        return _say(error, 2)
    logs.configure(settings.log.form, settings.log.level)
    with suppress(OSError):  # what stands in the way is told when the directory itself is opened
        settings.data_path.parent.mkdir(parents=True, exist_ok=True)  # by our own umask others may pass through it
    os.umask(UMASK)
    try:
        asyncio.run(_run(settings, lifeline))
    except Dismissed as error:
        return _say(error, EXIT_GONE)
    except WrongSettings as error:
        return _say(error, 2)
    except EdgermError as error:
        return _say(error, 1)
    except Exception as error:
        return _say(f"a fault of the agent: {type(error).__name__}: {error}", 1)
    return 0


def purge(config_file: Path | None, flags: Mapping[str, Any], agreed: Callable[[str], bool]) -> int:
    """End and remove all that a stopped agent left on this box, if `agreed` says yes to what that is.

    The exit status: 0 nothing is left, 1 something is, or an agent runs there, 2 it is no agent's directory.
    """
    from edgerm_agent import purge  # noqa: PLC0415 - an agent that runs needs it never

    try:
        settings = config.load(config_file, flags)
        logs.configure(settings.log.form, settings.log.level)
        return purge.purge(settings, lambda found: agreed(str(found)), _tell)
    except Invalid as error:
        return _say(error, 2)
    except EdgermError as error:
        return _say(error, 1)


def check(config_file: Path | None = None, flags: Mapping[str, Any] | None = None) -> list[tuple[str, bool, str]]:
    """What this box can do, for `edgerm doctor`: (what, whether it is well, remedy). Raises `Invalid`."""
    return doctor.check(config.load(config_file, flags))


def _say(why: object, status: int) -> int:
    _tell(why)
    return status


def _tell(line: object) -> None:
    sys.stderr.write(f"edgerm agent: {line}\n")


async def _run(settings: Config, lifeline: int | None) -> None:
    stop, abandoned = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if lifeline is not None:

        def abandon() -> None:
            abandoned.set()
            stop.set()

        _watch(lifeline, abandon)
    async with running(settings, lifeline) as agent:
        agent.shell.joined = lambda: _ready(agent)
        if not settings.masters:
            _ready(agent)
        stopped: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        try:
            ends: set[asyncio.Future[Any]] = {stopped, agent.shell.failed, agent.shell.dismissed}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        if agent.shell.failed.done():
            agent.shell.failed.result()
        if agent.shell.dismissed.done():
            await agent.end_tasks()
            raise Dismissed(agent.shell.dismissed.result(), settings.data_path)
        log.info("stopping", tasks_go_on=not abandoned.is_set())
        if abandoned.is_set():
            await agent.end_tasks()


def _ready(agent: Running) -> None:
    """Say it once; later sessions are no news."""
    sys.stdout.write(f"ready agent_id={agent.agent_id}\n")
    sys.stdout.flush()
    agent.shell.joined = lambda: None


def _watch(descriptor: int, stop: Callable[[], None]) -> None:
    """Call `stop` when the other end of this pipe is closed."""

    def readable() -> None:
        if not os.read(descriptor, 4096):
            asyncio.get_running_loop().remove_reader(descriptor)
            stop()

    asyncio.get_running_loop().add_reader(descriptor, readable)

"""The work of `edgerm run`: a framework for one task, its output, signals, exit status. Imported when it is used.

What does not live here: the command line (`run`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from edgerm.cli.feeding import feed
from edgerm.cli.pouring import pour
from edgerm.cli.progress import StatusLine
from edgerm.cli.run import EDGERM_FAILED
from edgerm.core.errors import EdgermError, NotFound
from edgerm.core.scheduler import Status
from edgerm.core.tasks import Reason, TaskState
from edgerm.sdk import Cluster, TaskHandle, framework
from edgerm.sdk.cluster import TaskOptions
from edgerm.sdk.operator import Name

TIMED_OUT = 124  # as `timeout` has it
TRAPPED = 134  # what a shell shows of SIGABRT, and wasmtime's own status
KILLED = 137  # what a shell shows of SIGKILL
ATTACHED_S = 600.0  # the task outlives an `edgerm run` that vanished by so long
DETACHED_S = 365 * 86_400.0
PLACED_HINT_S = 3.0
NEVER_RAN = (TaskState.DROPPED, TaskState.ERROR)
NOT_STARTED = (Reason.CONTAINER_LAUNCH_FAILED, Reason.TASK_KILLED_DURING_LAUNCH)

_line = StatusLine("edgerm run: ")


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for."""

    master: str
    detach: bool
    options: TaskOptions


async def run(wish: Wish) -> int:
    """Run the task that is wished for; the exit status. Raises `EdgermError` if edgerm itself failed."""
    spec = framework(f"edgerm run {wish.options['name']}", failover_timeout_s=DETACHED_S if wish.detach else ATTACHED_S)
    cluster = await Cluster(wish.master, spec).__aenter__()
    stays = False
    try:
        handle = await cluster.launch(**wish.options)
        with _signals_kill(cluster, handle):
            if wish.detach:
                stays = await _detach(cluster, handle, wish)
                return 0 if stays else exit_status(handle.status)
            interactive = wish.options.get("stdin_open", False)
            return await _attend(cluster, handle, wish, interactive=interactive)
    finally:
        if stays:
            await cluster.close()
        else:
            await cluster.__aexit__(None, None, None)


class _signals_kill:  # noqa: N801 - used as a block
    """Within the block SIGINT and SIGTERM kill the task; a third one gives up waiting for its end."""

    def __init__(self, cluster: Cluster, handle: TaskHandle) -> None:
        self._cluster, self._handle = cluster, handle
        self._times = 0

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._kill)

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    def _kill(self) -> None:
        self._times += 1
        if self._times == 1:
            _say(f"ending task {self._handle.task_id}; twice more to leave it")
        self._cluster.kill(self._handle.task_id)
        if self._times > 2:
            sys.stderr.flush()
            raise SystemExit(EDGERM_FAILED)


async def _attend(cluster: Cluster, handle: TaskHandle, wish: Wish, *, interactive: bool) -> int:
    """Pour its output here until it has ended. `timeout_s` bounds the wait for room as well."""
    timeout_s = wish.options.get("timeout_s")
    explained = _explained(cluster, handle, wish)
    try:
        async with asyncio.timeout(timeout_s):
            with _hints(cluster, handle, explained):
                status = await _await_start(handle)
    except TimeoutError:
        why = cluster.lacking(handle.task_id)
        lack = f": {why}" if why else ""
        _say(f"task {handle.task_id} did not start within {timeout_s:g} s{lack}; why: edgerm explain {explained}")
        return TIMED_OUT
    if status.agent_id is not None and status.state not in NEVER_RAN and status.reason not in NOT_STARTED:
        await _pour_both(cluster, handle, interactive=interactive)
    status = await handle.ended()
    if status.state is not TaskState.FINISHED:
        _say(_story(status))
    return exit_status(status)


async def _await_start(handle: TaskHandle) -> Status:
    """Wait until it runs, or has ended without; meanwhile say what its agent does."""
    status = handle.status
    try:
        while not (status.state is TaskState.RUNNING or status.state.terminal):
            status = await handle.changed()
            if status.state is TaskState.STARTING and status.message:
                _line.show(status.message)
    finally:
        _line.clear()
    return status


def _explained(cluster: Cluster, handle: TaskHandle, wish: Wish) -> str:
    """What to ask the master about while it waits: it knows of tasks that wait for devices, else of frameworks."""
    return handle.task_id if wish.options.get("claims") else cluster.framework_id


@contextmanager
def _hints(cluster: Cluster, handle: TaskHandle, explained: str) -> Iterator[None]:
    hint = asyncio.get_running_loop().call_later(PLACED_HINT_S, _hint, cluster, handle, explained)
    try:
        yield
    finally:
        hint.cancel()


def _hint(cluster: Cluster, handle: TaskHandle, explained: str) -> None:
    if handle.task_id not in cluster.driver.session.tasks:
        why = cluster.lacking(handle.task_id) or "no room yet"
        _say(f"{why}; why: edgerm explain {explained}")


async def _pour_both(cluster: Cluster, handle: TaskHandle, *, interactive: bool) -> None:
    name = Name(handle.task_id, cluster.framework_id)

    def lives() -> bool:
        return not handle.status.state.terminal

    feeding = asyncio.create_task(_feed(handle)) if interactive else None
    try:
        async with asyncio.TaskGroup() as group:
            for stderr in (False, True):
                group.create_task(pour(cluster.operator, name, stderr=stderr, follow=True, lives=lives))
    except* BrokenPipeError:  # nobody reads any more
        cluster.kill(handle.task_id)
        _forget_stdout()
    except* EdgermError as errors:
        _say(f"output may be missing: {errors.exceptions[0]}")
    finally:
        if feeding is not None:
            feeding.cancel()
            await asyncio.wait({feeding})


async def _feed(handle: TaskHandle) -> None:
    """Our standard input is the task's, as long as it reads."""
    try:
        await feed(handle)
    except NotFound:  # it has ended, or reads no more: as a shell's pipe would
        pass
    except EdgermError as error:
        _say(f"the task gets no more input: {error}")


def _forget_stdout() -> None:
    """So that the interpreter does not complain at its end about what could not be written."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


async def _detach(cluster: Cluster, handle: TaskHandle, wish: Wish) -> bool:
    """Whether it runs, or has ended well already."""
    with _hints(cluster, handle, _explained(cluster, handle, wish)):
        status = await _await_start(handle)
    if status.state.terminal and status.state is not TaskState.FINISHED:
        _say(_story(status))
        return False
    sys.stdout.write(f"{handle.task_id}\n")
    return not status.state.terminal


def _say(words: str) -> None:
    _line.clear()
    sys.stderr.write(f"edgerm run: {words}\n")


def _story(status: Status) -> str:
    reason = f" ({status.reason.name})" if status.reason is not None else ""
    return f"task {status.task_id} is {status.state.name}{reason}" + (f": {status.message}" if status.message else "")


def exit_status(status: Status) -> int:
    """The exit status that stands for how a task ended."""
    if status.reason is Reason.MAX_COMPLETION_TIME_REACHED:
        return TIMED_OUT
    if status.signal is not None:
        return 128 + status.signal
    if status.exit_code is not None:
        return status.exit_code & 0xFF
    if status.state is TaskState.FINISHED:
        return 0
    if status.trap:
        return TRAPPED
    limits = (Reason.CONTAINER_LIMITATION_MEMORY, Reason.CONTAINER_LIMITATION_DISK)
    return KILLED if status.state is TaskState.KILLED or status.reason in limits else EDGERM_FAILED

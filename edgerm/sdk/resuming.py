"""A framework that outlives its process: its id is kept in a file, its tasks run on, and the next process has them.

The master knows a framework by the id that it gave it. Whoever subscribes with that id takes the framework over, with
all its tasks, as long as the failover timeout is not over; a process of before is disconnected.
What does not live here: the session itself (`edgerm.sdk.core.session`), which reconciles by itself.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from edgerm.core.errors import Invalid, Unavailable
from edgerm.core.ids import AgentId, FrameworkId, TaskId, check_id
from edgerm.core.scheduler import FrameworkSpec
from edgerm.core.tasks import TaskState
from edgerm.sdk.cluster import Cluster
from edgerm.sdk.driver import Driver, framework
from edgerm.sdk.operator import Operator

REMOVED = "Framework has been removed"  # the master's ERROR (Mesos' text): torn down, or away for too long
FILE_BYTES_MAX = 1024


class IdFile:
    """Where a framework's id is kept. One file for one framework at one master."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def read(self) -> FrameworkId | None:
        """The id; None: there is no file. Raises `Invalid` for a file that holds no id or cannot be read."""
        try:
            with self.path.open("rb") as file:
                text = file.read(FILE_BYTES_MAX).decode().strip()
            return FrameworkId(check_id("framework id", text))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, Invalid) as error:
            raise Invalid(f"{self.path} holds no framework id ({error}); remove it to begin anew") from None

    def write(self, framework_id: FrameworkId) -> None:
        """Keep it, so that neither a crash nor a power cut leaves half a file. Raises `Invalid` if that cannot be."""
        beside = self.path.with_name(self.path.name + ".new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("w") as file:
                file.write(f"{framework_id}\n")
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise Invalid(f"cannot keep the framework's id in {self.path}: {error.strerror}") from None


async def watch_tasks(driver: Driver) -> dict[TaskId, AgentId]:
    """Let the session await every task of the framework that has not ended; answers them, with their agents.

    For a scheduler that came back: call it after `driver.subscribed()`, and launch nothing before. What each task does
    is then told by updates, as if this process had launched it.
    """
    view = await Operator(driver.client).tasks()
    found: dict[TaskId, AgentId] = {}
    for task in (*view.tasks, *view.unreachable_tasks):
        if task.framework_id.value == driver.framework_id and not TaskState(task.state).terminal:
            task_id, agent_id = TaskId(task.task_id.value), AgentId(task.agent_id.value)
            found[task_id] = agent_id
            driver.session.watch(task_id, agent_id)
    driver.session.reconcile()
    return found


@asynccontextmanager
async def resume(master: str, id_file: Path | str, spec: FrameworkSpec | None = None) -> AsyncIterator[Cluster]:
    """As `connect`, but what runs at the end of the block runs on, and the next `resume` has it in `cluster.tasks`.

    A framework that the master has removed begins anew, with a new id. Raises as `connect`, and `Invalid` for the file.
    """
    file = IdFile(id_file)
    spec = spec or framework(file.path.stem)
    cluster = await _subscribe(master, spec, file.read())
    try:
        file.write(cluster.framework_id)
        for task_id, agent_id in (await watch_tasks(cluster.driver)).items():
            cluster.watch(task_id, agent_id)
        yield cluster
    finally:
        await cluster.close()


async def _subscribe(master: str, spec: FrameworkSpec, framework_id: FrameworkId | None) -> Cluster:
    try:
        return await Cluster(master, spec, framework_id).__aenter__()
    except Unavailable as error:
        if framework_id is None or str(error) != REMOVED:
            raise
    return await Cluster(master, spec).__aenter__()

"""Executors and launches on the tests' Docker engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from edgerm.core.errors import Unavailable
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.plugin.executor import ContainerSpec, Exit, Handle, LaunchSpec, Limits
from edgerm_agent.executors.docker.executor import DockerExecutor
from support.engine import IMAGE, TestEngine

DEADLINE_S = 60
UNLIMITED = Limits()
_numbers = count(1)


def new_agent() -> AgentId:
    """An agent that nobody else is."""
    return AgentId(f"agent-{next(_numbers)}")


def launch(
    sandbox: Path, *argv: str, limits: Limits = UNLIMITED, env: tuple[tuple[str, str], ...] = (), **fields: Any
) -> LaunchSpec:
    """A task of its own key: `argv` after the image, `fields` are those of its container."""
    key = TaskKey(FrameworkId("framework"), TaskId(f"task-{next(_numbers)}"), LaunchId("launch"))
    container = ContainerSpec(**{"image": IMAGE, "network": "none", **fields})
    return LaunchSpec(key, "", argv, env, sandbox, limits=limits, container=container)


def shell(sandbox: Path, script: str, **fields: Any) -> LaunchSpec:
    """A task that is a shell script."""
    return launch(sandbox, "sh", "-c", script, **fields)


@asynccontextmanager
async def executing(
    engine: TestEngine, agent_id: AgentId | None = None, **settings: Any
) -> AsyncIterator[DockerExecutor]:
    """An executor whose containers are gone afterwards."""
    executor = DockerExecutor(agent_id or new_agent(), engine.url, **settings)
    try:
        yield executor
    finally:
        try:
            async with asyncio.timeout(DEADLINE_S):
                await executor.end_tasks()
        finally:
            await executor.close()


async def run(executor: DockerExecutor, spec: LaunchSpec) -> Exit:
    """Start and await."""
    async with asyncio.timeout(DEADLINE_S):
        return await executor.wait(await executor.start(spec))


async def started(executor: DockerExecutor, spec: LaunchSpec) -> tuple[Handle, str]:
    """Start, and await what it writes first."""
    async with asyncio.timeout(DEADLINE_S):
        handle = await executor.start(spec)
        return handle, (await executor.output(handle, "stdout", 0, 4096, DEADLINE_S)).data.decode()


async def there(executor: DockerExecutor) -> str:
    """The engine's ID, once it answers."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await executor.instance()
            except Unavailable:
                await asyncio.sleep(0.02)


def containers_of(engine: TestEngine, label: str) -> Iterator[dict[str, Any]]:
    """What the engine has, without us."""
    with engine.client() as client:
        yield from client.containers(all=True, filters={"label": label})

"""A container of ours as the executor knows it, and questions about it that the engine has no reason to refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from edgerm.core.errors import NotFound, Unavailable
from edgerm.core.ids import AgentId, TaskKey
from edgerm.plugin.executor import Exit, Stream
from edgerm_agent.executors.docker import container
from edgerm_agent.executors.docker.engine import EngineError
from edgerm_agent.executors.docker.input import Input

RETRY_FIRST_S = 0.1
RETRY_MAX_S = 5.0

Json = dict[str, Any]
T = TypeVar("T")


@dataclass(slots=True)
class Held:
    """A container of ours."""

    name: str
    id: str = ""
    group: Path | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    starting: bool = False
    oom: asyncio.Event = field(default_factory=asyncio.Event)
    over_quota: str = ""
    kill_at: float | None = None
    killer: asyncio.Task[None] | None = None
    exit: asyncio.Task[Exit] | None = None
    ours: bool = False  # started by this agent, not taken back from an earlier one
    input: Input | None = None
    silent: set[Stream] = field(default_factory=set)  # it ended without a byte on these


def is_task(found: Json, agent_id: AgentId, key: TaskKey) -> bool:
    """Whether this container, as inspected, is the agent's for this task."""
    labels = (found.get("Config") or {}).get("Labels") or {}
    return labels.get(container.AGENT) == agent_id and container.key_of(labels) == key


async def ask(call: Awaitable[T]) -> T:
    """The answer. Raises `NotFound` where the container is gone, `Unavailable` where the engine refuses otherwise."""
    try:
        return await call
    except EngineError as error:
        if error.status == 404:
            raise NotFound(str(error)) from error
        raise Unavailable(f"the Docker engine refuses: {error}") from error


async def is_set(event: asyncio.Event, wait_s: float) -> bool:
    """Whether it is set within so long."""
    try:
        async with asyncio.timeout(wait_s):
            await event.wait()
    except TimeoutError:
        return event.is_set()
    return True

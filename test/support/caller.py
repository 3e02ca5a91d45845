"""An agent's link in this process, without an agent around it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from edgerm.core.ids import AgentId
from edgerm.core.link import Join
from edgerm.core.scheduler import AgentSpec
from edgerm.store.blobs import BlobStore
from edgerm_agent.blobs import Blobs
from edgerm_agent.core.events import Event
from edgerm_agent.link import Link
from support.master import PATIENCE_S

AGENT_ID = AgentId("0" * 32)
JOIN = Join(AGENT_ID, 1, AgentSpec("here"))


class Caller:
    """A link, and what it tells."""

    def __init__(self, path: Path) -> None:
        self.blobs = Blobs(BlobStore(path, 1 << 24), set)
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.link: Link | None = None

    def dial(self, *masters: str, block_bytes: int = 1024) -> Link:
        """A link to these masters."""
        self.link = Link(masters, self.blobs, AGENT_ID, block_bytes)
        self.link.begin(self.events.put_nowait, lambda: None)
        return self.link

    async def next(self) -> Event:
        """What was told next."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.events.get()

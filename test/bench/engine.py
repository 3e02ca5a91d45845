"""A Docker engine for the bench: the tests' own (`support.engine`), so that the box's is neither needed nor touched."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType

from bench.report import Report
from support.engine import IMAGE, running_engine, why_not


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that runs, with an image that needs no pull."""

    url: str
    image: str = IMAGE

    @property
    def env(self) -> Mapping[str, str]:
        """What tells an agent to use it."""
        return MappingProxyType({"DOCKER_HOST": self.url})


@asynccontextmanager
async def running(report: Report) -> AsyncIterator[Engine | None]:
    """An engine for the block; None, and a note on why, where none can run."""
    if why := why_not():
        report.note(f"no containers are measured: {why}")
        yield None
        return
    with running_engine() as engine:
        yield Engine(engine.url)

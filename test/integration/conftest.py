"""What integration tests share: a master, a bare HTTP client, a Docker engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from support import engine as engines
from support.master import running_master

from edgerm_master.main import Served


@pytest.fixture
async def master(tmp_path: Path) -> AsyncIterator[Served]:
    async with running_master(tmp_path) as served:
        yield served


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Sends no header that the test does not give."""
    skipped = ["Accept", "Accept-Encoding", "Content-Type"]
    async with aiohttp.ClientSession(skip_auto_headers=skipped, timeout=aiohttp.ClientTimeout(20)) as session:
        yield session


@pytest.fixture
def own_engine() -> Iterator[engines.TestEngine]:
    """An engine of the test's own, to be ended or restarted."""
    if why := engines.why_not():
        pytest.skip(why)
    with engines.running_engine() as running:
        yield running


@pytest.fixture(scope="session")
def engine() -> Iterator[engines.TestEngine]:
    """One for all tests that do not end or restart it."""
    if why := engines.why_not():
        pytest.skip(why)
    with engines.running_engine() as running:
        yield running

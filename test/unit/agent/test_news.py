"""News about a start: not too often, and never the last one lost."""

from __future__ import annotations

import asyncio

import pytest

from edgerm_agent import news as module
from edgerm_agent.news import LINE_BYTES_MAX, News


async def test_the_first_and_the_latest_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first line is said at once; of those that follow, the latest, when its time has come."""
    monkeypatch.setattr(module, "NEWS_S", 0.01)
    said: asyncio.Queue[str] = asyncio.Queue()
    news = News(said.put_nowait)
    for line in ("1 %", "2 %", "3 %"):
        news(line)
    assert said.get_nowait() == "1 %"
    assert said.empty()
    async with asyncio.timeout(20):
        assert await said.get() == "3 %"
    news.close()


async def test_the_same_again_is_no_news() -> None:
    """A line is said once, however often it comes."""
    said: list[str] = []
    news = News(said.append)
    for _ in range(3):
        news("waits")
        news._pass_on()
    assert said == ["waits"]
    news.close()


async def test_nothing_is_said_after_the_end() -> None:
    """Once the start is over, what waits to be said and what still comes is dropped."""
    said: list[str] = []
    news = News(said.append)
    news("first")
    news("second")
    news.close()
    news("third")
    news._pass_on()
    assert said == ["first"]


async def test_a_line_is_a_line() -> None:
    """Line breaks and length are cut to what travels in a beat."""
    said: list[str] = []
    news = News(said.append)
    news("a\n b" + "x" * 1000)
    news.close()
    assert said[0].startswith("a bxx")
    assert len(said[0].encode()) == LINE_BYTES_MAX

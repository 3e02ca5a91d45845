"""What anybody may look at, of a master and of an agent."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from support.master import running_master

from edgerm_agent.api.look import KEEP_ALIVE_S, LookFace


@pytest.mark.parametrize("above", ["", "/master"])
async def test_probes_may_ask_with_head(tmp_path: Path, above: str) -> None:
    """GET and HEAD of health and version are 200, HEAD without a body."""
    async with running_master(tmp_path) as master, aiohttp.ClientSession(master.url) as http:
        for path in ("/health", "/version"):
            async with http.get(above + path) as got, http.head(above + path) as asked:
                assert (got.status, asked.status, await asked.read()) == (200, 200, b"")
        async with http.get(above + "/version") as got:
            assert (await got.json())["version"] == "1.11.0"


async def test_the_leader_is_where_it_listens(tmp_path: Path) -> None:
    """A redirect names the master's own address, whatever the request calls it."""
    async with running_master(tmp_path) as master, aiohttp.ClientSession(master.url) as http:
        for host in ("evil.example/x", "m:1"):
            async with http.get("/redirect", headers={"Host": host}, allow_redirects=False) as answer:
                assert (answer.status, answer.headers["Location"]) == (307, master.url.removeprefix("http:"))


async def test_the_scheduler_api_has_mesos_longer_path_too(tmp_path: Path) -> None:
    """The path that Mesos' own libraries use is the same face as the short one."""
    async with (
        running_master(tmp_path) as master,
        aiohttp.ClientSession(master.url) as http,
        http.post("/master/api/v1/scheduler", json={"type": "REVIVE"}) as answer,
    ):
        assert (answer.status, await answer.text()) == (400, "REVIVE without framework_id\n")


async def test_an_agent_keeps_idle_connections() -> None:
    """An agent answers GET and HEAD, and its server closes no connection because it is idle."""
    face = LookFace()
    try:
        port = await face.listen(0)
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
            http.get("/health") as got,
            http.head("/version") as asked,
        ):
            assert (got.status, asked.status) == (200, 200)
        server = face._runner.server
        assert server is not None
        assert server._kwargs["keepalive_timeout"] == KEEP_ALIVE_S  # what the server itself was given
    finally:
        await face.close()

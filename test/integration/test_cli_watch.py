"""`edgerm watch` and `edgerm roles` against a real master."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.fake_agent import FakeAgent, finishes
from support.master import PATIENCE_S, Framework, task

from edgerm_master.main import Served

EDGERM = (sys.executable, "-c", "from edgerm.cli.main import main; main()")


@asynccontextmanager
async def edgerm(*words: str) -> AsyncIterator[asyncio.StreamReader]:
    """A command and its output; it is ended with the block."""
    command = await asyncio.create_subprocess_exec(*EDGERM, *words, stdout=asyncio.subprocess.PIPE)
    assert command.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield command.stdout
    finally:
        if command.returncode is None:
            command.kill()
        await command.wait()


@pytest.mark.parametrize("flags", [[], ["--json"]])
async def test_watch_prints_a_line_for_each_change(master: Served, flags: list[str]) -> None:
    """First what there is, then agent, framework and task as they come; with --json each line is the event."""
    async with edgerm("watch", *flags, f"--master={master.url}") as out:
        kinds, said = [], []

        async def read() -> None:
            line = (await out.readline()).decode()
            kinds.append(json.loads(line)["type"] if flags else line.split()[0])
            said.append(line)

        await read()
        async with FakeAgent(master.url, on_launch=finishes), Framework(master.url) as framework:
            offer = await framework.offer()
            await framework.launch(offer, task(offer, "t"))
            for _ in range(5):
                await read()
    assert kinds == ["SUBSCRIBED", "AGENT_ADDED", "FRAMEWORK_ADDED", "TASK_ADDED", "TASK_UPDATED", "TASK_UPDATED"]
    assert "TASK_FINISHED" in said[-1] and framework.framework_id in said[-1]
    if not flags:
        assert said[0] == "SUBSCRIBED         0 agents, 0 frameworks, 0 tasks\n"


async def test_roles_are_listed(master: Served) -> None:
    """A role is a line with its frameworks and what is used or offered in it."""
    async with FakeAgent(master.url), Framework(master.url, {"role": "blue"}) as framework:
        await framework.offer()
        async with edgerm("roles", "--json", f"--master={master.url}") as out:
            told = json.loads(await out.read())
    assert told == [{"role": "blue", "weight": 1.0, "frameworks": 1, "cpus": 4.0, "mem": 2048.0}]

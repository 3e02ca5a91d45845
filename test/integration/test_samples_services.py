"""Sample frameworks that run for ever, as programs, against a real master and real agents."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from support.fleet import Fleet, Program, run_sample, running_fleet, sample

from edgerm.sdk import IdFile, Operator
from edgerm.sdk.operator import Name
from edgerm.transport.http_client import HttpClient

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """Two agents, for all tests of this file."""
    async with running_fleet(tmp_path_factory.mktemp("fleet"), {"a": "", "b": ""}) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def operator(fleet: Fleet) -> AsyncIterator[Operator]:
    """Who looks at the master, and kills what others run."""
    async with HttpClient(fleet.url) as client:
        yield Operator(client)


async def running(operator: Operator, framework: str) -> dict[str, str]:
    """The agents of the framework's tasks that run, by task id."""
    frameworks = {
        entry.framework_info.id.value: entry.framework_info.name for entry in (await operator.frameworks()).frameworks
    }
    return {
        task.task_id.value: task.agent_id.value
        for task in (await operator.tasks()).tasks
        if frameworks.get(task.framework_id.value) == framework
    }


async def all_run(program: Program, count: int) -> None:
    """Wait until the program says so."""
    await program.until(lambda line: line == f"{count} of {count} run")


async def test_keep_running_replaces_what_is_lost(fleet: Fleet, operator: Operator, tmp_path: Path) -> None:
    """As many tasks as before run again after one was killed, and after the agent that had them all went away."""
    async with sample("keep_running", fleet.url, "3", folder=tmp_path) as program:
        await all_run(program, 3)
        before = await running(operator, "keep-running")
        victim, agent_id = next(iter(before.items()))
        await operator.kill(Name(victim))
        await all_run(program, 3)
        assert victim not in await running(operator, "keep-running")
        name = next(name for name, agent in fleet.agents.items() if agent.agent_id == agent_id)
        await fleet.leave(name)
        await all_run(program, 3)
        assert agent_id not in (await running(operator, "keep-running")).values()
        await fleet.join(name)
        assert await program.end(signal.SIGTERM) == 143
    assert await run_sample("keep_running", fleet.url, "0", folder=tmp_path)


async def test_keep_running_goes_on_where_the_process_before_it_ended(
    fleet: Fleet, operator: Operator, tmp_path: Path
) -> None:
    """Ctrl-C leaves the tasks; the next process has the same ones; with 0 they end, and then a new framework begins."""
    async with sample("keep_running", fleet.url, "2", folder=tmp_path) as program:
        await all_run(program, 2)
        assert await program.end() == 130
    before = await running(operator, "keep-running")
    id_before = IdFile(tmp_path / "keep_running.id").read()
    async with sample("keep_running", fleet.url, "2", folder=tmp_path) as program:
        await all_run(program, 2)
        assert f"framework {id_before}, 2 tasks of before" in program.lines
        assert await program.end() == 130
    assert await running(operator, "keep-running") == before
    status, _, err = await run_sample("keep_running", fleet.url, "0", folder=tmp_path)
    assert (status, err) == (0, "")
    assert await running(operator, "keep-running") == {}
    async with sample("keep_running", fleet.url, "1", folder=tmp_path) as program:
        await all_run(program, 1)
        assert IdFile(tmp_path / "keep_running.id").read() != id_before
    await run_sample("keep_running", fleet.url, "0", folder=tmp_path)


async def test_everywhere_serves_each_agent_once(fleet: Fleet, operator: Operator) -> None:
    """Each agent has one task: those there, one that joins later, and again where a task was killed; none is left."""
    async with sample("everywhere", fleet.url) as program:

        async def on(count: int) -> dict[str, str]:
            """The tasks, once so many have begun to run."""
            for _ in range(count):
                await program.until(lambda line: line.startswith("RUNNING"))
            return await running(operator, "everywhere")

        def agents() -> list[str]:
            return sorted(agent.agent_id for agent in fleet.agents.values())

        tasks = await on(2)
        assert sorted(tasks.values()) == agents()
        await fleet.join("late")
        tasks = await on(1)
        assert sorted(tasks.values()) == agents()
        victim = next(iter(tasks))
        await operator.kill(Name(victim))
        tasks = await on(1)
        assert victim not in tasks
        assert sorted(tasks.values()) == agents()
        await fleet.leave("late")
        assert await program.end() == 130
    assert await running(operator, "everywhere") == {}


@pytest.mark.parametrize("name", ["keep_running", "everywhere"])
async def test_without_a_master_one_line_says_so(name: str, tmp_path: Path) -> None:
    """No traceback for what a person can mend."""
    status, lines, err = await run_sample(name, "http://127.0.0.1:1", folder=tmp_path)
    assert (status, lines) == (1, [])
    assert err.startswith(f"{name}: cannot reach http://127.0.0.1:1")
    assert err.count("\n") == 1

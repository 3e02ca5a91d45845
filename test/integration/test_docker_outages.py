"""The Docker engine is away, restarts, crashes, hangs: tasks are neither lost nor doubled, and the wait is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.containers import DEADLINE_S, containers_of, executing, launch, new_agent, shell, started, there
from support.engine import TestEngine, running_engine, why_not

from edgerm.core.errors import Unavailable
from edgerm.plugin.executor import Handle, LaunchFailed
from edgerm_agent.executors.docker import container
from edgerm_agent.executors.docker.executor import DockerExecutor

FOREVER = "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done"


@pytest.fixture(params=["plain", "live-restore"])
def engine(request: pytest.FixtureRequest) -> Iterator[TestEngine]:
    """An engine of the test's own, as it is by default and as it is when containers outlive it."""
    if why := why_not():
        pytest.skip(why)
    with running_engine(*(["--live-restore"] if request.param == "live-restore" else [])) as made:
        made.survives = request.param == "live-restore"  # type: ignore[attr-defined]
        yield made


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_restart(engine: TestEngine, tmp_path: Path, how: str) -> None:
    """Over a restart or crash of the engine a task goes on or is told as ended; one that starts meanwhile waits."""
    agent_id = new_agent()
    async with executing(engine, agent_id) as executor, asyncio.timeout(DEADLINE_S):
        running, _ = await started(executor, shell(tmp_path, FOREVER))
        over = await executor.start(launch(tmp_path, "true"))
        before = await executor.wait(over)
        waiting = asyncio.create_task(executor.wait(running))
        await asyncio.to_thread(getattr(engine, how))
        with suppress(Unavailable):
            await executor.lost(running.instance)
        with pytest.raises(Unavailable, match=f"waits for the Docker engine at {engine.url}: "):
            await executor.inspect()
        told: asyncio.Queue[str] = asyncio.Queue()
        later = asyncio.create_task(executor.start(launch(tmp_path, "true"), told.put_nowait))
        assert (await told.get()).startswith(f"waits for the Docker engine at {engine.url}: ")
        await asyncio.to_thread(engine.start)
        assert (await executor.wait(await later)).code == 0
        assert await executor.instance() == running.instance
        assert await executor.wait(over) == before
        assert set((await executor.inspect()).held) == {running, over, await later}
        if engine.survives:  # type: ignore[attr-defined]
            assert not waiting.done()
            await executor.stop(running, 0)
        assert (await waiting).code != 0
        assert len(list(containers_of(engine, f"{container.AGENT}={agent_id}"))) == 3


async def test_an_agent_finds_its_containers_after_both_were_away(engine: TestEngine, tmp_path: Path) -> None:
    """An agent that died, and whose engine crashed, adopts what runs or has ended, and starts nothing twice."""
    agent_id = new_agent()
    spec = shell(tmp_path, FOREVER)
    first = DockerExecutor(agent_id, engine.url)
    handle = await first.start(spec)
    await asyncio.to_thread(engine.kill)
    await first.close()
    async with executing(engine, agent_id) as second, asyncio.timeout(DEADLINE_S):
        with pytest.raises(Unavailable):
            await second.adopt(handle)
        await asyncio.to_thread(engine.start)
        await there(second)
        assert (await second.inspect()).held == (handle,)
        assert await second.adopt(handle)
        assert await second.start(spec) == handle  # asked again: the same container, as it is
        (found,) = containers_of(engine, f"{container.AGENT}={agent_id}")
        assert (found["State"] == "running") == engine.survives  # type: ignore[attr-defined]
        await second.stop(handle, 0)
        assert (await second.wait(handle)).code != 0
        assert not await second.adopt(Handle(handle.key, "docker", "another engine"))


async def test_a_hung_engine_holds_up_nobody(
    own_engine: TestEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls to an engine that hangs end at their time limit, however many; then the starts go on, once each."""
    monkeypatch.setattr("edgerm_agent.executors.docker.engine.CALL_S", 3)
    agent_id = new_agent()
    async with executing(own_engine, agent_id) as executor, asyncio.timeout(DEADLINE_S):
        handle = await executor.start(launch(tmp_path, "sleep", "1000"))
        own_engine.pause()
        told: asyncio.Queue[str] = asyncio.Queue()
        starts = [asyncio.create_task(executor.start(launch(tmp_path, "true"), told.put_nowait)) for _ in range(12)]
        assert "no answer" in await told.get() or "timed out" in await told.get()
        unwanted = launch(tmp_path, "true")
        last = asyncio.create_task(executor.start(unwanted))
        await asyncio.sleep(0)
        await executor.abandon(unwanted.key)
        own_engine.resume()
        handles = await asyncio.gather(*starts)
        with suppress(LaunchFailed):  # or it was about to run when it was given up
            await last
        assert {handle, *handles} <= set((await executor.inspect()).held)
        assert len(list(containers_of(own_engine, f"{container.AGENT}={agent_id}"))) in (13, 14)


async def test_what_was_made_and_never_started_goes(own_engine: TestEngine, tmp_path: Path) -> None:
    """A container whose agent died between making and starting it is no task: it is removed, or started when asked."""
    agent_id = new_agent()
    specs = [launch(tmp_path, "true") for _ in range(2)]
    with own_engine.client() as client:
        for spec in specs:
            body = container.body_of(agent_id, spec, privileged=False, log_bytes=1 << 20, cpus=1)
            client.create_container_from_config(body, container.name_of(agent_id, spec.key))  # type: ignore[no-untyped-call]
    async with executing(own_engine, agent_id) as executor, asyncio.timeout(DEADLINE_S):
        handle = await executor.start(specs[0])
        assert (await executor.wait(handle)).code == 0
        assert (await executor.inspect()).held == (handle,)
        assert len(list(containers_of(own_engine, f"{container.AGENT}={agent_id}"))) == 1

"""A framework that outlives its process, and what it sees of agents and tasks: a real master, agents from memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.fake_agent import FakeAgent
from support.master import running_master

from edgerm.core.errors import Conflict, Invalid, Unavailable
from edgerm.core.ids import AgentId, TaskId
from edgerm.core.resources import parse
from edgerm.core.tasks import TaskState
from edgerm.sdk import Cluster, Driver, IdFile, Scheduler, framework, resume, watch_tasks
from edgerm.wire.codec.infos import attributes_info
from edgerm_master.main import Served

SLEEP = ["/bin/sleep", "1000"]


@pytest.fixture
async def master(tmp_path: Path) -> AsyncIterator[Served]:
    """A master whose agents beat often, and call no one unreachable too soon."""
    async with running_master(tmp_path, agents={"beat_interval_s": 0.1, "missed_beats": 20}) as served:
        yield served


@pytest.fixture
def id_file(tmp_path: Path) -> Path:
    """Where the framework's id is kept."""
    return tmp_path / "mine.id"


async def test_the_next_process_has_the_tasks_of_the_one_before(master: Served, id_file: Path) -> None:
    """Tasks run on when the block ends; the next one has their handles, hears of them, and ends them."""
    async with FakeAgent(master.url) as agent:
        async with resume(master.url, id_file) as cluster:
            for name in ("one", "two"):
                await (await cluster.launch(process=SLEEP, task_id=name)).started()
            framework_id = cluster.framework_id
        assert not agent.kills
        async with resume(master.url, id_file) as cluster:
            assert cluster.framework_id == framework_id == IdFile(id_file).read()
            assert list(cluster.tasks) == ["one", "two"]
            one, two = cluster.tasks.values()
            assert (await one.started()).state is TaskState.RUNNING
            assert one.agent_id == agent.agent_id
            agent.report(agent.launches[1].key, TaskState.FINISHED)
            assert (await two.ended()).state is TaskState.FINISHED
            assert (await one.kill()).state is TaskState.KILLED
            assert not cluster.tasks
        async with resume(master.url, id_file) as cluster:
            assert not cluster.tasks


async def test_a_framework_that_was_removed_begins_anew(master: Served, id_file: Path) -> None:
    """Torn down, its id is worth nothing: the next process gets another one, and keeps that."""
    async with resume(master.url, id_file) as cluster:
        before = cluster.framework_id
        cluster.driver.session.teardown()
        await cluster.driver.ended()
    async with resume(master.url, id_file) as cluster:
        assert cluster.framework_id != before
        assert IdFile(id_file).read() == cluster.framework_id


async def test_the_later_of_two_processes_has_the_framework(master: Served, id_file: Path) -> None:
    """The earlier one is told why it ends; tasks are the later one's."""
    async with FakeAgent(master.url), resume(master.url, id_file) as earlier:
        handle = await earlier.launch(process=SLEEP, task_id="one")
        await handle.started()
        async with resume(master.url, id_file) as later:
            with pytest.raises(Conflict, match="failed over"):
                await handle.ended()
            assert list(later.tasks) == ["one"]


async def test_without_a_master_nothing_is_written(id_file: Path) -> None:
    """The error names the address, and a file that does not exist is not made."""
    with pytest.raises(Unavailable, match=r"cannot reach http://127\.0\.0\.1:1: "):
        async with resume("http://127.0.0.1:1", id_file):
            pass
    assert not id_file.exists()


async def test_a_file_without_an_id_stops_before_the_master_is_asked(master: Served, id_file: Path) -> None:
    """Nobody begins anew by mistake."""
    id_file.write_text("not / an id\n")
    with pytest.raises(Invalid, match="holds no framework id"):
        async with resume(master.url, id_file):
            pass
    assert not master.shell.core.frameworks


async def test_a_scheduler_of_ones_own_watches_what_it_launched_before(master: Served, id_file: Path) -> None:
    """`watch_tasks` awaits the tasks of this framework that have not ended, and no other's."""
    spec = framework("mine")
    async with Cluster(master.url, framework("other")) as other:
        async with FakeAgent(master.url) as agent, resume(master.url, id_file, spec) as cluster:
            await (await other.launch(process=SLEEP, task_id="theirs")).started()
            handle = await cluster.launch(process=SLEEP, task_id="ours")
            await handle.started()
        async with Driver(Scheduler(), master.url, spec, framework_id=IdFile(id_file).read()) as driver:
            await driver.subscribed()
            assert await watch_tasks(driver) == {"ours": agent.agent_id}
            assert list(driver.session.tasks) == ["ours"]


async def test_a_task_out_of_reach_is_watched_as_well(tmp_path: Path, id_file: Path) -> None:
    """Its agent is away, and may come back with it."""
    async with running_master(tmp_path, agents={"beat_interval_s": 0.1, "missed_beats": 3}) as master:
        async with FakeAgent(master.url) as agent, resume(master.url, id_file) as cluster:
            handle = await cluster.launch(process=SLEEP, task_id="ours")
            await handle.started()
        async with resume(master.url, id_file) as cluster:
            (handle,) = cluster.tasks.values()
            while handle.status.state is not TaskState.UNREACHABLE:
                await handle.changed()
        async with resume(master.url, id_file) as cluster:
            assert [(each.task_id, each.agent_id) for each in cluster.tasks.values()] == [("ours", agent.agent_id)]
            assert (await cluster.tasks[TaskId("ours")].changed()).state is TaskState.UNREACHABLE


async def test_tasks_are_killed_by_a_part_of_their_ids(master: Served, id_file: Path) -> None:
    """The regular expression is looked for anywhere in the id; an empty one is all; what is none is refused."""
    async with FakeAgent(master.url) as agent, resume(master.url, id_file) as cluster:
        for name in ("map-1", "map-2", "reduce", "spare"):
            await (await cluster.launch(process=SLEEP, task_id=name)).started()
        killed = await cluster.kill_matching(r"^map-\d$|duc")
        assert sorted(status.task_id for status in killed) == ["map-1", "map-2", "reduce"]
        assert {status.state for status in killed} == {TaskState.KILLED}
        assert list(cluster.tasks) == ["spare"]
        with pytest.raises(Invalid, match="is no regular expression"):
            await cluster.kill_matching("(")
        assert [status.task_id for status in await cluster.kill_matching("")] == ["spare"]
        assert [kill.key.task_id for kill in agent.kills].count(TaskId("spare")) == 1
        assert await cluster.kill_matching("") == []


async def test_agents_tell_what_they_are_and_have(master: Served, id_file: Path) -> None:
    """By id: attributes, name, all that there is; and what is free beside tasks."""
    info = attributes_info("box", {"domain": "gate.example.org", "floor": "7", "caps": "{gpio,can}"})
    async with FakeAgent(master.url, "cpus:4;mem:2048", info=info) as agent, resume(master.url, id_file) as cluster:
        handle = await cluster.launch(process=SLEEP, cpus=1, mem=48)
        await handle.started()
        agents = await cluster.agents()
        assert list(agents) == [agent.agent_id]
        assert handle.agent_id is not None
        found = agents[handle.agent_id]
        assert dict(found.attributes) == {"domain": "gate.example.org", "floor": 7.0, "caps": ("can", "gpio")}
        assert (found.name, found.spec.resources) == (f"fake-{agent.agent_id[:4]}", parse("cpus:4;mem:2048"))
        assert found.free == parse("cpus:3;mem:2000")
        assert AgentId("nobody") not in agents

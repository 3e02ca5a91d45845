"""Draining through the whole way: command line, master, agents; over restarts of the master."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from support.agent import FACES, agent_here, agent_process, url_of
from support.cli import EDGERM
from support.master import Framework, Json, post, status_of, task
from support.processes import running_box

from edgerm.core.errors import Invalid, NotFound
from edgerm.core.ids import AgentId
from edgerm.core.scheduler import Offer, Status
from edgerm.core.tasks import Reason, TaskState
from edgerm.sdk import Driver, Scheduler, Session, framework, process_task
from edgerm.sdk.operator import Name, Operator
from edgerm.transport.http_client import HttpClient
from edgerm.wire.v1 import infos_pb2
from edgerm_master.main import Served

DEADLINE_S = 30
OPERATOR = "/api/v1"


@asynccontextmanager
async def operator_of(master: Served) -> AsyncIterator[Operator]:
    """The operator's client."""
    async with HttpClient(master.url) as client:
        yield Operator(client)


async def edgerm(*args: str) -> tuple[int, str, str]:
    """Run the command line."""
    process = await asyncio.create_subprocess_exec(
        *EDGERM, *args, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def launch(framework: Framework, *tasks: tuple[str, str]) -> None:
    """Tasks, by id and script, that run when this returns."""
    offer = await framework.offer()
    await framework.launch(offer, *(task(offer, task_id, command={"value": script}) for task_id, script in tasks))
    for _ in tasks:
        assert (await status_of(framework))["state"] == "TASK_RUNNING"


async def test_a_task_ends_by_itself_and_another_is_killed_at_the_deadline(master: Served, tmp_path: Path) -> None:
    """`edgerm drain --deadline --wait`: frameworks are told when, one task ends in time, one is killed; no offers."""
    async with agent_here(tmp_path / "agent", master.url, name="box1"), Framework(master.url) as framework:
        fifo = tmp_path / "go"
        os.mkfifo(fifo)
        await launch(framework, ("t1", f"read x < {fifo}"), ("t2", "exec sleep 1000"))
        await framework.call("REVIVE")
        offer = await framework.offer()
        draining = asyncio.create_task(
            edgerm("drain", "box1", "--deadline=2s", "--grace=1s", "--wait", f"--master={master.url}")
        )
        told = (await framework.until("INVERSE_OFFERS"))["inverse_offers"]["inverse_offers"][0]
        assert told["agent_id"] == offer["agent_id"]
        assert 0 < told["starts_in_s"] <= 2
        rescinded = (await framework.until("RESCIND"))["rescind"]["offer_id"]
        assert rescinded == offer["id"]
        assert await framework.call("ACCEPT_INVERSE_OFFERS", inverse_offer_ids=[told["id"]]) == 202
        assert await framework.call("DECLINE_INVERSE_OFFERS", inverse_offer_ids=[{"value": "nobody"}]) == 202
        await asyncio.to_thread(fifo.write_text, "go\n")
        ends = [await status_of(framework), await status_of(framework)]
        assert [(end["task_id"]["value"], end["state"]) for end in ends] == [
            ("t1", "TASK_FINISHED"),
            ("t2", "TASK_KILLED"),
        ]
        assert ends[1]["reason"] == "REASON_AGENT_DRAINING"
        status, _, err = await draining
        assert (status, err.splitlines()[-1]) == (0, "agent box1 is drained")
        assert "1 task left" in err
        _, out, _ = await edgerm("agents", f"--master={master.url}")
        assert "DRAINED" in out
        await framework.call("REVIVE")
        await framework.hears_nothing()
        status, _, err = await edgerm("drain", offer["agent_id"]["value"][:6], "--cancel", f"--master={master.url}")
        assert (status, err) == (0, "agent box1 is in service again\n")
        assert (await framework.offer())["agent_id"] == offer["agent_id"]


class Story(Scheduler):
    """Launches one task that runs on, and tells what happens."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[object] = asyncio.Queue()
        self.launched = False

    def offers(self, driver: Session, offers: tuple[Offer, ...]) -> None:
        if self.launched:
            driver.decline(offers)
        else:
            self.launched = True
            driver.accept(offers, [process_task("t1", ["sleep", "1000"]).on(offers[0])])

    def update(self, driver: Session, status: Status) -> None:
        self.told.put_nowait((status.state, status.reason))

    def draining(self, driver: Session, agent_id: AgentId, in_s: float | None) -> None:
        self.told.put_nowait((agent_id, in_s))

    async def next(self) -> object:
        """What was told next."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.told.get()


async def test_a_killed_master_goes_on_with_the_draining(tmp_path: Path) -> None:
    """`kill -9` of the master in the middle: the next one tells the framework again and goes on."""
    story = Story()
    async with running_box(tmp_path, "cpus:4;mem:256") as box, Driver(story, box.url, framework("story")):
        assert await story.next() == (TaskState.RUNNING, None)
        async with HttpClient(box.url) as client:
            await Operator(client).drain(box.agent_id, 1000.0, 0.0)
        assert await _asked_back(story, box.agent_id) <= 1000.0
        await box.master.kill()
        await box.master.start()
        await box.master.ready()
        assert 0.0 < await _asked_back(story, box.agent_id) <= 1000.0
        async with HttpClient(box.url) as client:
            operator = Operator(client)
            view = (await operator.agents()).agents[0]
            assert (view.active, view.deactivated) == (False, True)
            assert (view.drain_info.state, view.drain.live_tasks) == (infos_pb2.DRAINING, 1)
            assert view.drain_info.config.deadline.nanoseconds == 1000 * 10**9
            assert view.drain_info.config.max_grace_period.nanoseconds == 0
            assert view.estimated_drain_start_time.nanoseconds > 0
            reasons = await operator.explain(Name("t1"))
            assert "agent-draining" in [reason.code for reason in reasons.reasons]
            await operator.drain(box.agent_id, 0.0, 0.0)  # a nearer deadline: now
            state, reason = await _status(story)
            assert (state, reason) == (TaskState.KILLED, Reason.AGENT_DRAINING)
            async with asyncio.timeout(DEADLINE_S):
                while (view := (await operator.agents()).agents[0]).drain_info.state != infos_pb2.DRAINED:
                    await asyncio.sleep(0.02)
            assert not view.drain.live_tasks


async def _asked_back(story: Story, agent_id: AgentId) -> float:
    """In how many seconds the agent is asked back, as the scheduler hears it."""
    while True:
        match await story.next():
            case (str() as told, float() as in_s) if told == agent_id:
                return in_s


async def _status(story: Story) -> tuple[TaskState, Reason | None]:
    """The next end."""
    while True:
        match await story.next():
            case (TaskState() as state, reason) if state.terminal:
                return state, reason  # type: ignore[return-value]


@pytest.mark.parametrize("face", FACES)
async def test_an_agent_that_is_marked_gone_ends_its_tasks_and_itself(
    master: Served, tmp_path: Path, face: str
) -> None:
    """MARK_AGENT_GONE: its task is TASK_GONE_BY_OPERATOR, its program says why and exits 3, also when started again."""
    pid_file = tmp_path / "pid"
    async with (
        agent_process(tmp_path / "agent", url_of(master, face)) as agent,
        Framework(master.url, {"capabilities": [{"type": "PARTITION_AWARE"}]}) as framework,
        operator_of(master) as operator,
    ):
        await launch(framework, ("t1", f"echo $$ > {pid_file}; exec sleep 1000"))
        await operator.mark_gone(agent.agent_id)
        status = await framework.status()
        assert (status["state"], status["reason"]) == (
            "TASK_GONE_BY_OPERATOR",
            "REASON_AGENT_REMOVED_BY_OPERATOR",
        )
        async with asyncio.timeout(DEADLINE_S):
            assert await agent.process.wait() == 3
        assert "an operator marked agent" in agent.log().splitlines()[-1]
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid_file.read_text()), 0)
        await operator.mark_gone(agent.agent_id)  # again: nothing changes
        with pytest.raises(AssertionError, match="marked agent"):
            await agent.start()
        async with asyncio.timeout(DEADLINE_S):
            assert await agent.process.wait() == 3
        with pytest.raises(Invalid, match="was marked gone"):
            await operator.drain(agent.agent_id)
        assert not (await operator.agents()).agents


async def test_what_cannot_be_is_told(master: Served, http: aiohttp.ClientSession) -> None:
    """Unknown agents: 400 as Mesos, 404 for MARK_AGENT_GONE; a call without its body, a time that is none: 400."""
    unknown: Json = {"agent_id": {"value": "nobody"}}
    for kind in ("DRAIN_AGENT", "DEACTIVATE_AGENT", "REACTIVATE_AGENT"):
        status, text = await post(http, master, {"type": kind, kind.lower(): unknown}, path=OPERATOR)
        assert (status, "no agent 'nobody' is known" in text) == (400, True)
        assert (await post(http, master, {"type": kind}, path=OPERATOR))[0] == 400
    call: Json = {"type": "MARK_AGENT_GONE", "mark_agent_gone": unknown}
    assert (await post(http, master, call, path=OPERATOR))[0] == 404
    late = {"type": "DRAIN_AGENT", "drain_agent": {**unknown, "max_grace_period": {"seconds": -1}}}
    status, text = await post(http, master, late, path=OPERATOR)
    assert (status, "max_grace_period is -1" in text) == (400, True)
    async with operator_of(master) as operator:
        with pytest.raises(NotFound):
            await operator.mark_gone("nobody")
        with pytest.raises(Invalid):
            await operator.reactivate("nobody")


async def test_the_command_line_says_what_is_wrong(master: Served, tmp_path: Path) -> None:
    """Names that mean nobody, or several; times that are none; options that exclude each other."""
    async with (
        agent_here(tmp_path / "a", master.url, name="box"),
        agent_here(tmp_path / "b", master.url, name="box"),
        operator_of(master) as operator,
    ):
        async with asyncio.timeout(DEADLINE_S):
            while len((await operator.agents()).agents) < 2:
                await asyncio.sleep(0.02)
        at = f"--master={master.url}"
        answers = await asyncio.gather(
            edgerm("drain", "nobody", at),
            edgerm("drain", "box", at),
            edgerm("drain", "box", "--deadline=soon", at),
            edgerm("drain", "box", "--cancel", "--gone", at),
        )
        assert [status for status, _, _ in answers] == [1, 2, 2, 2]
        assert "no agent 'nobody' is known" in answers[0][2]
        assert "2 agents are meant by 'box'" in answers[1][2]
        assert "'soon' is no time" in answers[2][2]
        assert not any(agent.deactivated for agent in (await operator.agents()).agents)

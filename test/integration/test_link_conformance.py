"""The agent's link against a real master: what must hold is the same over every face."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from support.agent import FACES, agent_here, url_of
from support.master import PATIENCE_S

from edgerm.core.blobs import Digest
from edgerm.core.devices import Device, DeviceClass, Inventory
from edgerm.core.ids import AgentId
from edgerm.core.link import COAP, Beat, BeatAnswer, Join, Stale, WantsInventory, Welcome
from edgerm.core.scheduler import AgentSpec, BlobRef
from edgerm.core.tasks import Reason, TaskState
from edgerm.sdk import connect
from edgerm.sdk.cluster import Cluster
from edgerm.store.blobs import BlobStore
from edgerm.wire.codec.infos import agent_spec
from edgerm_agent.blobs import Blobs
from edgerm_agent.core.effects import Send
from edgerm_agent.core.events import BeatAnswered, Event, JoinAnswered, Rang, RequestFailed
from edgerm_agent.link import Link
from edgerm_master.main import Served

AGENT_ID = AgentId("0" * 32)
JOIN = Join(AGENT_ID, 1, AgentSpec("here"))
ECHO = Path(__file__).parents[1] / "fixtures/wasm/echo.wasm"


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> str:
    """What carries the link."""
    return str(request.param)


class Caller:
    """A link, and what it tells."""

    def __init__(self, path: Path, *masters: str) -> None:
        self.blobs = Blobs(BlobStore(path, 1 << 24), set)
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.link = Link(masters, self.blobs, AGENT_ID)
        self.link.begin(self.events.put_nowait, lambda: None)
        self.requests = 0

    async def ask(self, body: Join | Beat) -> Event:
        """What came of a request; rings on the way are left out."""
        self.requests += 1
        self.link.send(Send(self.requests, body))
        while isinstance(event := await self.next(), Rang):
            pass
        return event

    async def join(self, join: Join = JOIN) -> int:
        """A session."""
        event = await self.ask(join)
        assert isinstance(event, JoinAnswered)
        assert isinstance(event.answer, Welcome)
        return event.answer.session

    async def next(self) -> Event:
        """What was told next."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.events.get()


@asynccontextmanager
async def calling(path: Path, *masters: str) -> AsyncIterator[Caller]:
    """A caller that is closed at the end."""
    caller = Caller(path, *masters)
    try:
        yield caller
    finally:
        await caller.link.close()
        await caller.blobs.close()


async def test_an_inventory_is_carried_once(master: Served, face: str, tmp_path: Path) -> None:
    """A large inventory goes over when the master asks for it; then its name is enough, for another agent too."""
    devices = tuple(Device("g", f"{n}", metadata=f'{{"n":{n},"text":"{"x" * 300}"}}') for n in range(400))
    join = replace(JOIN, agent=AgentSpec("here", inventory=Inventory((DeviceClass("g"),), devices, 5)))
    async with calling(tmp_path / "blobs", url_of(master, face)) as caller:
        assert await caller.ask(join) == JoinAnswered(1, WantsInventory())
        await caller.join(replace(join, devices=True))
        await caller.join(replace(join, incarnation=2))
        await caller.join(replace(join, agent_id=AgentId("1" * 32)))
    async with connect(master.url) as cluster:
        agents = await cluster.operator.agents()
    told = [agent_spec(agent.agent_info).inventory for agent in agents.agents]
    assert told == [join.agent.inventory] * 2


async def test_joins_and_beats(master: Served, face: str, tmp_path: Path) -> None:
    """A join is idempotent, a beat is answered, a late join is stale, an unknown session is told to join."""
    async with calling(tmp_path / "blobs", url_of(master, face)) as caller:
        session = await caller.join()
        assert await caller.join() == session
        assert await caller.ask(Beat(session, 0)) == BeatAnswered(3, BeatAnswer())
        assert await caller.join(replace(JOIN, incarnation=3)) != session
        assert await caller.ask(JOIN) == JoinAnswered(5, Stale())
        assert await caller.ask(Beat(session, 0)) == BeatAnswered(6, BeatAnswer(join=True))


async def test_a_message_of_any_size(master: Served, face: str, tmp_path: Path) -> None:
    """A join that is far bigger than a datagram arrives."""
    big = replace(JOIN, agent=AgentSpec("here", name="n" * 100_000))
    async with calling(tmp_path / "blobs", url_of(master, face)) as caller:
        session = await caller.join(big)
        assert (await caller.ask(Beat(session, 0))) == BeatAnswered(2, BeatAnswer())
    assert master.shell.core.agents[AGENT_ID].spec.name == "n" * 100_000


async def test_a_join_in_parts(master: Served, face: str, tmp_path: Path) -> None:
    """Parts of a join are taken one after the other."""
    async with calling(tmp_path / "blobs", url_of(master, face)) as caller:
        first = await caller.ask(replace(JOIN, more=True))
        assert isinstance(first, JoinAnswered)
        assert not isinstance(first.answer, Welcome)
        assert await caller.join(replace(JOIN, part=1))


async def test_nobody_answers(master: Served, face: str, tmp_path: Path) -> None:
    """Where nobody listens a request fails, and the next one goes to the next master, whatever speaks to it."""
    async with calling(tmp_path / "blobs", f"{face}://127.0.0.1:1", url_of(master, face)) as caller:
        assert await caller.ask(JOIN) == RequestFailed(1)
        assert await caller.join()


async def test_the_doorbell_of_an_unknown_session(master: Served, face: str, tmp_path: Path) -> None:
    """A doorbell that nobody knows rings once, so that a beat is told to join."""
    async with calling(tmp_path / "blobs", url_of(master, face)) as caller:
        caller.link.listen(12345)
        assert await caller.next() == Rang()
        assert caller.link._doorbell is not None
        async with asyncio.timeout(PATIENCE_S):
            await caller.link._doorbell


async def test_blobs(master: Served, face: str, tmp_path: Path) -> None:
    """A blob of any length is fetched, and one that the master lacks is told as such."""
    async with connect(master.url) as cluster, calling(tmp_path / "blobs", url_of(master, face)) as caller:
        for size in (0, 1, 1023, 1024, 1025, 300_000):
            data = bytes(number * 7 % 251 for number in range(size))
            ref = await cluster.driver.keep(data)
            await caller.blobs.fetch(ref, caller.link)
            assert caller.blobs.path(ref.digest).read_bytes() == data
        absent = BlobRef(Digest("ab" * 32), 5000)
        with pytest.raises(Exception, match="the master has no blob abab"):
            async with caller.link.get_blob(absent, 0) as body:
                [chunk async for chunk in body.chunks]


async def test_a_task_through_and_through(master: Served, face: str, tmp_path: Path) -> None:
    """An agent joins, a module with its input is fetched, runs and ends, and its output comes back."""
    async with agent_here(tmp_path / "agent", url_of(master, face)), connect(master.url) as cluster:
        result = await cluster.run(wasm=ECHO, input=b"x" * 5000)
        assert (result.state, result.output) == (TaskState.FINISHED, b"x" * 5000)
        quick = await cluster.launch(process=["/bin/sleep", "1000"])
        assert (await quick.started()).state is TaskState.RUNNING
        assert (await quick.kill()).state is TaskState.KILLED


@pytest.mark.parametrize("missing", [True, False])
async def test_a_bad_blob(
    master: Served, face: str, tmp_path: Path, missing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task whose input the master has lost, or has with other bytes, fails and names the blob."""
    monkeypatch.setattr("edgerm_agent.blobs.RETRY_FIRST_S", 0.01)
    async with connect(master.url) as cluster:
        ref = await cluster.driver.keep(b"y" * 3000)
        (stored,) = (tmp_path / "master").rglob(ref.digest)
        if missing:
            stored.unlink()
        else:
            stored.write_bytes(b"z" * 3000)
        async with agent_here(tmp_path / "agent", url_of(master, face)):
            await assert_fails(cluster, ref)


async def assert_fails(cluster: Cluster, ref: BlobRef) -> None:
    """A task with this input fails at its launch, and it is told why."""
    result = await cluster.run(process=["/bin/cat"], input=b"y" * 3000)
    assert result.state is TaskState.FAILED
    assert result.status.reason is Reason.CONTAINER_LAUNCH_FAILED
    assert ref.digest in result.message


async def test_the_agent_goes_over_to_another_carrier(master: Served, tmp_path: Path) -> None:
    """An agent whose first master does not answer goes on with the next one, over CoAP too."""
    async with (
        agent_here(tmp_path / "agent", f"http://127.0.0.1:1,{url_of(master, 'coap')}") as agent,
        connect(master.url) as cluster,
    ):
        result = await cluster.run(process=["/bin/echo", "hello"])
        assert result.output == b"hello\n"
        assert agent.shell.core.carrier is COAP

"""The driver against a real master over HTTP: what it does by itself when things go wrong."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.fake_agent import FakeAgent, finishes
from support.master import running_master

from edgerm.core.errors import Conflict, Invalid, TooLarge, Unavailable
from edgerm.core.ids import FrameworkId
from edgerm.core.scheduler import Offer, Status
from edgerm.core.tasks import TaskState
from edgerm.sdk import Driver, Scheduler, Session, framework, process_task
from edgerm_master.main import Served


class Story(Scheduler):
    """Launches one task on the first offer, and tells what happens."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[object] = asyncio.Queue()
        self.launched = False

    def subscribed(self, driver: Session, framework_id: FrameworkId) -> None:
        self.told.put_nowait(("subscribed", framework_id))

    def offers(self, driver: Session, offers: tuple[Offer, ...]) -> None:
        if self.launched:
            driver.decline(offers)
            return
        self.launched = True
        driver.accept(offers[:1], [process_task("t1", ["/bin/true"]).on(offers[0])])
        driver.decline(offers[1:])

    def update(self, driver: Session, status: Status) -> None:
        self.told.put_nowait(status.state)

    def disconnected(self, driver: Session, why: str) -> None:
        self.told.put_nowait("disconnected")


@pytest.fixture
async def master(tmp_path: Path) -> AsyncIterator[Served]:
    """A master in this process, whose agents beat often: what is to be forgotten is told by a beat."""
    async with running_master(tmp_path, agents={"beat_interval_s": 0.1}) as served:
        yield served


@pytest.mark.parametrize("json", [False, True], ids=["protobuf", "json"])
async def test_a_scheduler_launches_and_hears_of_the_end(master: Served, json: bool) -> None:
    """Offers, a launch, updates and their acknowledgements work in both encodings."""
    story = Story()
    async with (
        FakeAgent(master.url, on_launch=finishes) as agent,
        Driver(story, master.url, framework("story"), json=json) as driver,
    ):
        framework_id = await driver.subscribed()
        told = [await story.told.get() for _ in range(3)]
        assert told == [("subscribed", framework_id), TaskState.RUNNING, TaskState.FINISHED]
        await agent.until(lambda agent: bool(agent.forgotten))  # so the end was acknowledged


async def test_a_restarted_master_is_found_again_with_all_tasks(tmp_path: Path) -> None:
    """The driver subscribes again with its id, and its task runs on."""
    story = Story()
    async with running_master(tmp_path) as first:
        address = first.url.removeprefix("http://")
        agent = await FakeAgent(first.url).__aenter__()
        driver = await Driver(story, first.url, framework("story")).__aenter__()
        framework_id = await driver.subscribed()
        assert [await story.told.get() for _ in range(2)] == [("subscribed", framework_id), TaskState.RUNNING]
    assert await story.told.get() == "disconnected"
    async with running_master(tmp_path, http=address):
        assert await story.told.get() == ("subscribed", framework_id)
        assert [task.state for task in driver.session.tasks.values()] == [TaskState.RUNNING]
        agent.report(agent.launches[0].key, TaskState.FINISHED)
        while await story.told.get() is not TaskState.FINISHED:
            pass
        assert len(agent.launches) == 1
        await driver.__aexit__(None, None, None)
        await agent.__aexit__()


async def test_a_patient_driver_waits_for_its_master(tmp_path: Path) -> None:
    """A driver may be started before its master is."""
    async with running_master(tmp_path) as served:
        address = served.url.removeprefix("http://")
    async with (
        Driver(Story(), f"http://{address}", framework("early")) as driver,
        running_master(tmp_path, http=address),
    ):
        assert await driver.subscribed()
        driver.session.teardown()
        await driver.ended()


async def test_a_second_driver_takes_a_framework_over(master: Served) -> None:
    """The first one is told that it has failed over, and ends with that."""
    async with Driver(Story(), master.url, framework("twice")) as first:
        framework_id = await first.subscribed()
        async with Driver(Story(), master.url, framework("twice"), framework_id=framework_id) as second:
            assert await second.subscribed() == framework_id
            with pytest.raises(Conflict, match="failed over"):
                await first.ended()


async def test_a_framework_that_was_torn_down_cannot_come_back(master: Served) -> None:
    """The master's ERROR ends the driver with its words."""
    async with Driver(Story(), master.url, framework("gone")) as driver:
        framework_id = await driver.subscribed()
        driver.session.teardown()
        await driver.ended()
    async with Driver(Story(), master.url, framework("gone"), framework_id=framework_id) as again:
        with pytest.raises((Conflict, Unavailable), match="removed"):
            await again.ended()


async def test_a_callback_that_raises_ends_the_driver_with_its_error(master: Served) -> None:
    """Whoever waits gets the callback's own exception, and nothing hangs."""

    class Faulty(Scheduler):
        def subscribed(self, driver: Session, framework_id: FrameworkId) -> None:
            raise LookupError("a fault of the framework")

    async with Driver(Faulty(), master.url, framework("faulty")) as driver:
        with pytest.raises(LookupError, match="a fault of the framework"):
            await driver.ended()


async def test_a_framework_always_has_a_failover_timeout(master: Served) -> None:
    """Zero, Mesos' default, would end all tasks when the connection breaks."""
    async with Driver(Scheduler(), master.url, framework("zero", failover_timeout_s=0)) as driver:
        framework_id = await driver.subscribed()
        assert master.shell.core.frameworks[framework_id].spec.failover_timeout_s > 0


async def test_a_blob_travels_once(master: Served, tmp_path: Path) -> None:
    """Bytes and files are named by their hash, and what the master has is not sent again."""
    path = tmp_path / "blob"
    path.write_bytes(b"x" * 100_000)
    async with Driver(Scheduler(), master.url, framework("blobs")) as driver:
        await driver.subscribed()
        blob = await driver.keep(path)
        assert blob == (hashlib.sha256(b"x" * 100_000).hexdigest(), 100_000)
        stored = next((tmp_path / "master").rglob(f"{blob.digest}*"))
        before = stored.stat().st_mtime_ns, stored.stat().st_ino
        async with Driver(Scheduler(), master.url, framework("other")) as other:
            assert await other.keep(b"x" * 100_000) == blob
        assert stored.stat().st_ino == before[1]
        with pytest.raises(Invalid, match="cannot read"):
            await driver.keep(tmp_path / "missing")


async def test_a_blob_that_is_too_large_is_refused(tmp_path: Path) -> None:
    """The master's bound comes back as `TooLarge`."""
    async with (
        running_master(tmp_path, artifacts={"blob_bytes": 2048}) as served,
        Driver(Scheduler(), served.url, framework("large")) as driver,
    ):
        await driver.subscribed()
        with pytest.raises(TooLarge):
            await driver.keep(b"x" * 4096)


async def test_calls_of_many_tasks_leave_in_order_and_end_with_the_driver(master: Served) -> None:
    """Verbs used outside of callbacks are carried out, and what was asked for before leaving goes out."""
    async with FakeAgent(master.url) as agent:
        story = Story()
        async with Driver(story, master.url, framework("verbs")) as driver:
            await driver.subscribed()
            while await story.told.get() is not TaskState.RUNNING:
                pass
            driver.session.kill(next(iter(driver.session.tasks)))
        await agent.until(lambda agent: bool(agent.kills))

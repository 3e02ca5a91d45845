"""Constraints and updates of a framework through the SDK and the command line, against a real master over HTTP."""

from __future__ import annotations

import asyncio
import sys

import pytest
from support.fake_agent import FakeAgent, finishes

from edgerm.core.errors import Invalid, Unavailable
from edgerm.core.ids import AgentId, FrameworkId
from edgerm.core.resources import Resources
from edgerm.core.scheduler import Offer
from edgerm.sdk import Driver, Scheduler, Session, any_of, attributes, connect, framework
from edgerm.wire.codec.infos import attributes_info
from edgerm_master.main import Served

EDGERM = (sys.executable, "-m", "edgerm.cli.main")
IN_A = {"*": any_of([["zone=a"]])}


def zone(name: str) -> bytes:
    """What an agent in this zone says of itself."""
    return attributes_info("", {"zone": name, "line": "7"})


class Holder(Scheduler):
    """Keeps every offer, and tells of what it hears."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def offers(self, driver: Session, offers: tuple[Offer, ...]) -> None:
        for offer in offers:
            self.heard.put_nowait(("offer", str(attributes(offer)["zone"])))

    def rescinded(self, driver: Session, offer: Offer) -> None:
        self.heard.put_nowait(("rescinded", str(attributes(offer)["zone"])))

    def subscribed(self, driver: Session, framework_id: FrameworkId) -> None:
        self.heard.put_nowait(("subscribed", ""))

    def disconnected(self, driver: Session, why: str) -> None:
        self.heard.put_nowait(("disconnected", why))

    async def next(self) -> tuple[str, str]:
        async with asyncio.timeout(60):
            return await self.heard.get()


@pytest.mark.parametrize("json", [False, True], ids=["protobuf", "json"])
async def test_a_driver_is_offered_only_agents_that_meet_its_constraints(master: Served, json: bool) -> None:
    """From the first subscription on; an update takes back what no longer fits and brings what does now."""
    holder = Holder()
    spec = framework("holder")
    async with (
        FakeAgent(master.url, info=zone("a")),
        FakeAgent(master.url, info=zone("b")),
        Driver(holder, master.url, spec, constraints=IN_A, json=json) as driver,
    ):
        assert [await holder.next(), await holder.next()] == [("subscribed", ""), ("offer", "a")]
        driver.session.request(Resources.of(cpus=1))
        driver.session.update_framework(driver.spec, {"*": any_of([["zone=b", "!rack"]])})
        assert {await holder.next(), await holder.next()} == {("rescinded", "a"), ("offer", "b")}
        driver.session.update_framework(driver.spec, {})
        assert await holder.next() == ("offer", "a")


async def test_a_refused_update_is_told_and_undone(master: Served) -> None:
    """The master's words arrive in `disconnected`, and the driver goes on as it was."""
    holder = Holder()
    async with FakeAgent(master.url, info=zone("a")), Driver(holder, master.url, framework("mine")) as driver:
        assert [await holder.next(), await holder.next()] == [("subscribed", ""), ("offer", "a")]
        driver.session.update_framework(framework("mine", user="else"), IN_A)
        kind, why = await holder.next()
        assert kind == "disconnected" and "FrameworkInfo.user cannot change" in why
        assert [await holder.next(), await holder.next()] == [("subscribed", ""), ("offer", "a")]
        [core] = master.shell.core.frameworks.values()
        assert core.spec.user == "" and not core.constraints


async def test_a_driver_with_constraints_that_the_master_refuses_ends(master: Served) -> None:
    """An expression that RE2 does not take is told by the master's ERROR."""
    bad = {"*": any_of([["zone~(?=a).*"]])}
    async with Driver(Scheduler(), master.url, framework("bad"), constraints=bad, patient=False) as driver:
        with pytest.raises(Unavailable, match="regex"):
            await driver.ended()


async def test_a_task_runs_where_its_constraints_hold(master: Served) -> None:
    """Of two agents the one that meets them all is taken, each time; other tasks go anywhere."""
    async with (
        FakeAgent(master.url, on_launch=finishes, info=zone("a")) as one,
        FakeAgent(master.url, on_launch=finishes, info=zone("b")) as other,
        connect(master.url) as cluster,
    ):
        for _ in range(3):
            result = await cluster.run(process=["/bin/true"], constraints=["zone=b", "line=7", "!rack"])
            assert result.status.agent_id == other.agent_id
        named = await cluster.run(process=["/bin/true"], constraints=[f"@agent={one.agent_id}"])
        by_name = await cluster.run(process=["/bin/true"], constraints=[f"@name=fake-{other.agent_id[:4]}"])
        assert (named.status.agent_id, by_name.status.agent_id) == (one.agent_id, other.agent_id)
        with pytest.raises(Invalid, match="zone==b"):
            await cluster.launch(process=["/bin/true"], constraints=["zone==b"])


async def test_a_task_that_fits_nowhere_does_not_spin(master: Served) -> None:
    """Each agent makes one offer, which is refused for long; a new agent that fits is taken at once."""
    async with FakeAgent(master.url, info=zone("a")), connect(master.url) as cluster:
        handle = await cluster.launch(process=["/bin/sleep", "9"], constraints=["zone=c"])
        async with asyncio.timeout(60):
            while (why := cluster.lacking(handle.task_id)) is None:
                await asyncio.sleep(0)
        assert why == "no agent that made an offer meets zone=c"
        [core] = master.shell.core.frameworks.values()
        later_s = asyncio.get_running_loop().time() + 600
        async with asyncio.timeout(60):  # a first offer, made before anything waited, was refused for a moment
            while not [one for ones in core.filters.values() for one in ones if one.until_s > later_s]:
                await asyncio.sleep(0.01)
        async with FakeAgent(master.url, info=zone("c")) as fit:
            status = await handle.started()
            assert status.agent_id == AgentId(fit.agent_id)


async def _run(master: Served, *options: str) -> tuple[int, str]:
    """`edgerm run` as people call it; its status, and what it says."""
    process = await asyncio.create_subprocess_exec(
        *EDGERM,
        "run",
        "--master",
        master.url,
        *options,
        "--process",
        "--",
        "true",
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_edgerm_run_with_constraints(master: Served) -> None:
    """The task goes where they hold; what nobody meets is said after a while; a bad form is status 2."""
    async with FakeAgent(master.url, info=zone("a")), FakeAgent(master.url, on_launch=finishes, info=zone("b")) as fit:
        status, said = await _run(master, "--constraint", "zone=b", "--constraint", "line~[0-9]")
        assert (status, len(fit.launches)) == (0, 1), said
        status, said = await _run(master, "--constraint", "zone=c", "--timeout", "5")
        assert status == 124
        assert "no agent that made an offer meets zone=c" in said
        status, said = await _run(master, "--constraint", "zone==b")
        assert status == 2
        assert "--constraint" in said and "write one '='" in said

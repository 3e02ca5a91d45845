"""`kill -9`: master and agent die again and again while tasks are launched and run, and no task notices.

A run is drawn from a seed, which is printed: `EDGERM_SURVIVAL_SEED=… pytest test/integration/test_survival.py` draws
the same tasks and kills again (what runs at each instant is the machine's affair).
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from support.processes import Box, running_box, until

from edgerm.core.errors import Unavailable
from edgerm.core.scheduler import Offer, Status
from edgerm.core.tasks import TaskState
from edgerm.sdk import Cluster, Driver, Scheduler, Session, connect, framework, process_task
from edgerm.sdk.cluster import TaskOptions
from edgerm.sdk.core.moves import SessionState
from edgerm.sdk.handle import TaskHandle

SEED = int(os.environ.get("EDGERM_SURVIVAL_SEED") or secrets.randbits(32))
PROCESSES, MODULES, KILLS_EACH = 200, 50, 10
RUN_S = 45.0  # launches and kills are drawn from this span
CLOSE_S = 0.2
LASTS_S = 10.0  # at most, of one task
DEADLINE_S = 180.0
LEDGER = Path(__file__).parents[1] / "fixtures/wasm/ledger.wasm"
RESOURCES = "cpus:64;mem:65536;disk:65536;ports:[31000-31999]"
NEVER_RAN = (TaskState.DROPPED, TaskState.GONE)  # what became of an ACCEPT that died with its master

# A signal, or an end of the sleep before its time, is an entry of its own. Each echo is one write to the file's end.
SCRIPT = """
for name in TERM HUP INT QUIT USR1 USR2; do trap 'echo "signal" >>"$1"' $name; done
echo "start $$" >>"$1"; sleep "$2" || echo "woken" >>"$1"; echo "end $$" >>"$1"
"""


@dataclass(frozen=True)
class Job:
    """Something that must be done exactly once, by one task or, if that never started, by another."""

    number: int
    kind: str
    at_s: float
    lasts_s: float
    told: list[Status] = field(default_factory=list)

    def options(self, ledgers: Path, attempt: int) -> TaskOptions:
        """The task that does it."""
        common: TaskOptions = {"task_id": f"job-{self.number}-{attempt}", "cpus": 0.05, "mem": 16}
        if self.kind == "wasm":
            return {**common, "wasm": LEDGER, "args": [str(round(self.lasts_s * 1000))]}
        path = str(ledgers / str(self.number))
        return {**common, "process": ["/bin/sh", "-c", SCRIPT, "sh", path, f"{self.lasts_s:.3f}"]}


def draw(seed: int) -> tuple[list[Job], list[tuple[float, str]]]:
    """The jobs, and when who is killed. Most jobs begin or end close to a kill: there lies what can go wrong."""
    chance = random.Random(seed)
    victims = ["master", "agent", "both"] * KILLS_EACH
    chance.shuffle(victims)
    instants = sorted(chance.uniform(CLOSE_S, RUN_S) for _ in victims)
    kinds = ["process"] * PROCESSES + ["wasm"] * MODULES
    chance.shuffle(kinds)
    jobs = []
    for number, kind in enumerate(kinds):
        at_s = chance.choice([chance.uniform(0, RUN_S), chance.choice(instants) - chance.uniform(0, CLOSE_S)])
        to_a_kill_s = chance.choice([at - at_s for at in instants if 0 < at - at_s < LASTS_S] or [0.0])
        lasts_s = chance.choice([chance.uniform(0, CLOSE_S), chance.uniform(0, LASTS_S), to_a_kill_s])
        jobs.append(Job(number, kind, at_s, lasts_s))
    return jobs, list(zip(instants, victims, strict=True))


async def test_nothing_is_lost_or_doubled_when_master_and_agent_are_killed(tmp_path: Path) -> None:
    """Over 30 kills each of 250 tasks starts once, ends once and is told; what runs is not touched, nothing is left."""
    say(f"EDGERM_SURVIVAL_SEED={SEED}")
    jobs, kills = draw(SEED)
    ledgers = tmp_path / "ledgers"
    ledgers.mkdir()
    settings = {"EDGERM_AGENTS_BEAT_INTERVAL_S": "1.0", "EDGERM_AGENTS_MISSED_BEATS": "30"}
    async with asyncio.timeout(DEADLINE_S), running_box(tmp_path, RESOURCES, settings=settings) as box:
        holders = asyncio.create_task(all_holders(box))
        async with (
            connect(box.url, framework("odd")) as odd,
            connect(box.url, framework("even")) as even,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(kill_all(box, kills))
            works = [group.create_task(see_through((even, odd)[job.number % 2], job, ledgers)) for job in jobs]
            await asyncio.wait(works)
            say("told:", Counter(status.state.name for job in jobs for status in job.told))
            await until(lambda: not box.groups())
        assert box.holders() == await holders, "what holds tasks was replaced"
        while await box.held():
            await asyncio.sleep(0.1)
        assert_once(jobs, ledgers)
        left = box.processes()
    assert len(left) == 4, left  # master, agent, keeper, WASM host
    assert_tidy(jobs, box)


class Patient(Scheduler):
    """Keeps its offers, and what it is told."""

    def __init__(self) -> None:
        self.offered = asyncio.Event()
        self.told: dict[str, Status] = {}

    def offers(self, driver: Session, offers: tuple[Offer, ...]) -> None:
        """There is something to accept."""
        self.offered.set()

    def update(self, driver: Session, status: Status) -> None:
        """Keep the latest."""
        self.told[status.task_id] = status


async def test_a_launch_that_died_on_its_way_is_told(tmp_path: Path) -> None:
    """An ACCEPT that no master ever read ends as a task that never ran, also if the agent comes back last."""
    patient = Patient()
    async with (
        asyncio.timeout(60),
        running_box(tmp_path, RESOURCES) as box,
        Driver(patient, box.url, framework("patient")) as driver,
    ):
        await patient.offered.wait()
        (offer,) = driver.session.held.values()
        box.master.stop()
        driver.session.accept([offer], [process_task("lost", ["true"]).on(offer)])
        await asyncio.gather(box.master.kill(), box.agent.kill())
        await until(lambda: driver.session.state is not SessionState.SUBSCRIBED)
        await box.master.start()
        await until(lambda: driver.session.state is SessionState.SUBSCRIBED)
        await box.agent.start()
        await until(lambda: "lost" in patient.told)
        assert patient.told["lost"].state in NEVER_RAN


async def test_the_end_of_the_pipe_ends_everything(tmp_path: Path) -> None:
    """When whoever started master and agent is gone, they end, and running tasks with them; no cgroup is left."""
    async with asyncio.timeout(60), running_box(tmp_path, RESOURCES) as box:
        cluster = await Cluster(box.url, framework("left alone")).__aenter__()
        try:
            tasks = [
                await cluster.launch(process=["sh", "-c", "trap '' TERM; sleep 1000 & wait; sleep 1000"]),
                await cluster.launch(wasm=LEDGER, args=["1000000"]),
            ]
            assert {(await task.started()).state for task in tasks} == {TaskState.RUNNING}
        finally:
            await cluster.close()
        await until(lambda: len(box.processes()) == 6)  # master, agent, keeper, WASM host, sh, sleep


async def all_holders(box: Box) -> dict[str, int]:
    """What holds tasks, once a module has begun: before that two agents in turn may have woken a WASM host."""
    await until(lambda: any((sandbox / "work/ledger").exists() for sandbox in box.sandboxes()))
    return box.holders()


async def kill_all(box: Box, kills: list[tuple[float, str]]) -> None:
    """Kill each at its instant, and start it again at once, on the same data."""
    begin_s = asyncio.get_running_loop().time()
    for at_s, who in kills:
        await asyncio.sleep(begin_s + at_s - asyncio.get_running_loop().time())
        victims = [part for name, part in (("master", box.master), ("agent", box.agent)) if who in (name, "both")]
        await asyncio.gather(*(victim.kill() for victim in victims))
        for victim in victims:
            await victim.start()


async def see_through(cluster: Cluster, job: Job, ledgers: Path) -> None:
    """Launch it at its instant, and again while the task is known never to have started."""
    await asyncio.sleep(job.at_s)
    for attempt in count(1):
        handle = await launch(cluster, job.options(ledgers, attempt))
        job.told.append(await handle.ended())
        if handle.status.state not in NEVER_RAN:
            return


async def launch(cluster: Cluster, options: TaskOptions) -> TaskHandle:
    """Launch it, once the master is there to take the module."""
    while True:
        try:
            return await cluster.launch(**options)
        except Unavailable:
            await asyncio.sleep(0.2)


def say(*what: object) -> None:
    """Shown by pytest if the test fails."""
    print(*what)  # noqa: T201


def assert_once(jobs: list[Job], ledgers: Path) -> None:
    """Each job was told to have finished, and a process has one start and one end in its ledger, by one pid."""
    assert [job for job in jobs if job.told[-1].state is not TaskState.FINISHED] == []
    for job in jobs:
        if job.kind == "process":
            lines = [line.split() for line in (ledgers / str(job.number)).read_text().splitlines()]
            assert [line[0] for line in lines] == ["start", "end"], (job, lines)
            assert lines[0][1] == lines[1][1], (job, lines)


def assert_tidy(jobs: list[Job], box: Box) -> None:
    """Each job left one sandbox, a module's with one start and one end; nothing that was half done is left."""
    sandboxes = {path.name.split("%2F")[1]: path for path in box.sandboxes()}  # FRAMEWORK/TASK/LAUNCH, quoted
    assert len(sandboxes) == len(box.sandboxes()), "a task was launched twice"
    assert sandboxes.keys() == {job.told[-1].task_id for job in jobs}
    for job in jobs:
        if job.kind == "wasm":
            assert (sandboxes[job.told[-1].task_id] / "work/ledger").read_text() == "start\nend\n", job
    assert [path for path in box.folder.rglob("*") if path.is_socket() or path.parent.name == "partial"] == []

"""Composition: settings to a running agent, and its end.

What lives here: who is given what, in which order things start and stop. What does not: what any of them does.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgerm import logs
from edgerm.core.errors import EdgermError, Invalid, NotFound
from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.resources import parse as parse_resources
from edgerm.core.scheduler import AgentSpec
from edgerm.plugin.executor import Handle
from edgerm.store.blobs import BlobStore
from edgerm.store.datadir import DataDir
from edgerm.store.sqlite import SqliteStore
from edgerm.wire.codec.infos import attributes_info
from edgerm_agent import attributes, config, doctor, host
from edgerm_agent.blobs import Blobs
from edgerm_agent.config import PORT, Config
from edgerm_agent.containers import Allowed
from edgerm_agent.core.agent import Agent, Identity
from edgerm_agent.core.events import Described, ExecutorFound, InstanceChanged, Recovered
from edgerm_agent.core.records import Phase, Record, RunRecord, TaskRecord
from edgerm_agent.executors.users import own_name
from edgerm_agent.journal import Journal, Life
from edgerm_agent.lane import Lane
from edgerm_agent.launch import Users
from edgerm_agent.link import Link, carrier_of
from edgerm_agent.output import Outputs
from edgerm_agent.roster import Findings, Roster
from edgerm_agent.sandboxes import Sandboxes
from edgerm_agent.shell import AgentShell
from edgerm_agent.stats import Usages
from edgerm_agent.tasks import Tasks

UMASK = 0o077  # what an agent writes is nobody else's business; tasks have a umask of their own

log = logs.get("agent.main")


@dataclass(frozen=True, slots=True)
class Running:
    """An agent that runs."""

    agent_id: AgentId
    shell: AgentShell
    roster: Roster
    tasks: Tasks

    async def end_tasks(self) -> None:
        """End all tasks and what holds them; nothing more is started. The journal learns of it at the next start."""
        await self.tasks.close()
        await self.roster.end_tasks()


def main(config_file: Path | None, flags: Mapping[str, Any], lifeline: int | None) -> int:
    """Run an agent until it is told to stop; the exit status: 0 stopped, 1 failed, 2 the settings are wrong."""
    try:
        settings = config.load(config_file, flags)
        attributes_info("", attributes.parse(settings.attributes))
        parse_resources(settings.resources)
    except Invalid as error:
        return _say(error, 2)
    logs.configure(settings.log.form, settings.log.level)
    with suppress(OSError):  # what stands in the way is told when the directory itself is opened
        settings.data_path.parent.mkdir(parents=True, exist_ok=True)  # by our own umask others may pass through it
    os.umask(UMASK)
    try:
        asyncio.run(_run(settings, lifeline))
    except EdgermError as error:
        return _say(error, 1)
    except Exception as error:
        return _say(f"a fault of the agent: {type(error).__name__}: {error}", 1)
    return 0


def check(config_file: Path | None = None, flags: Mapping[str, Any] | None = None) -> list[tuple[str, bool, str]]:
    """What this box can do, for `edgerm doctor`: (what, whether it is well, remedy). Raises `Invalid`."""
    return doctor.check(config.load(config_file, flags))


def _say(why: object, status: int) -> int:
    sys.stderr.write(f"edgerm agent: {why}\n")
    return status


async def _run(settings: Config, lifeline: int | None) -> None:
    stop, abandoned = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if lifeline is not None:

        def abandon() -> None:
            abandoned.set()
            stop.set()

        _watch(lifeline, abandon)
    async with running(settings, lifeline) as agent:
        agent.shell.joined = lambda: _ready(agent)
        stopped: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({stopped, agent.shell.failed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        if agent.shell.failed.done():
            agent.shell.failed.result()
        log.info("stopping", tasks_go_on=not abandoned.is_set())
        if abandoned.is_set():
            await agent.end_tasks()


def _ready(agent: Running) -> None:
    """Say it once; later sessions are no news."""
    sys.stdout.write(f"ready agent_id={agent.agent_id}\n")
    sys.stdout.flush()
    agent.shell.joined = lambda: None


def _watch(descriptor: int, stop: Callable[[], None]) -> None:
    """Call `stop` when the other end of this pipe is closed."""

    def readable() -> None:
        if not os.read(descriptor, 4096):
            asyncio.get_running_loop().remove_reader(descriptor)
            stop()

    asyncio.get_running_loop().add_reader(descriptor, readable)


@asynccontextmanager
async def running(settings: Config, lifeline: int | None = None) -> AsyncIterator[Running]:
    """An agent that runs in this event loop until the block is left. Raises `EdgermError` if it cannot."""
    async with AsyncExitStack() as stack:
        data = DataDir.open(settings.data_path, "agent")
        stack.callback(data.close)
        _let_through(data.path, settings)
        store = SqliteStore(data.path / "journal.db")
        stack.callback(store.close)
        journal = Journal(store)
        life = journal.begin(AgentId(secrets.token_hex(16)))
        records = journal.load()
        roster = Roster(
            data.path,
            life.agent_id,
            settings.executors.process,
            lifeline,
            wasm=settings.executors.wasm,
            docker=settings.executors.docker,
            needed=executors_of(records),
        )
        stack.push_async_callback(roster.close)
        port = await _show(stack, settings.look_port)
        findings = await roster.find()
        spec = describe(settings, data.path, findings, port)
        core = Agent(_identity(life, spec, settings), records, settings.executors.idle_s)
        await asyncio.to_thread(roster.clear_orphans, {*core.tasks, *findings.held})
        shell = AgentShell(core, journal.write)
        tasks = await _compose(stack, settings, data.path, shell, roster, life.agent_id)
        stack.push_async_callback(shell.close)
        log.info("running", agent_id=life.agent_id, data_dir=str(data.path), executors=sorted(findings.instances))
        shell.start()
        shell.post(Recovered(findings.instances, findings.held, findings.awaited))

        def found(name: str, later: Findings) -> None:
            enforced = {**findings.enforced, **later.enforced}
            shell.post(Described(replace(spec, info=told_info(settings, spec.hostname, enforced))))
            shell.post(ExecutorFound(name, later.instances.get(name), later.held))

        roster.watch(lambda name, instance: shell.post(InstanceChanged(name, instance)), found)
        yield Running(life.agent_id, shell, roster, tasks)


async def _compose(
    stack: AsyncExitStack, settings: Config, data_path: Path, shell: AgentShell, roster: Roster, agent_id: AgentId
) -> Tasks:
    """Make the edges, and tell each what it needs of the others."""
    core = shell.core
    blobs = Blobs(BlobStore(data_path / "blobs", settings.blobs.total_bytes), core.needs)
    stack.push_async_callback(blobs.close)
    kept = settings.sandboxes
    sandboxes = Sandboxes(data_path / "sandboxes", kept.retention_s, kept.total_bytes, lambda: core.tasks)
    stack.push_async_callback(sandboxes.close)
    link = Link(settings.masters, blobs, agent_id, settings.coap.block_bytes)
    stack.push_async_callback(link.close)
    process = settings.executors.process
    users = Users(process.user or own_name(), process.users)
    docker = settings.executors.docker
    allowed = Allowed(docker.privileged, docker.volumes, docker.users)
    tasks = Tasks(agent_id, roster.executors, blobs, sandboxes, link, users, allowed, roster.instance)
    stack.push_async_callback(tasks.close)
    outputs = Outputs(roster.executors, sandboxes, lambda key: _handle(core, tasks, key), lambda: core.carrier)
    usages = Usages(roster.executors, lambda: _live(core), lambda: core.carrier)
    stack.push_async_callback(usages.close)
    lane = Lane(outputs, usages, lambda: core.unheard)
    stack.push_async_callback(lane.close)
    link.begin(shell.post, lane.answered)
    tasks.begin(shell.post, roster.seen)
    lane.begin(shell.post)
    shell.connect(link, tasks, lane, roster)
    sandboxes.sweep()
    blobs.sweep()
    return tasks


def _handle(core: Agent, tasks: Tasks, key: TaskKey) -> Handle | None:
    task = core.tasks.get(key)
    if task is not None and task.live and task.run.handle is None:
        raise NotFound(f"task {key.task_id} has not started yet")
    return (task and task.run.handle) or tasks.releasing(key)


def _live(core: Agent) -> list[Handle]:
    return [task.run.handle for task in core.tasks.values() if task.live and task.run.handle is not None]


async def _show(stack: AsyncExitStack, port: int | None) -> int:
    """Let anybody on this box look at the agent, if that is wanted; the port that frameworks are told."""
    if port is None:
        return PORT
    from edgerm_agent.api.look import LookFace  # noqa: PLC0415 - an agent that does without aiohttp takes half

    face = LookFace()
    stack.push_async_callback(face.close)
    return await face.listen(port)


def _identity(life: Life, spec: AgentSpec, settings: Config) -> Identity:
    carrier = carrier_of(settings.masters[0])
    return Identity(life.agent_id, spec, life.incarnation, host.boot_id(), secrets.token_bytes(32), carrier)


def describe(settings: Config, data_path: Path, findings: Findings, port: int) -> AgentSpec:
    """What this agent says of itself; raises `Invalid` for resources or attributes that are none."""
    name = host.hostname()
    return AgentSpec(
        hostname=name,
        name=settings.name or name,
        port=port,
        resources=host.resources(settings.resources, host.detect(data_path)),
        info=told_info(settings, name, findings.enforced),
    )


def told_info(settings: Config, hostname: str, enforced: Mapping[str, Mapping[str, str]]) -> bytes:
    """The AgentInfo with the operator's attributes and ours; raises `Invalid`."""
    return attributes_info(hostname, attributes.told(attributes.parse(settings.attributes), enforced))


def executors_of(records: Iterable[Record]) -> frozenset[str]:
    """The executors that may still hold tasks of the journal."""
    kept = list(records)
    live = {record.key for record in kept if isinstance(record, RunRecord) and record.phase is not Phase.ENDED}
    return frozenset(record.task.executor for record in kept if isinstance(record, TaskRecord) and record.key in live)


def _let_through(path: Path, settings: Config) -> None:
    """Tasks that run as another user must reach their sandboxes through our directory; they cannot list it."""
    process = settings.executors.process
    if os.geteuid() == 0 and (process.user or process.users):
        path.chmod(path.stat().st_mode | 0o111)

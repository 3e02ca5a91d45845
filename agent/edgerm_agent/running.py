"""An agent put together from its settings: who is given what, in which order things start and stop.

What does not live here: what any of them does, and the process that it is in (`main.py`).
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgerm import logs
from edgerm.core.errors import NotFound
from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.resources import parse
from edgerm.core.scheduler import AgentSpec
from edgerm.plugin.executor import Handle
from edgerm.store.blobs import BlobStore
from edgerm.store.datadir import DataDir
from edgerm.store.sqlite import SqliteStore
from edgerm.transport.local import LocalServer
from edgerm_agent import host
from edgerm_agent.blobs import Blobs
from edgerm_agent.config import PORT, Config
from edgerm_agent.containers import Allowed
from edgerm_agent.core.agent import Agent, Identity
from edgerm_agent.core.effects import MessageIn
from edgerm_agent.core.events import Described, ExecutorFound, InstanceChanged, Recovered
from edgerm_agent.core.records import Record, RunRecord, executors_of, is_local
from edgerm_agent.devices import loader, outside
from edgerm_agent.devices.hostfs import doors
from edgerm_agent.devices.manager import Devices
from edgerm_agent.devices.returning import give_back_all
from edgerm_agent.executors.local import LocalExecutor
from edgerm_agent.executors.users import own_name
from edgerm_agent.input import Inputs
from edgerm_agent.journal import JOURNAL, Journal, Life
from edgerm_agent.lane import Lane
from edgerm_agent.launch import Users
from edgerm_agent.link import Link, carrier_of
from edgerm_agent.local import LocalFace
from edgerm_agent.mailbox import Mailboxes
from edgerm_agent.output import Outputs
from edgerm_agent.roster import Findings, Roster
from edgerm_agent.sandboxes import Sandboxes
from edgerm_agent.shell import AgentShell
from edgerm_agent.stats import Usages
from edgerm_agent.tasks import Tasks
from edgerm_agent.telling import Telling

GIVE_BACK_S = 10.0  # at the end of all tasks; who waits for that has no more patience

log = logs.get("agent.running")


@dataclass(frozen=True, slots=True)
class Running:
    """An agent that runs."""

    agent_id: AgentId
    shell: AgentShell
    roster: Roster
    tasks: Tasks
    devices: Devices

    async def end_tasks(self) -> None:
        """End all tasks and what holds them, and give their devices back; nothing more is started.

        The journal learns of it at the next start.
        """
        await self.tasks.close()
        await self.roster.end_tasks()
        grants = [each for holding in self.shell.core.grants.values() for each in holding.records]
        for left in await give_back_all(self.devices, grants, GIVE_BACK_S):
            log.warning("a device is not as it was", left=left)
        for left in await asyncio.to_thread(self.roster.clear_groups):
            log.warning("something of a task is left", left=left)


@asynccontextmanager
async def running(settings: Config, lifeline: int | None = None) -> AsyncIterator[Running]:
    """An agent that runs in this event loop until the block is left. Raises `EdgermError` if it cannot."""
    async with AsyncExitStack() as stack:
        data = DataDir.open(settings.data_path, "agent")
        stack.callback(data.close)
        _let_through(data.path, settings)
        store = SqliteStore(data.path / JOURNAL)
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
        local = LocalExecutor(host.boot_id(), _local_handles(records))
        roster.executors[local.name] = local  # now: the roster's findings are told to the master
        devices = await _devices(stack, settings, data.path, roster)
        telling = Telling(settings, data.path, port, findings.enforced, devices.plain_cpus())
        core = Agent(_identity(life, telling.spec(), settings), records, settings.executors.idle_s)
        await asyncio.to_thread(roster.clear_orphans, {*core.present, *findings.held})
        shell = AgentShell(core, journal.write)
        tasks = await _compose(stack, settings, data.path, shell, roster, life.agent_id, devices)
        stack.push_async_callback(shell.close)
        log.info("running", agent=life.agent_id, data_dir=str(data.path), executors=sorted(findings.instances))
        shell.start()
        devices.begin(shell.post)
        make_memories = partial(loader.load_shm, settings.devices, doors(data.path / "devices"), devices)
        held = {handle.key: handle for handle in (await local.inspect()).held}
        instances = {**findings.instances, local.name: await local.instance()}
        shell.post(Recovered(instances, {**findings.held, **held}, findings.awaited))
        await _serve_box(stack, data.path, LocalFace(life.agent_id, shell, devices, local, make_memories))

        def found(name: str, later: Findings) -> None:
            telling.enforced = {**telling.enforced, **later.enforced}
            shell.post(Described(telling.spec()))
            shell.post(ExecutorFound(name, later.instances.get(name), later.held))

        roster.watch(lambda name, instance: shell.post(InstanceChanged(name, instance)), found)
        yield Running(life.agent_id, shell, roster, tasks, devices)


async def _devices(stack: AsyncExitStack, settings: Config, data_path: Path, roster: Roster) -> Devices:
    """All device plugins; what they have is known, so that a task that runs since before is not taken for lost."""
    taken = {key.name for key in parse(settings.resources)}
    devices = Devices(taken, roster.executors)
    stack.push_async_callback(devices.close)
    loader.load(settings.devices, doors(data_path / "devices"), devices)
    await outside.listen(settings.devices, devices, stack)
    await devices.first()
    return devices


async def _serve_box(stack: AsyncExitStack, data_path: Path, face: LocalFace) -> None:
    """Answer whoever asks on this box."""
    face.begin()
    server = LocalServer(data_path, face.handlers)
    stack.push_async_callback(server.close)
    await server.begin()


def _local_handles(records: list[Record]) -> list[Handle]:
    runs = (record for record in records if isinstance(record, RunRecord) and is_local(record.key))
    return [run.handle for run in runs if run.handle is not None]


async def _compose(
    stack: AsyncExitStack,
    settings: Config,
    data_path: Path,
    shell: AgentShell,
    roster: Roster,
    agent_id: AgentId,
    devices: Devices,
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
    mailboxes = Mailboxes()
    stack.callback(mailboxes.close_all)
    tasks = Tasks(
        agent_id, roster.executors, blobs, sandboxes, link, users, allowed, roster.instance, devices, mailboxes
    )
    stack.push_async_callback(tasks.close)
    lane = _lane(stack, core, roster, sandboxes, tasks)
    link.begin(shell.post, lane.answered)
    tasks.begin(shell.post, roster.seen)
    lane.begin(shell.post)
    mailboxes.begin(shell.post)
    shell.connect(link, tasks, lane, roster, devices)
    shell.on(MessageIn, mailboxes.take)
    sandboxes.sweep()
    blobs.sweep()
    return tasks


def _lane(stack: AsyncExitStack, core: Agent, roster: Roster, sandboxes: Sandboxes, tasks: Tasks) -> Lane:
    """The ephemeral lane, with all that streams may be about."""
    outputs = Outputs(roster.executors, sandboxes, lambda key: _handle(core, tasks, key), lambda: core.carrier)
    usages = Usages(roster.executors, lambda: _live(core), lambda: core.carrier)
    stack.push_async_callback(usages.close)
    inputs = Inputs(roster.executors, lambda key: _handle(core, tasks, key), lambda: core.carrier)
    lane = Lane(outputs, usages, inputs, lambda: core.unheard)
    stack.push_async_callback(lane.close)
    return lane


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
    carrier = carrier_of(next(iter(settings.masters), ""))
    alone = not settings.masters
    return Identity(life.agent_id, spec, life.incarnation, host.boot_id(), secrets.token_bytes(32), carrier, alone)


def _let_through(path: Path, settings: Config) -> None:
    """Tasks that run as another user must reach their sandboxes through our directory; they cannot list it."""
    process = settings.executors.process
    if os.geteuid() == 0 and (process.user or process.users):
        path.chmod(path.stat().st_mode | 0o111)

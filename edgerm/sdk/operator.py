"""The operator API as a client has it: what agents, frameworks and tasks there are, outputs, kill, explain.

What does not live here: how answers are shown (`edgerm.cli`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple, TypeAlias

from edgerm.core.errors import NotFound, Unavailable
from edgerm.core.tasks import TaskState
from edgerm.transport.http_client import HttpClient
from edgerm.wire.codec.times import nanoseconds
from edgerm.wire.content import PROTOBUF, encode, from_protobuf
from edgerm.wire.recordio import Decoder
from edgerm.wire.v1 import master_pb2, operator_pb2, tasks_pb2

PATH = "/api/v1"
OWN_PATH = "/api/v1/edgerm"
ANSWER_BYTES_MAX = 256 << 20
RECORD_BYTES_MAX = 16 << 20
HEADERS = {"Content-Type": PROTOBUF, "Accept": PROTOBUF}

_Own: TypeAlias = operator_pb2.Call
AboutTask: TypeAlias = _Own.KillTask | _Own.Explain | _Own.ReadStats | _Own.WriteInput | _Own.ReadLog


class Name(NamedTuple):
    """A task as a person names it: by its id or a unique beginning of it, perhaps with its framework."""

    task_id: str
    framework_id: str | None = None

    def fits(self, task: tasks_pb2.Task, *, exact: bool) -> bool:
        """Whether it names `task`: by the whole id, or (not `exact`) by a beginning of it."""
        if self.framework_id not in (None, task.framework_id.value):
            return False
        task_id = task.task_id.value
        return task_id == self.task_id if exact else task_id.startswith(self.task_id)

    def write_to(self, call: AboutTask) -> None:
        """Make `call` one about the task that is named."""
        call.task_id.value = self.task_id
        if self.framework_id is not None:
            call.framework_id.value = self.framework_id


class Chunk(NamedTuple):
    """Part of a task's output; a gap between chunks means that the agent had no room for what is missing."""

    offset: int
    data: bytes


class Operator:
    """Asks a master. Every method raises `Unavailable` if it is away, and `NotFound` and `Conflict` for names."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    async def agents(self) -> master_pb2.Response.GetAgents:
        """Agents that have joined, and those that are waited for."""
        return (await self._ask(master_pb2.Call.GET_AGENTS)).get_agents

    async def frameworks(self) -> master_pb2.Response.GetFrameworks:
        """Present frameworks, and the latest that have ended."""
        return (await self._ask(master_pb2.Call.GET_FRAMEWORKS)).get_frameworks

    async def tasks(self) -> master_pb2.Response.GetTasks:
        """Tasks that run, that nobody can reach, and the latest that have ended."""
        return (await self._ask(master_pb2.Call.GET_TASKS)).get_tasks

    async def task(self, name: Name) -> tasks_pb2.Task:
        """The task with this id, else one whose id begins so; live before ended ones, then the latest launch."""
        view = await self.tasks()
        for exact in (True, False):
            for tasks in ((*view.orphan_tasks, *view.unreachable_tasks, *view.tasks), view.completed_tasks):
                found = [task for task in tasks if name.fits(task, exact=exact)]
                if found:
                    return found[-1]
        raise NotFound(f"no task {name.task_id!r} is known; see: edgerm ps --all")

    async def roles(self) -> master_pb2.Response.GetRoles:
        """The roles that frameworks have, or in which something is used."""
        return (await self._ask(master_pb2.Call.GET_ROLES)).get_roles

    async def watch(self) -> AsyncIterator[master_pb2.Event]:
        """The whole state, then every change as it comes, with a HEARTBEAT each 15 s; ends with the master's stream.

        Raises `Unavailable` if the connection breaks, also when this reader was too slow.
        """
        decoder = Decoder(ANSWER_BYTES_MAX)
        call = master_pb2.Call(type=master_pb2.Call.SUBSCRIBE)
        async with self._client.stream(PATH, encode(call, PROTOBUF), HEADERS) as stream:
            async for piece in stream.chunks:
                for record in decoder.feed(piece):
                    yield from_protobuf(master_pb2.Event, record, max_bytes=ANSWER_BYTES_MAX)

    async def offers(self) -> operator_pb2.Response.GetOffers:
        """Offers that no framework has answered yet."""
        call = operator_pb2.Call(type=operator_pb2.Call.GET_OFFERS, get_offers=operator_pb2.Call.GetOffers())
        return (await self._ask_own(call)).get_offers

    async def kill(self, name: Name, grace_s: float | None = None) -> TaskState:
        """Ask for a task's end, whatever its framework thinks; answers its state as it was then."""
        call = operator_pb2.Call(type=operator_pb2.Call.KILL_TASK)
        name.write_to(call.kill_task)
        if grace_s is not None:
            call.kill_task.grace_period_s = grace_s
        return TaskState((await self._ask_own(call)).kill_task.state)

    async def drain(
        self, agent_id: str, deadline_s: float = 0.0, max_grace_s: float | None = None, *, mark_gone: bool = False
    ) -> None:
        """Take an agent out of service: its tasks may end by themselves for `deadline_s`, then they are killed.

        Raises `Invalid` for an agent that is not known.
        """
        call = master_pb2.Call(type=master_pb2.Call.DRAIN_AGENT)
        body = call.drain_agent
        body.agent_id.value, body.mark_gone = agent_id, mark_gone
        body.deadline.FromNanoseconds(nanoseconds("the deadline", deadline_s))
        if max_grace_s is not None:
            body.max_grace_period.FromNanoseconds(nanoseconds("the grace period", max_grace_s))
        await self._tell(call)

    async def deactivate(self, agent_id: str) -> None:
        """No more offers of an agent; its tasks run on. Raises `Invalid` for one that is not known."""
        call = master_pb2.Call(type=master_pb2.Call.DEACTIVATE_AGENT)
        call.deactivate_agent.agent_id.value = agent_id
        await self._tell(call)

    async def reactivate(self, agent_id: str) -> None:
        """Offers of an agent again, whether it was drained or deactivated. Raises `Invalid`."""
        call = master_pb2.Call(type=master_pb2.Call.REACTIVATE_AGENT)
        call.reactivate_agent.agent_id.value = agent_id
        await self._tell(call)

    async def mark_gone(self, agent_id: str) -> None:
        """An agent is over with all that ran there; it may never join again. Raises `NotFound`."""
        call = master_pb2.Call(type=master_pb2.Call.MARK_AGENT_GONE)
        call.mark_agent_gone.agent_id.value = agent_id
        await self._tell(call)

    async def explain(
        self, name: Name | None, framework_id: str | None = None, called: str = ""
    ) -> operator_pb2.Response.Explain:
        """Why a task (by its id, or as it is `called`), or a framework, is where it is."""
        call = operator_pb2.Call(type=operator_pb2.Call.EXPLAIN)
        if called:
            call.explain.name = called
        elif name is not None:
            name.write_to(call.explain)
        elif framework_id is not None:
            call.explain.framework_id.value = framework_id
        return (await self._ask_own(call)).explain

    async def stats(self, name: Name | None = None, framework_id: str | None = None) -> operator_pb2.Response.ReadStats:
        """What live tasks use now: one, those of a framework, or all; takes a second or more."""
        call = operator_pb2.Call(type=operator_pb2.Call.READ_STATS, read_stats=operator_pb2.Call.ReadStats())
        if name is not None:
            name.write_to(call.read_stats)
        elif framework_id is not None:
            call.read_stats.framework_id.value = framework_id
        return (await self._ask_own(call)).read_stats

    async def write_input(
        self, name: Name, data: bytes = b"", *, offset: int | None = None, close: bool = False
    ) -> tuple[int, bool]:
        """Write to a task's open standard input, `data` (at most 64 KiB) being at byte `offset` of its live input.

        Returns how many live bytes the task has taken, after at most about 20 s, and whether the input is closed: what
        lies beyond is to be written again. Without data it only looks, or closes. `TaskInput` does all of that.
        """
        call = operator_pb2.Call(type=operator_pb2.Call.WRITE_INPUT)
        name.write_to(call.write_input)
        if offset is not None:
            call.write_input.offset = offset
        call.write_input.data, call.write_input.close = data, close
        taken = (await self._ask_own(call)).write_input
        return taken.offset, taken.closed

    async def read_log(
        self, name: Name, *, stderr: bool = False, follow: bool = False, offset: int = 0, max_bytes: int | None = None
    ) -> AsyncIterator[Chunk]:
        """A task's output, from `offset` (negative: from the end); with `follow` until the task has ended.

        Raises `Unavailable` if the output was cut, for example because its agent went away.
        """
        call = operator_pb2.Call(type=operator_pb2.Call.READ_LOG)
        ask = call.read_log
        name.write_to(ask)
        ask.stream = operator_pb2.STDERR if stderr else operator_pb2.STDOUT
        ask.offset, ask.follow = offset, follow
        if max_bytes is not None:
            ask.max_bytes = max_bytes
        decoder = Decoder(RECORD_BYTES_MAX)
        async with self._client.stream(OWN_PATH, encode(call, PROTOBUF), HEADERS) as stream:
            async for piece in stream.chunks:
                for record in decoder.feed(piece):
                    log = from_protobuf(operator_pb2.Response, record).read_log
                    if log.data:
                        yield Chunk(log.offset, log.data)
                    if log.end:
                        return
        if max_bytes is None:
            raise Unavailable(f"the output of {name.task_id!r} was cut short")

    async def _tell(self, call: master_pb2.Call) -> None:
        await self._client.request("POST", PATH, encode(call, PROTOBUF), HEADERS)

    async def _ask(self, kind: master_pb2.Call.Type.ValueType) -> master_pb2.Response:
        reply = await self._client.request("POST", PATH, encode(master_pb2.Call(type=kind), PROTOBUF), HEADERS)
        return from_protobuf(master_pb2.Response, reply.body, max_bytes=ANSWER_BYTES_MAX)

    async def _ask_own(self, call: operator_pb2.Call) -> operator_pb2.Response:
        reply = await self._client.request("POST", OWN_PATH, encode(call, PROTOBUF), HEADERS)
        return from_protobuf(operator_pb2.Response, reply.body, max_bytes=ANSWER_BYTES_MAX)

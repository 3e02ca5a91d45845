"""The operators' calls that Mesos has none for: `POST /api/v1/edgerm`.

What does not live here: Mesos' own calls (`operator.py`), outputs (`output.py`) and use (`usage.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from aiohttp import web

from edgerm.core.errors import Conflict, Invalid, NotFound
from edgerm.core.ids import FrameworkId, TaskKey
from edgerm.core.scheduler import Kill
from edgerm.wire.content import decode, encode, negotiate
from edgerm.wire.v1 import basics_pb2, operator_pb2
from edgerm_master.api.access import Access, Action
from edgerm_master.api.http import PRINCIPAL, Route, read_body
from edgerm_master.api.input import InputWriter
from edgerm_master.api.metrics import Metrics
from edgerm_master.api.operator import check_type
from edgerm_master.api.output import OutputReader
from edgerm_master.api.port import Port
from edgerm_master.api.upstreams import Upstreams
from edgerm_master.api.usage import UsageReader
from edgerm_master.api.views import Views
from edgerm_master.config import Limits
from edgerm_master.core.explain import Why, explain_framework, explain_task, explain_waiting
from edgerm_master.core.finding import find_named, find_waiting

Explain = operator_pb2.Response.Explain
CHOICES_SHOWN = 10


class OwnFace:
    """Our own requests."""

    def __init__(
        self, port: Port, access: Access, upstreams: Upstreams, views: Views, metrics: Metrics, limits: Limits
    ) -> None:
        self._port = port
        self._access = access
        self._views = views
        self._metrics = metrics
        self._limits = limits
        self._output = OutputReader(upstreams, views)
        self._usage = UsageReader(port, upstreams.streams)
        self._input = InputWriter(upstreams.streams)

    def routes(self) -> Iterator[Route]:
        """What this face serves."""
        yield Route("POST", "/api/v1/edgerm", Action.READ_STATE, self.handle)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One call of ours."""
        media_type = negotiate(request.headers.getall("Accept", []))
        body = await read_body(request, self._limits.call_bytes)
        with self._metrics.reading("edgerm"):
            message = decode(operator_pb2.Call, request.headers.get("Content-Type"), body)
            check_type(message)
        with self._metrics.counting("edgerm", operator_pb2.Call.Type.Name(message.type)):
            return await self._answer(request, media_type, message)

    async def _answer(self, request: web.Request, media_type: str, message: operator_pb2.Call) -> web.StreamResponse:
        kinds = operator_pb2.Call
        if message.type == kinds.READ_LOG:
            key = self._find(_framework_id(message.read_log), message.read_log.task_id.value)
            self._access.authorize(request[PRINCIPAL], Action.READ_OUTPUT, str(key))
            return await self._output.serve(request, media_type, key, message.read_log)
        if message.type == kinds.KILL_TASK:
            answer = await self._kill(request, message.kill_task)
        elif message.type == kinds.WRITE_INPUT:
            answer = await self._write_input(request, message.write_input)
        elif message.type == kinds.EXPLAIN:
            answer = operator_pb2.Response(explain=self._explain(message.explain))
        elif message.type == kinds.READ_STATS:
            answer = operator_pb2.Response(read_stats=await self._usage.read(self._live(message.read_stats)))
        else:
            answer = operator_pb2.Response(get_offers=self._views.open_offers())
        answer.type = operator_pb2.Response.Type.Value(kinds.Type.Name(message.type))
        return web.Response(body=encode(answer, media_type), headers={"Content-Type": media_type})

    async def _kill(self, request: web.Request, call: operator_pb2.Call.KillTask) -> operator_pb2.Response:
        key = self._find(_framework_id(call), call.task_id.value)
        self._access.authorize(request[PRINCIPAL], Action.KILL, str(key))
        record, run = self._views.record(key)
        if not run.state.terminal:
            if not self._port.core.knows(key.framework_id):
                raise Conflict(
                    f"framework {key.framework_id} of task {key.task_id!r} has not come back: nobody to tell"
                )
            grace_s = call.grace_period_s if call.HasField("grace_period_s") else None
            if grace_s is not None and not 0 <= grace_s <= 86_400:
                raise Invalid(f"grace_period_s is {grace_s}: use 0 to 86400")
            await self._port.call(key.framework_id, Kill(key.task_id, record.task.agent_id, grace_s))
        state = run.state.value
        return operator_pb2.Response(kill_task=operator_pb2.Response.KillTask(state=state))  # type: ignore[arg-type]

    async def _write_input(self, request: web.Request, call: operator_pb2.Call.WriteInput) -> operator_pb2.Response:
        key = self._find(_framework_id(call), call.task_id.value)
        self._access.authorize(request[PRINCIPAL], Action.WRITE_INPUT, str(key))
        record, run = self._views.record(key)
        if run.state.terminal:
            raise NotFound(f"task {key.task_id!r} has ended: nobody reads its input")
        offset = call.offset if call.HasField("offset") else None
        taken = await self._input.write(record.task.agent_id, key, offset, call.data, call.close)
        body = operator_pb2.Response.WriteInput(offset=taken.offset, closed=taken.closed)
        return operator_pb2.Response(write_input=body)

    def _explain(self, call: operator_pb2.Call.Explain) -> Explain:
        world = self._port.core.world
        framework_id = _framework_id(call)
        if call.HasField("task_id") or call.name:
            summary, reasons = self._explain_task(framework_id, call.task_id.value, call.name)
        elif framework_id is not None:
            summary = f"framework {framework_id}"
            reasons = explain_framework(world, framework_id)
        else:
            raise Invalid("EXPLAIN names neither a task nor a framework")
        view = Explain(summary=summary)
        for why in reasons:
            reason = view.reasons.add(code=why.code.value, message=why.message)
            if why.agent_id:
                reason.agent_id.CopyFrom(basics_pb2.AgentID(value=why.agent_id))
        return view

    def _explain_task(self, framework_id: FrameworkId | None, task_id: str, name: str) -> tuple[str, list[Why]]:
        """By its id, or a unique beginning of it, or by its name; also one that has no place yet."""
        world = self._port.core.world
        waiting = find_waiting(world, framework_id, task_id, name)
        keys = find_named(world, name, framework_id) if name else self._port.core.find_tasks(task_id, framework_id)
        if not name and any(key.task_id == task_id for key in keys):
            waiting = [(framework, one) for framework, one in waiting if one.task_id == task_id]
        if waiting:  # one that has ended is meant less
            keys = [key for key in keys if key in world.tasks]
        if keys or len(waiting) != 1:
            key = _the_one(name or task_id, keys, [(framework.framework_id, one.task_id) for framework, one in waiting])
            _, run = self._views.record(key)
            return f"task {key.task_id} of framework {key.framework_id} is TASK_{run.state.name}", explain_task(
                world, key
            )
        framework, one = waiting[0]
        wanted = ", ".join(f"{claim.count} of {claim.type}" for claim in one.claims)
        summary = f"task {one.task_id} of framework {framework.framework_id} waits for an offer with {wanted}"
        return summary, explain_waiting(world, framework, one)

    def _live(self, call: operator_pb2.Call.ReadStats) -> list[TaskKey]:
        """The live tasks that are meant."""
        framework_id = _framework_id(call)
        if call.HasField("task_id"):
            return [self._find(framework_id, call.task_id.value)]
        tasks = self._port.core.tasks
        return [key for key, task in tasks.items() if task.live and framework_id in (None, key.framework_id)]

    def _find(self, framework_id: FrameworkId | None, task_id: str) -> TaskKey:
        """The one task that is meant, by its id or a unique beginning of it; of several launches the latest."""
        return _the_one(task_id, self._port.core.find_tasks(task_id, framework_id))


def _the_one(called: str, keys: Collection[TaskKey], others: Collection[tuple[str, str]] = ()) -> TaskKey:
    """The latest launch of the one task among these; raises `NotFound` or `Conflict`."""
    named = {(key.framework_id, key.task_id): key for key in keys}
    choices = [*dict.fromkeys([*named, *others])]
    if not choices:
        raise NotFound(f"no task {called!r} is known; see: edgerm ps --all")
    if len(choices) > 1:
        shown = ", ".join("/".join(name) for name in choices[:CHOICES_SHOWN])
        raise Conflict(f"{len(choices)} tasks are called {called!r}: {shown}: name one as FRAMEWORK/TASK")
    return next(iter(named.values()))


def _framework_id(
    call: operator_pb2.Call.KillTask
    | operator_pb2.Call.ReadLog
    | operator_pb2.Call.Explain
    | operator_pb2.Call.ReadStats
    | operator_pb2.Call.WriteInput,
) -> FrameworkId | None:
    return FrameworkId(call.framework_id.value) if call.HasField("framework_id") else None

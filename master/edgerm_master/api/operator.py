"""The operator API: `POST /api/v1`, as Mesos has it, and `POST /api/v1/edgerm`, for what Mesos has no call for.

What lives here: the requests. What does not: the pictures of the core that answer them (`api/views.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from aiohttp import web

from edgerm.core.errors import Conflict, Invalid, NotFound, NotImplementedCall
from edgerm.core.ids import FrameworkId, TaskKey
from edgerm.core.scheduler import Kill, Teardown
from edgerm.wire.content import decode, encode, negotiate
from edgerm.wire.v1 import basics_pb2, infos_pb2, master_pb2, operator_pb2
from edgerm_master.api.access import Access, Action
from edgerm_master.api.http import PRINCIPAL, Route, read_body
from edgerm_master.api.look import EDGERM_VERSION, MESOS_VERSION
from edgerm_master.api.metrics import Metrics
from edgerm_master.api.output import OutputReader
from edgerm_master.api.port import Port
from edgerm_master.api.upstreams import Upstreams
from edgerm_master.api.usage import UsageReader
from edgerm_master.api.views import Views, master_info
from edgerm_master.config import Limits
from edgerm_master.core.explain import explain_framework, explain_task

Call = master_pb2.Call
Response = master_pb2.Response
Explain = operator_pb2.Response.Explain
CHOICES_SHOWN = 10
PATHS = ("/api/v1", "/api/v1/operator", "/master/api/v1", "/master/api/v1/operator")


class OperatorFace:
    """The operators' requests."""

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
        self._start_s = time.time()
        self._queries: dict[Call.Type.ValueType, Callable[[web.Request], Response]] = {
            Call.GET_HEALTH: lambda _: Response(get_health=Response.GetHealth(healthy=True)),
            Call.GET_VERSION: lambda _: Response(get_version=Response.GetVersion(version_info=_version())),
            Call.GET_METRICS: lambda _: Response(get_metrics=self._get_metrics()),
            Call.GET_STATE: lambda _: Response(get_state=self._get_state()),
            Call.GET_AGENTS: lambda _: Response(get_agents=views.agents()),
            Call.GET_FRAMEWORKS: lambda _: Response(get_frameworks=views.frameworks()),
            Call.GET_TASKS: lambda _: Response(get_tasks=views.tasks()),
            Call.GET_EXECUTORS: lambda _: Response(get_executors=Response.GetExecutors()),
            Call.GET_OPERATIONS: lambda _: Response(get_operations=Response.GetOperations()),
            Call.GET_MASTER: self._get_master,
        }

    def routes(self) -> Iterator[Route]:
        """What this face serves."""
        for path in PATHS:
            yield Route("POST", path, Action.READ_STATE, self.handle)
        yield Route("POST", "/api/v1/edgerm", Action.READ_STATE, self.handle_own)

    # --- Mesos' calls ---

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One Mesos call: a query is answered from memory."""
        media_type = negotiate(request.headers.getall("Accept", []))
        message = decode(Call, request.headers.get("Content-Type"), await read_body(request, self._limits.call_bytes))
        _check_type(message)
        if message.type == Call.TEARDOWN:
            return await self._teardown(request, message)
        query = self._queries.get(message.type)
        if query is None:
            raise NotImplementedCall(f"the operator call {Call.Type.Name(message.type)} is not built")
        answer = query(request)
        answer.type = Response.Type.Value(Call.Type.Name(message.type))
        return web.Response(body=encode(answer, media_type), headers={"Content-Type": media_type})

    async def _teardown(self, request: web.Request, message: Call) -> web.StreamResponse:
        if not message.HasField("teardown"):
            raise Invalid("TEARDOWN without its body, teardown")
        framework_id = FrameworkId(message.teardown.framework_id.value)
        self._access.authorize(request[PRINCIPAL], Action.TEARDOWN, framework_id)
        if not self._port.core.knows(framework_id):
            raise Invalid(f"no framework {framework_id!r} is there; see: edgerm frameworks")
        await self._port.call(framework_id, Teardown("Framework has been removed by an operator"))
        return web.Response()

    def _get_state(self) -> Response.GetState:
        views = self._views
        return Response.GetState(
            get_tasks=views.tasks(),
            get_executors=Response.GetExecutors(),
            get_frameworks=views.frameworks(),
            get_agents=views.agents(),
        )

    def _get_metrics(self) -> Response.GetMetrics:
        pairs = self._metrics.values().items()
        return Response.GetMetrics(metrics=[infos_pb2.Metric(name=name, value=value) for name, value in pairs])

    def _get_master(self, request: web.Request) -> Response:
        info = master_info(self._port.core, request)
        return Response(
            get_master=Response.GetMaster(master_info=info, start_time=self._start_s, elected_time=self._start_s)
        )

    # --- our own calls ---

    async def handle_own(self, request: web.Request) -> web.StreamResponse:
        """One call of ours."""
        media_type = negotiate(request.headers.getall("Accept", []))
        body = await read_body(request, self._limits.call_bytes)
        message = decode(operator_pb2.Call, request.headers.get("Content-Type"), body)
        _check_type(message)
        kinds = operator_pb2.Call
        if message.type == kinds.READ_LOG:
            key = self._find(_framework_id(message.read_log), message.read_log.task_id.value)
            self._access.authorize(request[PRINCIPAL], Action.READ_OUTPUT, str(key))
            return await self._output.serve(request, media_type, key, message.read_log)
        if message.type == kinds.KILL_TASK:
            answer = await self._kill(request, message.kill_task)
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

    def _explain(self, call: operator_pb2.Call.Explain) -> Explain:
        world = self._port.core.world
        framework_id = _framework_id(call)
        if call.HasField("task_id"):
            key = self._find(framework_id, call.task_id.value)
            _, run = self._views.record(key)
            summary = f"task {key.task_id} of framework {key.framework_id} is TASK_{run.state.name}"
            reasons = explain_task(world, key)
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

    def _live(self, call: operator_pb2.Call.ReadStats) -> list[TaskKey]:
        """The live tasks that are meant."""
        framework_id = _framework_id(call)
        if call.HasField("task_id"):
            return [self._find(framework_id, call.task_id.value)]
        tasks = self._port.core.tasks
        return [key for key, task in tasks.items() if task.live and framework_id in (None, key.framework_id)]

    def _find(self, framework_id: FrameworkId | None, task_id: str) -> TaskKey:
        """The one task that is meant, by its id or a unique beginning of it; of several launches the latest."""
        keys = self._port.core.find_tasks(task_id, framework_id)
        named = {(key.framework_id, key.task_id): key for key in keys}
        if not named:
            raise NotFound(f"no task {task_id!r} is known; see: edgerm ps --all")
        if len(named) > 1:
            choices = ", ".join("/".join(name) for name in list(named)[:CHOICES_SHOWN])
            raise Conflict(f"{len(named)} tasks are called {task_id!r}: {choices}: name one as FRAMEWORK/TASK")
        return next(iter(named.values()))


def _check_type(message: Call | operator_pb2.Call) -> None:
    if not message.HasField("type"):
        raise Invalid("the call has no type, or one that is not known")
    if not message.type:
        raise NotImplementedCall("calls of type UNKNOWN mean nothing")
    if isinstance(message, operator_pb2.Call):
        body = operator_pb2.Call.Type.Name(message.type).lower()
        if body != "get_offers" and not message.HasField(body):  # type: ignore[arg-type]
            raise Invalid(f"{body.upper()} without its body, {body}")


def _framework_id(
    call: operator_pb2.Call.KillTask
    | operator_pb2.Call.ReadLog
    | operator_pb2.Call.Explain
    | operator_pb2.Call.ReadStats,
) -> FrameworkId | None:
    return FrameworkId(call.framework_id.value) if call.HasField("framework_id") else None


def _version() -> infos_pb2.VersionInfo:
    return infos_pb2.VersionInfo(version=MESOS_VERSION, edgerm_version=EDGERM_VERSION)

"""The operator API's queries: one message in, one answer out, from memory.

What does not live here: requests and who may make them (`operator.py`), the pictures themselves (`views.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from aiohttp import web

from edgerm.wire.v1 import infos_pb2, master_pb2
from edgerm_master.api.metrics import Metrics
from edgerm_master.api.pictures import master_info
from edgerm_master.api.port import Port
from edgerm_master.api.versions import EDGERM_VERSION, MESOS_VERSION
from edgerm_master.api.views import Views
from edgerm_master.config import Config, flags

Call = master_pb2.Call
Response = master_pb2.Response


class Queries:
    """Answers the calls that only read."""

    def __init__(self, port: Port, views: Views, metrics: Metrics, settings: Config) -> None:
        self._port = port
        self._metrics = metrics
        self._start_s = time.time()
        self._flags = [infos_pb2.Flag(name=name, value=value) for name, value in flags(settings)]
        self._answers: dict[Call.Type.ValueType, Callable[[web.Request], Response]] = {
            Call.GET_HEALTH: lambda _: Response(get_health=Response.GetHealth(healthy=True)),
            Call.GET_VERSION: lambda _: Response(get_version=Response.GetVersion(version_info=_version())),
            Call.GET_FLAGS: lambda _: Response(get_flags=Response.GetFlags(flags=self._flags)),
            Call.GET_METRICS: lambda _: Response(get_metrics=self._get_metrics()),
            Call.GET_STATE: lambda _: Response(get_state=views.state()),
            Call.GET_AGENTS: lambda _: Response(get_agents=views.agents()),
            Call.GET_FRAMEWORKS: lambda _: Response(get_frameworks=views.frameworks()),
            Call.GET_TASKS: lambda _: Response(get_tasks=views.tasks()),
            Call.GET_ROLES: lambda _: Response(get_roles=views.roles()),
            Call.GET_EXECUTORS: lambda _: Response(get_executors=views.executors()),
            Call.GET_OPERATIONS: lambda _: Response(get_operations=Response.GetOperations()),
            Call.GET_MASTER: self._get_master,
        }

    def answer(self, message: Call, request: web.Request) -> Response | None:
        """The answer; None: this is no query that is built."""
        query = self._answers.get(message.type)
        if query is None:
            return None
        answer = query(request)
        answer.type = Response.Type.Value(Call.Type.Name(message.type))
        return answer

    def _get_metrics(self) -> Response.GetMetrics:
        """All at once: there is nothing to wait for, so the call's timeout never passes."""
        pairs = self._metrics.values().items()
        return Response.GetMetrics(metrics=[infos_pb2.Metric(name=name, value=value) for name, value in pairs])

    def _get_master(self, request: web.Request) -> Response:
        info = master_info(self._port.core, request)
        return Response(
            get_master=Response.GetMaster(master_info=info, start_time=self._start_s, elected_time=self._start_s)
        )


def _version() -> infos_pb2.VersionInfo:
    return infos_pb2.VersionInfo(version=MESOS_VERSION, edgerm_version=EDGERM_VERSION)

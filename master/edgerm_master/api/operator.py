"""The operator API as Mesos has it: `POST /api/v1`.

What lives here: the requests, and which of them change something. What does not: queries (`queries.py`), the stream of
events (`operator_stream.py`), and what Mesos has no call for (`own_calls.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web

from edgerm.core.errors import Invalid, NotImplementedCall
from edgerm.core.ids import FrameworkId
from edgerm.core.scheduler import Teardown
from edgerm.wire.content import decode, encode, negotiate
from edgerm.wire.v1 import master_pb2, operator_pb2
from edgerm_master.api import maintenance
from edgerm_master.api.access import Access, Action
from edgerm_master.api.http import PRINCIPAL, Route, read_body
from edgerm_master.api.metrics import Metrics
from edgerm_master.api.operator_stream import OperatorStreams
from edgerm_master.api.port import Port
from edgerm_master.api.queries import Queries
from edgerm_master.config import Limits

Call = master_pb2.Call
PATHS = ("/api/v1", "/api/v1/operator", "/master/api/v1", "/master/api/v1/operator")


class OperatorFace:
    """The operators' requests."""

    def __init__(
        self,
        port: Port,
        access: Access,
        queries: Queries,
        streams: OperatorStreams,
        metrics: Metrics,
        limits: Limits,
    ) -> None:
        self._port = port
        self._access = access
        self._queries = queries
        self._streams = streams
        self._metrics = metrics
        self._limits = limits
        self._maintenance = maintenance.MaintenanceCalls(port, access)

    def routes(self) -> Iterator[Route]:
        """What this face serves."""
        for path in PATHS:
            yield Route("POST", path, Action.READ_STATE, self.handle)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One Mesos call: a query is answered from memory, SUBSCRIBE with a stream."""
        media_type = negotiate(request.headers.getall("Accept", []))
        body = await read_body(request, self._limits.call_bytes)
        with self._metrics.reading("operator"):
            message = decode(Call, request.headers.get("Content-Type"), body)
            check_type(message)
        with self._metrics.counting("operator", Call.Type.Name(message.type)):
            if message.type != Call.SUBSCRIBE:
                return await self._answer(request, media_type, message)
        return await self._streams.serve(request, media_type)

    async def _answer(self, request: web.Request, media_type: str, message: Call) -> web.StreamResponse:
        if message.type == Call.TEARDOWN:
            return await self._teardown(request, message)
        if message.type in maintenance.CALLS:
            return await self._maintenance.carry_out(request, message)
        answer = self._queries.answer(message, request)
        if answer is None:
            raise NotImplementedCall(f"the operator call {Call.Type.Name(message.type)} is not built")
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


def check_type(message: Call | operator_pb2.Call) -> None:
    """Raises `Invalid` for a call without type or body, `NotImplementedCall` for one of type UNKNOWN."""
    if not message.HasField("type"):
        raise Invalid("the call has no type, or one that is not known")
    if not message.type:
        raise NotImplementedCall("calls of type UNKNOWN mean nothing")
    if isinstance(message, operator_pb2.Call):
        body = operator_pb2.Call.Type.Name(message.type).lower()
        if body != "get_offers" and not message.HasField(body):  # type: ignore[arg-type]
            raise Invalid(f"{body.upper()} without its body, {body}")

"""READ_LOG: a task's output, from its agent through the ephemeral lane to whoever reads it.

What does not live here: the lane (`api/upstreams.py`), where output is kept (the agent).
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from edgerm import logs
from edgerm.core.errors import EdgermError, Invalid
from edgerm.core.ids import TaskKey
from edgerm.core.link import Data
from edgerm.wire.content import encode
from edgerm.wire.recordio import frame
from edgerm.wire.v1 import operator_pb2
from edgerm_master.api.http import open_stream
from edgerm_master.api.upstream import Source
from edgerm_master.api.upstreams import Upstreams
from edgerm_master.api.viewer import Viewer
from edgerm_master.api.views import Views

FIRST_S = 2.0  # so long the answer's status waits for the agent's first word

log = logs.get("master.output")


class OutputReader:
    """Serves READ_LOG."""

    def __init__(self, upstreams: Upstreams, views: Views) -> None:
        self._upstreams = upstreams
        self._views = views

    async def serve(
        self, request: web.Request, media_type: str, key: TaskKey, call: operator_pb2.Call.ReadLog
    ) -> web.StreamResponse:
        """A stream of records until the output ends, or `max_bytes` were sent; a cut stream lacks its last chunk."""
        if call.stream == operator_pb2.STREAM_UNKNOWN:
            raise Invalid("READ_LOG of STREAM_UNKNOWN: use STDOUT or STDERR")
        record, _ = self._views.record(key)
        stderr = call.stream == operator_pb2.STDERR
        viewer = self._upstreams.view(Source(record.task.agent_id, key, stderr, call.follow), call.offset)
        first = asyncio.ensure_future(viewer.read())
        try:
            await asyncio.wait({first}, timeout=FIRST_S)
            if first.done():
                first.result()  # an error so early is a status
            response = await open_stream(request, media_type, {})
            try:
                await self._copy(viewer, first, response, call, media_type)
                await response.write_eof()
            except EdgermError as error:
                log.info("an output was cut short", task=str(key), reason=str(error))
                if request.transport is not None:
                    request.transport.abort()
            return response
        finally:
            first.cancel()
            viewer.close()

    async def _copy(
        self,
        viewer: Viewer,
        first: asyncio.Future[Data],
        response: web.StreamResponse,
        call: operator_pb2.Call.ReadLog,
        media_type: str,
    ) -> None:
        left = call.max_bytes if call.HasField("max_bytes") else None
        data = await first
        while True:
            content = data.data if left is None else data.data[:left]
            left = None if left is None else left - len(content)
            end = data.end and len(content) == len(data.data)
            message = operator_pb2.Response(
                type=operator_pb2.Response.READ_LOG,
                read_log=operator_pb2.Response.ReadLog(stream=call.stream, offset=data.offset, data=content, end=end),
            )
            await response.write(frame(encode(message, media_type)))
            if data.end or left == 0:
                return
            data = await viewer.read()

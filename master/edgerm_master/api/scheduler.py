"""The scheduler API: `POST /api/v1/scheduler` (Mesos v1; mesos-v1.md sections 1 to 3).

What lives here: the rules of the face, which all are checked in the turn in which the core gets the call. What does
not: what calls lead to (the core), how messages become values (the codec).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

from aiohttp import web

from edgerm import logs
from edgerm.core.alternatives import UndecidedTask
from edgerm.core.errors import Forbidden, Invalid, TooLarge, Unavailable
from edgerm.core.ids import FrameworkId, StreamId, check_id
from edgerm.core.resources import NOTHING
from edgerm.core.scheduler import (
    Accept,
    Decline,
    Error,
    Event,
    FrameworkSpec,
    Heartbeat,
    Subscribed,
    TaskSpec,
    UpdateFramework,
)
from edgerm.requests import current_request
from edgerm.wire.codec.event_bytes import event_to_bytes
from edgerm.wire.codec.scheduler import (
    Subscription,
    call_from_message,
    call_type,
    subscription_from_message,
)
from edgerm.wire.codec.tasks import Offloaded, offload
from edgerm.wire.content import decode, negotiate
from edgerm.wire.json import Ignored
from edgerm.wire.v1 import scheduler_pb2 as pb
from edgerm.wire.v1.infos_pb2 import FrameworkInfo
from edgerm_master.api import event_stream
from edgerm_master.api.access import Action
from edgerm_master.api.blobs import Blobs
from edgerm_master.api.event_stream import EventStream
from edgerm_master.api.http import Route, open_stream, read_body
from edgerm_master.api.metrics import Metrics
from edgerm_master.api.pictures import master_info
from edgerm_master.api.port import Port
from edgerm_master.config import Limits
from edgerm_master.core.effects import CloseStream, Tell, TellSoon
from edgerm_master.core.events import StreamClosed, Subscribe

STREAM_ID = "Mesos-Stream-Id"
DECLINED_AT_ONCE = 100  # offers
FRAMEWORK_INFO_BYTES_MAX = 64 * 1024  # it is stored in one row
log = logs.get("master.scheduler")


class SchedulerFace:
    """The frameworks' requests and streams."""

    def __init__(self, port: Port, blobs: Blobs, metrics: Metrics, limits: Limits) -> None:
        self._port = port
        self._blobs = blobs
        self._metrics = metrics
        self._limits = limits
        self._streams: dict[StreamId, EventStream[Event]] = {}
        self._specs: dict[StreamId, FrameworkSpec] = {}  # whom each of them speaks to
        self._told: set[str] = set()  # calls that are not built, each logged once
        port.on(Tell, self._tell)
        port.on(TellSoon, self._tell)
        port.on(CloseStream, self._end)
        metrics.count_streams("scheduler", lambda: len(self._streams))

    def routes(self) -> Iterator[Route]:
        """What this face serves."""
        for above in ("", "/master"):
            yield Route("POST", f"{above}/api/v1/scheduler", Action.SCHEDULE, self.handle)

    def close(self) -> None:
        """End all streams; the core is not told, since no framework left."""
        for stream in self._streams.values():
            stream.end()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One call: SUBSCRIBE answers with a stream, everything else with 202 once it is durable."""
        body = await read_body(request, self._limits.call_bytes)
        ignored = Ignored()
        kind, most = request.headers.get("Content-Type"), self._limits.call_bytes
        with self._metrics.reading("scheduler"):
            message = decode(pb.Call, kind, body, max_bytes=most, ignored=ignored)
        if ignored.total:
            self._metrics.ignored_names.inc(ignored.total)
        name = call_type(message)
        if message.type == pb.Call.SUBSCRIBE:
            return await self._subscribe(request, message)
        with self._metrics.counting("scheduler", name):
            return await self._call(request, message, name)

    # --- calls ---

    async def _call(self, request: web.Request, message: pb.Call, name: str) -> web.StreamResponse:
        framework_id = self._check_caller(request, message, name)
        call, not_built = call_from_message(message)
        for unknown in not_built:
            self._note_not_built(unknown)
        if call is None:
            return web.Response(status=202)
        if isinstance(call, Accept):
            call, big = _offload(call)
            for blob in big:
                await self._blobs.keep(blob.digest, blob.content)
            if big:
                self._check_caller(request, message, name)  # it may have failed over meanwhile
        if isinstance(call, UpdateFramework):
            return await self._update(framework_id, message, call)
        if isinstance(call, Decline):
            await self._decline(request, message, framework_id, call)
        else:
            await self._port.call(framework_id, call)
        return web.Response(status=202)

    async def _decline(self, request: web.Request, message: pb.Call, framework_id: FrameworkId, call: Decline) -> None:
        """Thousands of offers are given back in parts, as if each were a call: between them others have their turn."""
        for first in range(0, len(call.offer_ids), DECLINED_AT_ONCE):
            if first:
                await asyncio.sleep(0)
                self._check_caller(request, message, "DECLINE")  # it may have failed over meanwhile
            some = call.offer_ids[first : first + DECLINED_AT_ONCE]
            await self._port.call(framework_id, replace(call, offer_ids=some))

    async def _update(self, framework_id: FrameworkId, message: pb.Call, call: UpdateFramework) -> web.Response:
        """UPDATE_FRAMEWORK: carried out whole and durable, 200, or refused whole, 400."""
        _check_size(message.update_framework.framework_info)
        why = self._port.core.fault_of_update(framework_id, call)
        if why:
            raise Invalid(why)
        stream = self._port.core.stream_of(framework_id)
        if stream in self._specs:
            self._specs[stream] = call.spec
        await self._port.call(framework_id, call)
        return web.Response(status=200)

    def _check_caller(self, request: web.Request, message: pb.Call, name: str) -> FrameworkId:
        """The framework, if it is subscribed on the stream that it names."""
        if not message.HasField("framework_id"):
            raise Invalid(f"{name} without framework_id")
        framework_id = FrameworkId(message.framework_id.value)
        given = request.headers.getall(STREAM_ID, [])
        if not given:
            raise Invalid(f"header {STREAM_ID} is missing: send the one that SUBSCRIBE was answered with")
        if not self._port.core.knows(framework_id):
            raise Invalid(f"framework {framework_id!r} is not known here: SUBSCRIBE first")
        stream = self._port.core.stream_of(framework_id)
        if stream is None:
            raise Forbidden(f"framework {framework_id!r} is not subscribed now: SUBSCRIBE again with this id")
        if set(given) != {stream}:
            raise Invalid(f"{STREAM_ID} {given[0][:80]!r} is not that of the framework's present subscription")
        return framework_id

    def _note_not_built(self, name: str) -> None:
        self._metrics.not_built.labels(name).inc()
        if name not in self._told:
            self._told.add(name)
            log.warning("a known call that is not built was accepted and ignored", call=name)

    # --- streams ---

    async def _subscribe(self, request: web.Request, message: pb.Call) -> web.StreamResponse:
        media_type = negotiate(request.headers.getall("Accept", []))
        if STREAM_ID in request.headers:
            raise Invalid(f"SUBSCRIBE must not carry the header {STREAM_ID}")
        with self._metrics.counting("scheduler", "SUBSCRIBE"):
            _check_framework(message)
        if self._port.closed:
            await asyncio.sleep(event_stream.REFUSED_HOLD_S)
            raise Unavailable("the master is stopping: subscribe again in a moment")
        stream_id = StreamId(str(uuid4()))
        asked, refused = _subscription(message)
        self._specs[stream_id] = FrameworkSpec("") if asked is None else asked.spec
        info = master_info(self._port.core, request)
        stream = EventStream[Event](
            lambda event: event_to_bytes(event, self._specs[stream_id], media_type, info),
            self._limits.stream_bytes,
            Heartbeat(),
        )
        self._streams[stream_id] = stream
        try:
            response = await open_stream(request, media_type, {STREAM_ID: stream_id})
            if asked is None:
                _send(stream, Error(refused))
                stream.end()
            else:
                known, refuses, only = asked.framework_id, asked.suppressed_roles, asked.constraints
                self._port.post(Subscribe(stream_id, asked.spec, known, refuses, only, cause=current_request()))
            await stream.write(request, response)
            return response
        finally:
            self._forget(stream_id, stream)

    def _forget(self, stream_id: StreamId, stream: EventStream[Event]) -> None:
        """The stream is over, whoever ended it."""
        del self._streams[stream_id], self._specs[stream_id]
        stream.stop()
        if stream.broken:
            self._metrics.streams_broken.labels("scheduler").inc()
            log.warning("closed a stream", stream=stream_id, reason=stream.broken)
        if not stream.ended:
            self._port.post(StreamClosed(stream_id))

    def _tell(self, effect: Tell | TellSoon) -> None:
        stream = self._streams.get(effect.stream)
        if stream is not None:
            _send(stream, effect.event)

    def _end(self, effect: CloseStream) -> None:
        stream = self._streams.get(effect.stream)
        if stream is not None:
            stream.end()


def _send(stream: EventStream[Event], event: Event) -> None:
    stream.send(event)
    if type(event) is Subscribed:
        stream.begin()
    elif type(event) is Error:
        stream.refuse()


def _check_framework(message: pb.Call) -> None:
    """Refuse what cannot be stored in a row."""
    _check_size(message.subscribe.framework_info)
    if message.HasField("framework_id"):
        check_id("framework id", message.framework_id.value)


def _check_size(info: FrameworkInfo) -> None:
    size = info.ByteSize()
    if size > FRAMEWORK_INFO_BYTES_MAX:
        raise Invalid(f"framework_info has {size} bytes, at most {FRAMEWORK_INFO_BYTES_MAX} are allowed")


def _subscription(message: pb.Call) -> tuple[Subscription | None, str]:
    """What is asked for, or why it is refused: a framework is told so on its stream, not by a status."""
    try:
        return subscription_from_message(message), ""
    except Invalid as error:
        return None, str(error)


def _offload(call: Accept) -> tuple[Accept, list[Offloaded]]:
    """The call with its big TaskInfos as blobs, and those."""
    tasks: list[TaskSpec] = []
    big: list[Offloaded] = []
    for task in call.tasks:
        if isinstance(task, UndecidedTask):
            builds = tuple(replace(build, task=_offload_task(build.task, big)) for build in task.alternatives)
            tasks.append(replace(task, alternatives=builds))
        else:
            tasks.append(_offload_task(task, big))
    return replace(call, tasks=tuple(tasks)), big


def _offload_task(task: TaskSpec, big: list[Offloaded]) -> TaskSpec:
    try:
        blob = None if task.fault else offload(task)
    except TooLarge as error:
        return replace(task, resources=NOTHING, fault=str(error))
    if blob is None:
        return task
    big.append(blob)
    return blob.spec

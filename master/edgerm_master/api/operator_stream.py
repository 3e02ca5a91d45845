"""SUBSCRIBE of the operator API: the whole state, then every change of it, as Mesos tells them.

No change is lost or told twice: the state is read in the turn in which the core learns of the watcher, and the core
says (`Watching`) where in the order of changes that was. What does not live here: what a change is
(`edgerm_master.core`), bounds on slow readers (`event_stream.py`), pictures (`views.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

from aiohttp import web

from edgerm import logs
from edgerm.core.errors import Unavailable
from edgerm.core.ids import StreamId
from edgerm.wire.codec.infos import framework_info
from edgerm.wire.content import encode
from edgerm.wire.v1 import basics_pb2, master_pb2
from edgerm_master.api import event_stream
from edgerm_master.api.event_stream import EventStream
from edgerm_master.api.http import open_stream
from edgerm_master.api.metrics import Metrics
from edgerm_master.api.pictures import status_without_data, task_message
from edgerm_master.api.port import Port
from edgerm_master.api.views import Views
from edgerm_master.core.changes import (
    AgentAdded,
    AgentRemoved,
    Change,
    FrameworkAdded,
    FrameworkRemoved,
    FrameworkUpdated,
    TaskAdded,
    TaskUpdated,
)
from edgerm_master.core.effects import Noticed, Watching
from edgerm_master.core.events import Watch, WatchEnded

Event = master_pb2.Event
SUBSCRIBERS_MAX = 1000
log = logs.get("master.operator")


class _Watcher:
    """One subscriber: before `begin` it has seen nothing, afterwards everything."""

    def __init__(self, media_type: str, max_bytes: int, first: Event) -> None:
        self.media_type = media_type
        self._first = encode(first, media_type)
        heartbeat = encode(Event(type=Event.HEARTBEAT), media_type)
        self.stream = EventStream[bytes](lambda record: record, max_bytes, heartbeat)
        self.begun = False

    def begin(self) -> None:
        self.begun = True
        self.stream.send(self._first)
        self._first = b""
        self.stream.begin()


class OperatorStreams:
    """All subscribers. At most SUBSCRIBERS_MAX: for one more the oldest goes, as in Mesos."""

    def __init__(self, port: Port, views: Views, metrics: Metrics, max_bytes: int) -> None:
        self._port = port
        self._views = views
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._watchers: dict[StreamId, _Watcher] = {}  # oldest first
        self._numbers = count(1)
        port.on(Watching, self._begin)
        port.on(Noticed, self._tell)
        metrics.count_streams("operator", lambda: len(self._watchers))

    async def serve(self, request: web.Request, media_type: str) -> web.StreamResponse:
        """Answer SUBSCRIBE until the reader leaves, is too slow, or is the oldest of too many."""
        if self._port.closed:
            await asyncio.sleep(event_stream.REFUSED_HOLD_S)
            raise Unavailable("the master is stopping: subscribe again in a moment")
        response = await open_stream(request, media_type, {})
        stream_id = StreamId(f"operator-{next(self._numbers)}")
        stream = self._join(stream_id, media_type)
        try:
            await stream.write(request, response)
            return response
        finally:
            self._forget(stream_id, stream)

    def close(self) -> None:
        """End all streams."""
        for watcher in self._watchers.values():
            watcher.stream.end()

    def _join(self, stream_id: StreamId, media_type: str) -> EventStream[bytes]:
        """In one turn: what the watcher sees first, and the core's knowing of it."""
        standing = [watcher for watcher in self._watchers.values() if not watcher.stream.broken]
        if len(standing) >= SUBSCRIBERS_MAX:
            standing[0].stream.cut(f"it was the oldest of {SUBSCRIBERS_MAX} subscribers, and there is one more")
        watcher = _Watcher(media_type, self._max_bytes, subscribed(self._views))
        self._watchers[stream_id] = watcher
        self._port.post(Watch(stream_id))
        return watcher.stream

    def _forget(self, stream_id: StreamId, stream: EventStream[bytes]) -> None:
        del self._watchers[stream_id]
        stream.stop()
        if stream.broken:
            self._metrics.streams_broken.labels("operator").inc()
            log.warning("closed a stream", stream=stream_id, reason=stream.broken)
        self._port.post(WatchEnded())

    # --- what the core says ---

    def _begin(self, effect: Watching) -> None:
        watcher = self._watchers.get(effect.stream)
        if watcher is not None:
            watcher.begin()

    def _tell(self, effect: Noticed) -> None:
        """Write the event once for each encoding that somebody reads."""
        watchers = [watcher for watcher in self._watchers.values() if watcher.begun]
        written: dict[str, bytes] = {}
        try:
            event = event_of(effect.change, self._views) if watchers else None
            if event is not None:
                written = {kind: encode(event, kind) for kind in {watcher.media_type for watcher in watchers}}
        except Exception as error:  # whoever looks on must not stop the master
            for watcher in watchers:
                watcher.stream.cut(f"an event could not be written: {error!r}")
            return
        for watcher in watchers:
            if watcher.media_type in written:
                watcher.stream.send(written[watcher.media_type])


def subscribed(views: Views) -> Event:
    """The first event: the state as it is now."""
    return Event(
        type=Event.SUBSCRIBED,
        subscribed=Event.Subscribed(get_state=views.state(), heartbeat_interval_seconds=event_stream.HEARTBEAT_S),
    )


def event_of(change: Change, views: Views) -> Event | None:
    """The change as Mesos tells it; None for what it has no event for."""
    write = _WRITERS.get(type(change))
    return write(change, views) if write is not None else None


def _task_added(change: TaskAdded, views: Views) -> Event:
    task = task_message(change.record, change.run, (), views.user_of(change.record))
    return Event(type=Event.TASK_ADDED, task_added=Event.TaskAdded(task=task))


def _task_updated(change: TaskUpdated, views: Views) -> Event:
    told = Event.TaskUpdated(
        framework_id=basics_pb2.FrameworkID(value=change.key.framework_id),
        status=status_without_data(change.status),
        state=change.state.value,  # type: ignore[arg-type]
    )
    return Event(type=Event.TASK_UPDATED, task_updated=told)


def _agent_added(change: AgentAdded, views: Views) -> Event:
    return Event(type=Event.AGENT_ADDED, agent_added=Event.AgentAdded(agent=views.agent(change.agent)))


def _agent_removed(change: AgentRemoved, views: Views) -> Event:
    told = Event.AgentRemoved(agent_id=basics_pb2.AgentID(value=change.agent_id))
    return Event(type=Event.AGENT_REMOVED, agent_removed=told)


def _framework_added(change: FrameworkAdded, views: Views) -> Event:
    told = Event.FrameworkAdded(framework=views.framework(change.framework))
    return Event(type=Event.FRAMEWORK_ADDED, framework_added=told)


def _framework_updated(change: FrameworkUpdated, views: Views) -> Event:
    told = Event.FrameworkUpdated(framework=views.framework(change.framework))
    return Event(type=Event.FRAMEWORK_UPDATED, framework_updated=told)


def _framework_removed(change: FrameworkRemoved, views: Views) -> Event:
    info = framework_info(change.framework.spec, change.framework.framework_id)
    return Event(type=Event.FRAMEWORK_REMOVED, framework_removed=Event.FrameworkRemoved(framework_info=info))


_WRITERS: dict[type, Callable[..., Event]] = {
    TaskAdded: _task_added,
    TaskUpdated: _task_updated,
    AgentAdded: _agent_added,
    AgentRemoved: _agent_removed,
    FrameworkAdded: _framework_added,
    FrameworkUpdated: _framework_updated,
    FrameworkRemoved: _framework_removed,
}

"""One task's output on its way from its agent to all who read it: one stream at the agent, however many viewers.

What does not live here: which outputs are read (`upstreams.py`), the lane (`streams.py`), a viewer's queue
(`viewer.py`).

A viewer who comes later is served from a window of the latest bytes. One who wants more, or counts from the end, makes
the stream begin again; the others skip what they have. Credit follows the viewer who has read furthest: it is granted
at most `CREDIT_BYTES` ahead. So a single viewer loses nothing, and of several a slow one has a gap when it is more than
the window behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.link import Credit, Data, OpenLog, Stats
from edgerm_master.api.paces import Paces
from edgerm_master.api.streams import AgentStream, Streams
from edgerm_master.api.viewer import Viewer
from edgerm_master.api.window import Window, beyond

CREDIT_BYTES = 256 * 1024  # that an agent may send ahead of the viewer who has read furthest


class Source(NamedTuple):
    """What is read. One who follows and one who looks do not end at the same place."""

    agent_id: AgentId
    key: TaskKey
    stderr: bool
    follow: bool


class Upstream:
    """One output from its agent, and who reads it.

    `window_bytes` tells what it may keep for viewers to come; `over` is told when it has ended.
    """

    def __init__(
        self,
        source: Source,
        streams: Streams,
        paces: Paces,
        window_bytes: Callable[[], int],
        over: Callable[[Upstream], None],
    ) -> None:
        self.source = source
        self._streams = streams
        self._paces = paces
        self._window_bytes = window_bytes
        self._over = over
        self._viewers: list[Viewer] = []
        self._window: Window | None = None
        self._stream: AgentStream | None = None
        self._asked = 0  # the offset that the present stream was opened with
        self._asker: Viewer | None = None  # who counts from the end, until the present stream tells where that is
        self._sent_to: int | None = None  # how far the present stream has come; None: it has said nothing yet
        self._credit_bytes = 0  # that the agent may still send
        self._timer: asyncio.TimerHandle | None = None

    # --- viewers come and go ---

    def join(self, viewer: Viewer) -> None:
        """Serve this viewer too. Raises `Unavailable`."""
        self._viewers.append(viewer)
        if self._window is not None and viewer.next is not None and viewer.next >= self._window.start:
            self._fill(viewer)
        elif self._asker is None and not self._is_coming(viewer):
            self._begin(viewer if viewer.next is None else None)

    def leave(self, viewer: Viewer) -> None:
        """Serve this viewer no longer."""
        if viewer not in self._viewers:
            return
        self._viewers.remove(viewer)
        if not self._viewers:
            self._end()
        elif viewer is self._asker and not self._ask_on():
            self._begin()

    def has_read(self) -> None:
        """A viewer has read, and so there may be more."""
        self._grant()

    def _is_coming(self, viewer: Viewer) -> bool:
        """Whether the stream, which was just opened, will bring what this viewer wants."""
        return (
            self._stream is not None
            and self._sent_to is None
            and viewer.next is not None
            and viewer.next >= self._asked
        )

    def _fill(self, viewer: Viewer) -> None:
        """Hand it what is here already."""
        assert self._window is not None
        for data in self._window.since(viewer.next or 0):
            viewer.put(data)

    # --- the stream at the agent ---

    def _begin(self, asker: Viewer | None = None) -> None:
        """Open the stream, anew if there is one: for one who counts from the end, else for all others."""
        if self._stream is not None:
            self._stream.close("begun again elsewhere")
        self._stream = stream = self._streams.open(self.source.agent_id, self._take, self._fail)
        self._asker, self._sent_to = asker, None
        known = [viewer.next for viewer in self._viewers if viewer.next is not None]
        self._asked = -asker.from_end_bytes if asker is not None else min(known)
        self._credit_bytes = self._afford(self._credit_max)
        source = self.source
        stream.send(OpenLog(source.key, source.stderr, self._asked, source.follow, self._credit_bytes))
        self._grant()

    def _take(self, body: Data | Stats | Credit) -> None:
        if not isinstance(body, Data) or not (body.data or body.end):
            return  # it only says that the agent lives
        assert self._stream is not None
        fresh = beyond(body, self._sent_to)
        if fresh is None and not body.end:
            return  # it came before: frames are sent until they are known to be here
        self._credit_bytes -= len(fresh.data) if fresh is not None else 0
        if self._credit_bytes < 0:
            self._stream.fail(f"agent {self.source.agent_id} sent more than it was allowed to")
            return
        first, self._sent_to = self._sent_to is None, body.offset + len(body.data)
        if not first or self._place(body.offset):
            self._hand_out(body)
            self._grant()  # nobody may be reading: those who are further already wait until it is there

    def _place(self, first: int) -> bool:
        """The stream begins here. False: now that this is known it has to begin elsewhere."""
        window, asker = self._window, self._asker
        if window is not None and (window.end is None or first < window.start):
            window = None
        if asker is None:
            window = window or Window(first)
            window.start = min(window.start, self._asked)
        else:
            asker.begin_at(first)
            if window is None or window.end is None or first > window.end:  # what lies between is not lost at the agent
                window = Window(first)
        self._window = window
        for viewer in self._viewers:
            if viewer.next is not None and viewer.next >= window.start:
                self._fill(viewer)
        return asker is None or not self._ask_on()

    def _ask_on(self) -> bool:
        """One who counted from the end is served or gone; True: the stream begins again for others."""
        self._asker = None
        unplaced = next((viewer for viewer in self._viewers if viewer.next is None), None)
        if unplaced is not None:
            self._begin(unplaced)
            return True
        start = None if self._window is None else self._window.start
        if any(start is None or (viewer.next or 0) < start for viewer in self._viewers):
            self._begin()
            return True
        return False

    def _hand_out(self, data: Data) -> None:
        assert self._window is not None
        self._window.add(data, self._window_bytes())
        for viewer in self._viewers:
            viewer.put(data)
        if data.end:
            for viewer in self._viewers:
                viewer.put_end(data.offset + len(data.data))
            assert self._stream is not None
            self._stream.done()
            self._end()

    def _fail(self, why: str) -> None:
        """The agent has ended the stream, or is lost."""
        for viewer in self._viewers:
            viewer.fail(why)
        self._end()

    def _end(self) -> None:
        self._viewers.clear()
        self._over(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._stream is not None:
            self._stream.close()

    # --- credit ---

    @property
    def _credit_max(self) -> int:
        pace = self._paces.of(self.source.agent_id)
        return CREDIT_BYTES if pace is None else min(CREDIT_BYTES, pace.burst_bytes)

    def _grant(self) -> None:
        """Let the agent send on, up to so far ahead of the viewer who has read furthest."""
        if self._timer is not None or self._stream is None or not self._stream.open:
            return
        read_to = max((viewer.read_to for viewer in self._viewers if viewer.read_to is not None), default=0)
        ahead_bytes = 0 if self._sent_to is None else max(0, self._sent_to - read_to)
        wanted = self._credit_max - ahead_bytes - self._credit_bytes
        if wanted < self._credit_max // 2:
            return
        granted = self._afford(wanted)
        if granted:
            self._credit_bytes += granted
            self._stream.send(Credit(granted))
        else:
            self._wait_for_pace()

    def _afford(self, wanted_bytes: int) -> int:
        pace = self._paces.of(self.source.agent_id)
        now_s = asyncio.get_running_loop().time()
        return wanted_bytes if pace is None else pace.take(wanted_bytes, pace.burst_bytes // 2, now_s)

    def _wait_for_pace(self) -> None:
        pace = self._paces.of(self.source.agent_id)
        if pace is None:
            return
        loop = asyncio.get_running_loop()

        def go_on() -> None:
            self._timer = None
            self._grant()

        self._timer = loop.call_later(pace.wait_s(pace.burst_bytes // 2, loop.time()), go_on)

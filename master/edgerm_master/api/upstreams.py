"""Which outputs of tasks are being read, and by how many; who reads the same shares one stream at the agent.

What does not live here: that stream (`upstream.py`), the call that asks for an output (`output.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from edgerm.core.errors import Unavailable
from edgerm_master.api.paces import Paces
from edgerm_master.api.streams import Streams
from edgerm_master.api.upstream import Source, Upstream
from edgerm_master.api.viewer import WINDOW_BYTES, Viewer

WINDOWS_BYTES = 64 << 20  # of all outputs together
VIEWERS_MAX = 1000


class Upstreams:
    """All outputs that are being read; agents behind CoAP are asked for at most `coap_bytes_s`."""

    def __init__(self, streams: Streams, coap_bytes_s: int) -> None:
        self.streams = streams
        self._paces = Paces(streams, coap_bytes_s)
        self._running: dict[Source, Upstream] = {}
        self._viewers = 0

    def view(self, source: Source, offset: int) -> Viewer:
        """Read an output from `offset` on (negative: so many before its end); the caller closes the viewer.

        Raises `Unavailable`.
        """
        if self._viewers >= VIEWERS_MAX:
            raise Unavailable(f"{VIEWERS_MAX} outputs are being read already: try again later")
        upstream = self._running.get(source)
        if upstream is None:
            upstream = Upstream(source, self.streams, self._paces, self._window_bytes, self._over)
            self._running[source] = upstream
        viewer = Viewer(offset, upstream.has_read, self._leaver(upstream))
        self._viewers += 1
        try:
            upstream.join(viewer)
        except Unavailable:
            viewer.close()
            raise
        return viewer

    def _leaver(self, upstream: Upstream) -> Callable[[Viewer], None]:
        def leave(viewer: Viewer) -> None:
            self._viewers -= 1
            upstream.leave(viewer)

        return leave

    def _over(self, upstream: Upstream) -> None:
        """Who comes now begins a new one."""
        if self._running.get(upstream.source) is upstream:
            del self._running[upstream.source]

    def _window_bytes(self) -> int:
        return min(WINDOW_BYTES, WINDOWS_BYTES // max(1, len(self._running)))

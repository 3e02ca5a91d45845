"""What anybody may look at: `/version`, `/health`, `/redirect`, `/metrics`, `/metrics/snapshot`.

What does not live here: the operator API.
"""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web

from edgerm_master.api.access import Action
from edgerm_master.api.http import Route, local_address
from edgerm_master.api.metrics import CONTENT_TYPE, Metrics
from edgerm_master.api.versions import EDGERM_VERSION, MESOS_VERSION


class LookFace:
    """Requests without a body."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def routes(self) -> Iterator[Route]:
        """What this face serves."""
        for above in ("", "/master"):
            for method in ("GET", "HEAD"):
                yield Route(method, f"{above}/version", Action.LOOK, self.version)
                yield Route(method, f"{above}/health", Action.LOOK, self.health)
                yield Route(method, f"{above}/redirect", Action.LOOK, self.redirect)
        yield Route("GET", "/metrics", Action.LOOK, self.metrics)
        yield Route("GET", "/metrics/snapshot", Action.LOOK, self.snapshot)

    async def version(self, request: web.Request) -> web.StreamResponse:
        """Which Mesos we speak, and which edgerm this is."""
        return web.json_response({"version": MESOS_VERSION, "edgerm_version": EDGERM_VERSION})

    async def health(self, request: web.Request) -> web.StreamResponse:
        """200 while the event loop turns."""
        return web.Response()

    async def redirect(self, request: web.Request) -> web.StreamResponse:
        """307 to the leading master, which is this one: where it listens, whatever the request calls it."""
        host, port = local_address(request)
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return web.Response(status=307, headers={"Location": f"//{place}"})

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """Prometheus' text format."""
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def snapshot(self, request: web.Request) -> web.StreamResponse:
        """Mesos' names with their values, as one JSON object."""
        return web.json_response(self._metrics.values())

"""What anybody on this box may look at: `GET /health` and `GET /version`, on loopback only."""

from __future__ import annotations

import errno
from importlib.metadata import version
from typing import Final

from aiohttp import web

from edgerm.core.errors import Unavailable

HOST: Final = "127.0.0.1"
MESOS_VERSION: Final = "1.11.0"
EDGERM_VERSION: Final = version("edgerm")
KEEP_ALIVE_S: Final = 10 * 365 * 86_400.0  # idle connections stay open, as at the master


class LookFace:
    """A small HTTP server."""

    def __init__(self) -> None:
        app = web.Application()
        app.router.add_get("/health", self.health)
        app.router.add_get("/version", self.version)
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=KEEP_ALIVE_S, shutdown_timeout=1.0)

    async def listen(self, port: int) -> int:
        """Serve on this port of loopback, 0 for a free one; answers the port. Raises `Unavailable`."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, HOST, port).start()
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
            raise Unavailable(f"port {port} {why}: choose another with --port, 0 picks a free one") from None
        chosen: int = self._runner.addresses[0][1]
        return chosen

    async def close(self) -> None:
        """Stop serving."""
        await self._runner.cleanup()

    async def health(self, request: web.Request) -> web.Response:
        """200 while the event loop turns."""
        return web.Response()

    async def version(self, request: web.Request) -> web.Response:
        """Which Mesos we speak, and which edgerm this is."""
        return web.json_response({"version": MESOS_VERSION, "edgerm_version": EDGERM_VERSION})

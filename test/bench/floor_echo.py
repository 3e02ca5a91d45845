"""The floor of a beat: a bare aiohttp server that reads a body and answers with one of a given size."""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web


async def main(answer_bytes: int) -> None:
    """Serve until the process is ended."""
    headers = {"Content-Type": "application/x-protobuf"}

    async def echo(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=bytes(answer_bytes), headers=headers)

    app = web.Application()
    app.router.add_post("/link/v1/beat", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"ready http=http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(int(sys.argv[1])))

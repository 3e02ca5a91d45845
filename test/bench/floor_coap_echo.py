"""The floor of a beat over CoAP: a bare aiocoap resource that reads a payload and answers with one of a given size."""

from __future__ import annotations

import asyncio
import sys

from aiocoap.message import Message
from aiocoap.numbers import CHANGED
from aiocoap.protocol import Context
from aiocoap.resource import Resource, Site


class Echo(Resource):
    """Answers every POST alike."""

    def __init__(self, answer_bytes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._answer = bytes(answer_bytes)

    async def needs_blockwise_assembly(self, request: Message) -> bool:
        """Not: neither does the master's resource, and it costs."""
        del request
        return False

    async def render_post(self, request: Message) -> Message:
        """2.04."""
        del request
        return Message(code=CHANGED, payload=self._answer)


async def main(answer_bytes: int, port: int) -> None:
    """Serve until the process is ended."""
    site = Site()
    site.add_resource(["b"], Echo(answer_bytes))
    await Context.create_server_context(site, bind=("127.0.0.1", port))
    print(f"ready coap=coap://127.0.0.1:{port}", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))

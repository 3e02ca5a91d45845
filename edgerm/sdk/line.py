"""One subscription over HTTP: its stream of events, and the calls made under its stream id.

What does not live here: when to subscribe again, and what events and calls mean (the session machine).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from edgerm.core.errors import Code, EdgermError, Invalid
from edgerm.core.scheduler import Acknowledge, Call, FrameworkSpec, Subscribed, UpdateFramework
from edgerm.requests import with_request
from edgerm.sdk.core.values import Broke, Happening, Heard, Refused, Subscribe
from edgerm.transport.http_client import HttpClient
from edgerm.wire.codec.scheduler_client import call_to_message, event_from_message, subscribe_message
from edgerm.wire.content import decode, encode
from edgerm.wire.recordio import Decoder
from edgerm.wire.v1 import scheduler_pb2

PATH = "/api/v1/scheduler"
STREAM_ID = "Mesos-Stream-Id"
EVENT_BYTES_MAX = 64 << 20
ACKNOWLEDGERS = 8
UNCERTAIN = (Code.UNAVAILABLE, Code.INTERNAL)  # whether anything was done, and whether it would be next time


class Line:
    """Calls keep their order, one at a time; acknowledgements go beside them, a few at once."""

    def __init__(
        self,
        client: HttpClient,
        spec: FrameworkSpec,
        media_type: str,
        subscribe: Subscribe,
        happen: Callable[[Happening], None],
    ) -> None:
        self.number = subscribe.stream
        self._client = client
        self._spec = spec
        self._media_type = media_type
        self._subscribe = subscribe
        self._happen = happen
        self._framework_id = subscribe.framework_id
        self._headers: dict[str, str] = {"Content-Type": media_type, "Accept": media_type}
        self._calls: asyncio.Queue[Call | None] = asyncio.Queue()
        self._acknowledgements: asyncio.Queue[Call | None] = asyncio.Queue()
        self._broken = ""
        self._left = False
        self._listener: asyncio.Task[None] | None = None
        self._whole: asyncio.Task[None] | None = None

    def start(self, ended: Callable[[Line], None]) -> None:
        """Subscribe; `ended` is called once when everything here has come to its end."""
        self._listener = asyncio.create_task(self._listen())
        self._whole = asyncio.create_task(self._run())
        self._whole.add_done_callback(lambda _: ended(self))

    def make(self, call: Call) -> None:
        """Make a call after those before it."""
        (self._acknowledgements if isinstance(call, Acknowledge) else self._calls).put_nowait(call)

    def leave(self) -> None:
        """Close the stream once the calls made before are done; idempotent."""
        if not self._left:
            self._left = True
            self._calls.put_nowait(None)
            for _ in range(ACKNOWLEDGERS):
                self._acknowledgements.put_nowait(None)

    async def cancel(self) -> None:
        """Stop at once."""
        if self._whole is not None:
            self._whole.cancel()
            await asyncio.wait({self._whole})

    async def _run(self) -> None:
        assert self._listener is not None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send(self._calls))
                for _ in range(ACKNOWLEDGERS):
                    group.create_task(self._send(self._acknowledgements))
        finally:
            self._listener.cancel()
            await asyncio.wait({self._listener})

    # --- events ---

    async def _listen(self) -> None:
        opened = False
        try:
            asked = self._subscribe
            message = subscribe_message(self._spec, asked.framework_id, asked.suppressed_roles, asked.constraints)
            async with self._client.stream(PATH, encode(message, self._media_type), self._headers) as stream:
                self._headers[STREAM_ID] = _stream_id(stream.headers)
                opened = True
                decoder = Decoder(EVENT_BYTES_MAX)
                async for chunk in stream.chunks:
                    for record in decoder.feed(chunk):
                        self._hear(record)
            why, final = "the master closed the stream", False
        except EdgermError as error:
            why, final = str(error), not opened and error.code not in UNCERTAIN
        except Exception as error:  # a fault of ours would only come again
            why, final = f"a fault of the SDK: {type(error).__name__}: {error}", True
        self._broken = why
        self._happen(Broke(self.number, why, final))

    def _hear(self, record: bytes) -> None:
        message = decode(scheduler_pb2.Event, self._media_type, record, max_bytes=EVENT_BYTES_MAX)
        event = event_from_message(message, self._spec)
        if event is None:
            return
        if isinstance(event, Subscribed):
            self._framework_id = event.framework_id
        self._happen(Heard(self.number, event))

    # --- calls ---

    async def _send(self, calls: asyncio.Queue[Call | None]) -> None:
        while (call := await calls.get()) is not None:
            if self._broken:
                self._happen(Refused(self.number, call, self._broken))
                continue
            try:
                await self._post(call)
            except EdgermError as error:
                self._failed(call, error)
            except Exception as error:  # it could not be written: nothing was sent
                self._happen(Refused(self.number, call, f"a fault of the SDK: {type(error).__name__}: {error}"))

    def _failed(self, call: Call, error: EdgermError) -> None:
        """A clear no changed nothing; after anything else nobody knows, and the next stream reconciles."""
        if error.code in UNCERTAIN:
            self._broken = self._broken or str(error)
            self._happen(Broke(self.number, str(error)))
        else:
            self._happen(Refused(self.number, call, with_request(error)))

    async def _post(self, call: Call) -> None:
        if self._framework_id is None:
            raise Invalid("a call before the framework is subscribed")
        message = call_to_message(call, self._framework_id)
        if isinstance(call, UpdateFramework):
            self._spec = call.spec  # offers may come in another form from here on
        await self._client.request("POST", PATH, encode(message, self._media_type), self._headers)


def _stream_id(headers: Mapping[str, str]) -> str:
    value = headers.get(STREAM_ID)
    if not value:
        raise Invalid(f"whoever answered SUBSCRIBE is no master: the header {STREAM_ID} is missing")
    return value

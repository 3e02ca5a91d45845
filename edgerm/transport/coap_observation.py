"""Answers and notifications as aiocoap sends them.

What does not live here: when somebody is told something, and what.
"""

from __future__ import annotations

from collections.abc import Callable

from aiocoap.message import Message
from aiocoap.numbers import ContentFormat
from aiocoap.numbers.constants import Reliable
from aiocoap.pipe import Pipe

from edgerm.transport.coap_socket import Endpoint, Remote
from edgerm.transport.coap_values import CONTENT, CoapReply


class Observation:
    """Somebody who wants to be told. `on_end` is called once, when they are gone or do not want to any more.

    One notification is under way at a time, confirmable; of what is said meanwhile, the last is told (RFC 7641, 4.5.2).
    """

    def __init__(self, endpoint: Endpoint, pipe: Pipe) -> None:
        self.on_end: Callable[[], None] = lambda: None
        self._endpoint = endpoint
        self._pipe: Pipe | None = pipe
        self._waiting: CoapReply | None = None
        self._number = 0

    @property
    def remote(self) -> Remote:
        """Where they are."""
        assert self._pipe is not None
        remote: Remote = self._pipe.request.remote
        return remote

    def notify(self, payload: bytes) -> None:
        """Tell them, as soon as what was told before has arrived."""
        self._waiting = CoapReply(CONTENT, payload)
        self.flush()

    def end(self, code: int) -> None:
        """Tell them that nothing follows, with an error's code."""
        self._waiting = CoapReply(code)
        self.flush()

    def drop(self) -> None:
        """Tell them nothing more, not even that."""
        if self._pipe is not None:
            self._endpoint.forget(self._pipe.request)

    def begin(self, reply: CoapReply) -> None:
        """Answer the registration."""
        assert self._pipe is not None
        self._send(reply, is_last=False)
        self._pipe.on_interest_end(self._ended)

    def flush(self) -> None:
        """Send what waits, if nothing is under way."""
        if self._pipe is None or self._waiting is None or self._endpoint.messages.busy(self.remote):
            return
        reply, self._waiting = self._waiting, None
        self._number += 1
        self._send(reply, is_last=reply.code != CONTENT)

    def _send(self, reply: CoapReply, is_last: bool) -> None:
        assert self._pipe is not None
        message = message_of(reply)
        message.transport_tuning = _RELIABLE
        if not is_last:
            message.opt.observe = self._number & 0xFFFFFF
        self._pipe.add_response(message, is_last=is_last)

    def _ended(self) -> None:
        self._pipe = None
        self.on_end()


_RELIABLE = Reliable()


def message_of(reply: CoapReply) -> Message:
    """The answer as a message."""
    message = Message(code=reply.code, payload=reply.payload)
    if reply.content_format is not None:
        message.opt.content_format = ContentFormat(reply.content_format)
    if reply.block2 is not None:
        number, size_bytes, more = reply.block2
        message.opt.block2 = (number, more, size_bytes.bit_length() - 5)
    if reply.etag is not None:
        message.opt.etag = reply.etag
    if reply.size2_bytes is not None:
        message.opt.size2 = reply.size2_bytes
    return message

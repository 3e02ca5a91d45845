"""An agent's message to its answer, whatever carried it: bytes in, bytes out.

What does not live here: the carriers (`api/agent.py`, `api/coap.py`), what is said (`edgerm.core.link`, the core).
"""

from __future__ import annotations

from edgerm.core.errors import Invalid
from edgerm.core.ids import AgentId
from edgerm.core.link import Carrier, Stale
from edgerm.wire.codec import link as codec
from edgerm_master.api.port import Port

REQUEST_BYTES_MAX = 800_000  # what a message brings is stored in rows of at most 1 MB


async def answer_join(port: Port, message: bytes, carrier: Carrier) -> tuple[bytes, bool]:
    """The answer to a join, and whether it is stale; raises `Invalid`."""
    async with port.joining:
        answer = await port.join(codec.decode_join(message, port.core.spec_of), carrier)
    return codec.encode_join_answer(answer), isinstance(answer, Stale)


async def answer_beat(port: Port, message: bytes, carrier: Carrier) -> bytes:
    """The answer to a beat; raises `Invalid`."""
    sessions = port.core.world.sessions
    beat = codec.decode_beat(message, sessions.get)
    agent_id = sessions.get(beat.session, AgentId(""))
    return codec.encode_beat_answer(await port.beat(beat, carrier), agent_id)


def session_of(text: str) -> int:
    """The session that a request for the doorbell names; raises `Invalid`."""
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        raise Invalid(f"session {text[:20]!r} is no number; join gives one")
    return int(text)

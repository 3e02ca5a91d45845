"""How fast agents may be asked for tasks' output: those behind CoAP no faster than a thin line bears.

What does not live here: the arithmetic (`edgerm.core.pace`), and what is asked for (`upstream.py`).
"""

from __future__ import annotations

import asyncio

from edgerm.core.ids import AgentId
from edgerm.core.link import COAP
from edgerm.core.pace import Pace
from edgerm_master.api.streams import Streams

BURST_S = 0.5  # a pace gives at once what belongs to so long; so much is an output's credit, too
PACES_MAX = 4096


class Paces:
    """A pace for each agent behind CoAP, for all of its outputs together."""

    def __init__(self, streams: Streams, coap_bytes_s: int) -> None:
        self._streams = streams
        self._coap_bytes_s = coap_bytes_s
        self._paces: dict[AgentId, Pace] = {}

    def of(self, agent_id: AgentId) -> Pace | None:
        """This agent's; None: as fast as it is read."""
        if self._streams.carrier(agent_id) != COAP:
            return None
        if agent_id not in self._paces:
            if len(self._paces) >= PACES_MAX:
                del self._paces[next(iter(self._paces))]
            now_s = asyncio.get_running_loop().time()
            self._paces[agent_id] = Pace(self._coap_bytes_s, int(self._coap_bytes_s * BURST_S), now_s)
        return self._paces[agent_id]

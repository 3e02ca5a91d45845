"""The connection to the master: joins, beats, the doorbell, blobs (docs/link.md).

    link = Link(masters, blobs, agent_id)            # http://…, coap://…, or some of each
    link.begin(post, answered)             # what comes of requests is posted as events of the core

`dialer.py` has what is the same for all faces, `face.py` what a face must do; `http.py` and `coap.py` are the faces,
each imported when a master is named that needs it. What is said and when: `edgerm.core.link`; the bytes: the codec.
"""

from __future__ import annotations

from edgerm_agent.link.dialer import Link, carrier_of

__all__ = ["Link", "carrier_of"]

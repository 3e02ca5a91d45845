"""What an offer says of its agent, for whoever chooses among offers.

What does not live here: what has room on which offer (`edgerm.sdk.finding`).
"""

from __future__ import annotations

from collections.abc import Mapping

from edgerm.core.attributes import AttributeValue, by_name
from edgerm.core.scheduler import Offer


def attributes(offer: Offer) -> Mapping[str, AttributeValue]:
    """The attributes of the offer's agent, by name.

    TEXT is a str, SCALAR a float, SET a tuple of its items in order, RANGES a tuple of pairs, first and last. Of a name
    that stands several times the first counts. Host, agent id and name are `offer.agent.hostname`, `offer.agent_id` and
    `offer.agent.name`.
    """
    return by_name(offer.agent.attributes)

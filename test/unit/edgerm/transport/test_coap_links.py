"""The list of what a server has, in the format of RFC 6690."""

from __future__ import annotations

import pytest

from edgerm.core.errors import Invalid
from edgerm.transport.coap_links import Link, link_format

LINKS: list[Link] = [
    ("/b", {"rt": "edgerm.link.beat", "ct": "42"}),
    ("/d", {"rt": "edgerm.link.doorbell other", "obs": ""}),
]
BEAT = '</b>;rt="edgerm.link.beat";ct=42'
DOORBELL = '</d>;rt="edgerm.link.doorbell other";obs'


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ([], f"{BEAT},{DOORBELL}"),
        (["rt=edgerm.link.beat"], BEAT),
        (["rt=other"], DOORBELL),
        (["rt=edgerm.link.*"], f"{BEAT},{DOORBELL}"),
        (["rt=edgerm.*", "ct=42"], BEAT),
        (["href=/d"], DOORBELL),
        (["rt=none"], ""),
        (["if=x"], ""),
    ],
)
def test_links_that_match(query: list[str], expected: str) -> None:
    """All parts of the query must match; a value may be a list of words; `*` ends a beginning (RFC 6690, 4.1)."""
    assert link_format(LINKS, query).decode() == expected


def test_a_query_that_is_no_filter_is_refused() -> None:
    """It is told what a filter looks like."""
    with pytest.raises(Invalid, match="rt="):
        link_format(LINKS, ["beat"])

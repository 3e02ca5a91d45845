"""The loopback rule."""

from __future__ import annotations

import pytest

from edgerm.core.errors import Forbidden
from edgerm_master.api.access import Access, Action, Principal


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("action", Action)
def test_this_machine_may_do_everything(peer: str, action: Action) -> None:
    """A loopback peer is trusted with each action."""
    Access(insecure=False).authorize(Principal("", peer), action)


@pytest.mark.parametrize("peer", ["", "nonsense", "10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0"])
@pytest.mark.parametrize("action", Action)
def test_others_may_nothing_unless_insecure(peer: str, action: Action) -> None:
    """Anyone else is refused whatever he wants, unless the operator accepted that."""
    with pytest.raises(Forbidden):
        Access(insecure=False).authorize(Principal("", peer), action, "x")
    Access(insecure=True).authorize(Principal("", peer), action, "x")

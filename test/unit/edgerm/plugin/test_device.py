"""What several devices together give a task."""

from __future__ import annotations

import pytest

from edgerm.core.errors import Conflict
from edgerm.plugin.device import NO_SETUP, DeviceNode, Mount, Setup, join

CAMERA = Setup((("LIB", "/opt/vc"),), (Mount("/opt/vc", "/opt/vc", True, False),), (DeviceNode("/d/a", "/d/camera"),))
LIGHT = Setup((("LIGHT", "1"),), (), (DeviceNode("/d/b", "/d/light", "rw"),))


def test_setups_add_up() -> None:
    """All variables, mounts and nodes are there; what is alike is there once; nothing gives nothing."""
    both = join([CAMERA, LIGHT])
    assert both == Setup(CAMERA.env + LIGHT.env, CAMERA.mounts, CAMERA.nodes + LIGHT.nodes)
    assert join([CAMERA, LIGHT, CAMERA]) == both
    assert join([]) == NO_SETUP


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (Setup((("LIB", "/usr/lib"),)), "the variable LIB to different values"),
        (Setup((), (Mount("/opt/vc", "/opt/vc", False, False),)), "mount different things at /opt/vc"),
        (Setup((), (), (DeviceNode("/d/c", "/d/camera"),)), "have different nodes at /d/camera"),
    ],
)
def test_setups_that_contradict_each_other(other: Setup, told: str) -> None:
    """Two devices that want different things at one place are refused, and the place is named."""
    with pytest.raises(Conflict, match=told):
        join([CAMERA, other])

"""The guest's own Docker engine, on which tests of devices stand."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support.engine import IMAGE

if TYPE_CHECKING:
    from edgebox.conftest import GuestEngine

pytestmark = [
    pytest.mark.edgebox,
    pytest.mark.skipif(os.environ.get("EDGEBOX") != "1", reason="needs the edgebox: make test-edgebox runs it"),
]


def test_a_container_keeps_to_its_cpus(engine: GuestEngine) -> None:
    """A container with a cpuset sees exactly those CPUs, in a cgroup v2 of the real-time kernel."""
    with engine.client() as client:
        config = client.create_host_config(cpuset_cpus="2-3", network_mode="none")
        command = ["grep", "Cpus_allowed_list", "/proc/self/status"]
        container = client.create_container(IMAGE, command, host_config=config)
        client.start(container)
        assert client.wait(container)["StatusCode"] == 0
        assert client.logs(container).split() == [b"Cpus_allowed_list:", b"2-3"]
        client.remove_container(container)

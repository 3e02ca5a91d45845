"""Grants through `kill -9` of a real agent at every step of a task's life, with what this kernel has of devices.

Cores and GPU are fakes; the same with an RT kernel's threads, cards, lines and containers is in test/edgebox.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.survival import Cut, DyingAgent, Survival, grants

from edgerm.sdk import connect
from edgerm.transport.local import ask
from edgerm_agent import netns
from edgerm_agent.devices.nic import links
from edgerm_agent.keeper import members
from edgerm_master.main import Served

CARD = "edgs0"
SETTINGS = """
[executors.docker]
enabled = false

[[devices.cpu.fake]]
id = "90"

[[devices.gpu.fake]]
id = "gpu-0"

[[devices.declared]]
name = "example.com/null"
id = "null"
device_nodes = [{host_path = "/dev/null"}]

[[devices.shm.memories]]
name = "survivors"
size = "1M"

[[devices.nic.interfaces]]
name = "edgs0"
labels = {line = 0}
"""
CLAIMS = (
    "siemens.com/isolated_core",
    "nvidia.com/gpu",
    "siemens.com/shared_memory",
    "example.com/null",
    "siemens.com/network",
)
CUTS = (
    Cut("before journal *+grant*"),
    Cut("after journal *+grant*"),
    Cut("after shm note *"),
    Cut("after netns make"),
    Cut("after nic apply outside"),
    Cut("before process start"),
    Cut("after process start"),
    Cut("after process stop", ends=True),
    Cut("after nic apply inside"),
    Cut("before netns remove"),
    Cut("after shm forgets *"),
    Cut("after release"),
    Cut("after journal *-grant*"),
)


def ip(*argv: str) -> bool:
    return subprocess.run(("ip", *argv), check=False, capture_output=True).returncode == 0


@pytest.fixture
def card() -> Iterator[str]:
    """An interface to give away."""
    ip("link", "del", f"{CARD}p")  # of a test that was killed
    if os.geteuid() != 0 or not ip("link", "add", CARD, "type", "veth", "peer", "name", f"{CARD}p"):
        pytest.skip("needs root and veth interfaces")
    yield CARD
    ip("link", "del", f"{CARD}p")


@pytest.mark.root
async def test_an_agent_dies_at_every_step(card: str, tmp_path: Path, master: Served) -> None:
    """A task's devices survive the agent's death at any step: never given twice, nothing left, offered again."""
    (tmp_path / "agent.toml").write_text(SETTINGS)
    async with DyingAgent(tmp_path / "agent", master.url, f"--config={tmp_path / 'agent.toml'}") as agent:
        async with connect(master.url) as cluster:
            survival = Survival(agent, cluster, tmp_path / "ledger", CLAIMS)
            survival.look += "; cut -d: -f1 -s /proc/self/net/dev"
            await survival.through(CUTS)
        await ask(agent.data_dir, "delete_memory", name="survivors")
    assert grants(agent.data_dir) == []
    assert survival.seen("first") == survival.seen("second")
    place = f"{members.place_of(str(agent.data_dir)):06x}-"
    assert [name for name in netns.names() if name.startswith(place)] == []
    assert [(link.up, link.addresses) for link in links.Netlink().look("") if link.name == card] == [(False, 0)]

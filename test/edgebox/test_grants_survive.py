"""Grants through `kill -9` of a real agent, with a real-time kernel's threads, a card with IRQs, lines, and containers.

What needs none of that is in test/integration/test_grants_survive.py; what is promised is told in `support.survival`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.engine import IMAGE
from support.gpio_sim import MOTOR, Bank, plug_in
from support.master import running_master
from support.survival import Cut, DyingAgent, Survival, grants

from edgerm.sdk import connect
from edgerm.transport.local import ask
from edgerm_agent import netns
from edgerm_agent.devices.hostfs import Host
from edgerm_agent.devices.nic import links
from edgerm_agent.devices.nic.plan import Down, Up
from edgerm_agent.devices.threads import kernel_threads
from edgerm_agent.lines import CharacterDevices

if TYPE_CHECKING:
    from edgebox.conftest import GuestEngine

pytestmark = [
    pytest.mark.edgebox,
    pytest.mark.skipif(os.environ.get("EDGEBOX") != "1", reason="needs the edgebox: make test-edgebox runs it"),
]

SETTINGS = """
[executors.docker]
socket = "{socket}"
volumes = ["{folder}"]

[[devices.gpu.fake]]
id = "gpu-0"

[[devices.shm.memories]]
name = "survivors"
size = "1M"

[[devices.gpio.chips]]
path = "{chip}"
labels = ["plc"]

[[devices.nic.interfaces]]
name = "eth0"
labels = {{ line7 = 123 }}
"""
CLAIMS = {
    "definitions": {
        "rt": {"type": "siemens.com/isolated_core", "config": {"ksoftirqd_sched": "f51", "ktimers_sched": "r52"}},
        "lines": {"type": "siemens.com/gpio", "config": {"id": "out", "safe_state": {"MOTOR": 1}}},
        "field": {
            "type": "siemens.com/network",
            "config": {
                "prefix": "rt",
                "irq_affinity": "0",
                "irq_threads_affinity": "1",
                "irq_threads_sched": "f60",
                "napi_threads": "true",
                "napi_threads_affinity": "1",
                "napi_threads_sched": "f55",
            },
        },
    },
    "limits": {"rt": 2, "lines": 1, "field": 1, "siemens.com/shared_memory": 1, "nvidia.com/gpu": 1},
}
PROCESS = (
    Cut("after schedule ksoftirqd/*"),
    Cut("after gpio note *"),
    Cut("after nic apply outside"),
    Cut("after nic write /proc/irq/*"),
    Cut("after process start"),
    Cut("after process stop", ends=True),
    Cut("after nic apply inside"),
    Cut("after nic write /proc/irq/*"),
    Cut("after gpio drive 1"),
    Cut("after schedule ksoftirqd/*"),
)
CONTAINER = (
    Cut("after docker network"),
    Cut("after nic apply inside"),
    Cut("after docker start"),
    Cut("after docker stop", ends=True),
    Cut("after nic apply inside"),
    Cut("before docker drop_network"),
)


@pytest.fixture
def bank() -> Iterator[Bank]:
    """A chip with lines."""
    made = plug_in()
    yield made
    made.remove()


def look(chip: str) -> dict[str, object]:
    """All of the box that a grant may change, as it is now."""
    card = Path("/sys/class/net/eth0")
    irqs = sorted(int(entry.name) for entry in (card / "device/msi_irqs").iterdir())
    threads = kernel_threads(Host(Path("/nonexistent")))
    kept = ("ksoftirqd/", "ktimers/", "irq/", "napi/")
    return {
        "links": sorted((link.name, link.mac, link.mtu, link.up, link.addresses) for link in links.Netlink().look("")),
        "threaded": (card / "threaded").read_text(),
        "irqs": {number: Path(f"/proc/irq/{number}/smp_affinity_list").read_text() for number in irqs},
        # threads of NAPI stay where they are switched off, idle
        "threads": {
            each.name: (each.policy, each.priority)
            for each in threads
            if each.name.startswith(kept) and (each.policy or not each.name.startswith("napi/"))
        },
        "namespaces": netns.names(),
        "mounts": sorted(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        "lines": [line.user for line in CharacterDevices().look(chip).lines],
        "groups": [path.name for path in Path("/sys/fs/cgroup/edgerm").glob("*/*") if path.is_dir()],
    }


async def test_an_agent_dies_at_every_step(tmp_path: Path, bank: Bank, engine: GuestEngine) -> None:
    """A process's, then a container's cores, card, lines, memory and GPU survive the agent's death in the middle of
    each class's way in and out: never given twice, everything on the box as before, offered again."""
    links.Netlink().apply("", [Up("eth0"), Down("eth0")])  # before its first "up" a card has no IRQs to look at
    before = look(bank.path)
    (tmp_path / "agent.toml").write_text(SETTINGS.format(socket=engine.url, chip=bank.path, folder=tmp_path))
    container = {"docker": IMAGE, "volumes": [f"{tmp_path}:{tmp_path}"]}
    async with (
        running_master(tmp_path) as master,
        DyingAgent(tmp_path / "agent", master.url, f"--config={tmp_path / 'agent.toml'}") as agent,
        connect(master.url) as cluster,
    ):
        for name, cuts, options in (("process", PROCESS, {}), ("container", CONTAINER, container)):
            survival = Survival(agent, cluster, tmp_path / name, CLAIMS, options)
            await survival.through(cuts)
            assert survival.seen("first") == survival.seen("second")
            assert bank.level(MOTOR) == 1
            if name == "container":
                await ask(agent.data_dir, "delete_memory", name="survivors")
            await agent.stop()
            assert grants(agent.data_dir) == []
    assert look(bank.path) == before
    with engine.client() as client:
        assert client.containers(all=True) == []

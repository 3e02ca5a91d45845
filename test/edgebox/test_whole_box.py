"""A box as a user has it: a master, an agent with its file, `edgerm run` with claims of every class in one task."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.agent import agent_process
from support.cli import edgerm
from support.engine import IMAGE
from support.gpio_sim import MOTOR, Bank, plug_in
from support.master import running_master

from edgerm.transport.local import ask
from edgerm_agent.devices.nic import links

if TYPE_CHECKING:
    from edgebox.conftest import GuestEngine

pytestmark = [
    pytest.mark.edgebox,
    pytest.mark.skipif(os.environ.get("EDGEBOX") != "1", reason="needs the edgebox: make test-edgebox runs it"),
]

BOX = """
[executors.docker]
socket = "{socket}"

[[devices.shm.memories]]
name = "frames"
size = "1M"
labels = ["frames"]

[[devices.gpio.chips]]
path = "{chip}"
labels = ["plc-io"]

[[devices.nic.interfaces]]
name = "eth0"
labels = {{ line7 = 123 }}
"""
CLAIMS = """
definitions:
  field:
    type: siemens.com/network
    matchExpressions: [{key: "labels", operator: "Contains", values: ["line7"]}]
    config: {label: "line7", prefix: "rt", irq_affinity: "0"}
  frames:
    type: siemens.com/shared_memory
    matchExpressions: [{key: "labels", operator: "Contains", values: ["frames"]}]
    config: {id: "in"}
  outputs:
    type: siemens.com/gpio
    matchExpressions: [{key: "labels", operator: "Contains", values: ["plc-io"]}]
    config: {id: "out", safe_state: {"MOTOR": 1}}
limits: {field: 1, frames: 1, outputs: 1}
"""
SCRIPT = """
env | grep ^IEDGE_ | sort
grep Cpus_allowed_list /proc/self/status
cut -d: -f1 -s /proc/self/net/dev | tr -d " " | sort | xargs
test -c $IEDGE_GPIO_DEVICES && test -c $IEDGE_NETWORKS_PTP_DEVICES && test -c /dev/cpu_dma_latency && echo nodes
echo one more >>$IEDGE_SHM_MOUNTPOINTS/seen && cat $IEDGE_SHM_MOUNTPOINTS/seen
"""
SEEN = """\
IEDGE_CPUSET_ISOLATED=2-3
IEDGE_GPIO_DEVICES={chip}
IEDGE_GPIO_IDS=out
IEDGE_GPIO_LINE_LABELS=START MOTOR STOP LED unnamed unnamed unnamed unnamed
IEDGE_GPIO_LINE_OFFSETS=0 1 2 3 4 5 6 7
IEDGE_NETWORKS_ANNOTATIONS=[{{"line7":123}}]
IEDGE_NETWORKS_ISOLATED=eth0
IEDGE_NETWORKS_LABELS=line7
IEDGE_NETWORKS_PREFIXES=rt
IEDGE_NETWORKS_PTP_DEVICES=/dev/ptp0
IEDGE_SHM_IDS=in
IEDGE_SHM_MOUNTPOINTS=/dev/iedge/shm0
Cpus_allowed_list:\t2-3
eth0 lo rt0
nodes
"""


@pytest.fixture
def bank() -> Iterator[Bank]:
    """A chip with lines."""
    made = plug_in()
    yield made
    made.remove()


async def test_every_class_in_one_task(tmp_path: Path, bank: Bank, engine: GuestEngine) -> None:
    """A process and then a container see the cores, interface, memory, lines and nodes that they claim, and what the
    other left in the memory; afterwards all devices are free, the card is home and the lines are safe."""
    (tmp_path / "agent.toml").write_text(BOX.format(socket=engine.url, chip=bank.path))
    (tmp_path / "claims.yaml").write_text(CLAIMS)
    claims = ("--claim", "siemens.com/isolated_core=2", "--claim-file", str(tmp_path / "claims.yaml"))
    folder = tmp_path / "agent"
    async with (
        running_master(tmp_path) as master,
        agent_process(folder, master.url, f"--config={tmp_path / 'agent.toml'}"),
    ):
        where = ("--master", master.url)
        for number, task in enumerate((("--process", "--", "sh", "-c"), ("--docker", IMAGE, "--", "sh", "-c"))):
            said = await edgerm("run", *where, *claims, *task, SCRIPT)
            assert said == SEEN.format(chip=bank.path) + (number + 1) * "one more\n"
            assert bank.level(MOTOR) == 1
        rows = (await ask(folder, "devices"))["devices"]
        assert {(row["class"], row["health"], row["holder"], row["quarantine"]) for row in rows} == {
            (f"siemens.com/{name}", "Healthy", "", "") for name in ("isolated_core", "network", "shared_memory", "gpio")
        }
        [card] = [link for link in links.Netlink().look("") if link.name == "eth0"]
        assert not card.up
        await ask(folder, "delete_memory", name="frames")

"""Devices through a real master: offers with metadata, claims, what operators see of who has what."""

from __future__ import annotations

import asyncio
import json

from support.cli import edgerm
from support.fake_agent import FakeAgent
from support.master import Framework, Json, status_of, task

from edgerm.cli.devices import listing, rows
from edgerm.core.claims import Granted
from edgerm.core.devices import Device, DeviceClass, Inventory
from edgerm.core.metadata import to_text
from edgerm.core.tasks import TaskState
from edgerm.sdk import connect
from edgerm_master.main import Served

CORE = "siemens.com/isolated_core"
LABELS = to_text({"labels": ["line7"], "lines": 4})
INVENTORY = Inventory(
    (DeviceClass(CORE, chooses=True), DeviceClass("x/gpio"), DeviceClass("x/can", problem="its plugin does not run")),
    (
        Device(CORE, "cpu3", metadata=to_text({"cpuset": [3]})),
        Device(CORE, "cpu2", metadata=to_text({"cpuset": [2]}), fake=True),
        Device("x/gpio", "chip0", metadata=LABELS, gives=("/dev/gpiochip0",)),
        Device("x/gpio", "chip1", quarantine="a process holds /dev/gpiochip1"),
        Device("x/gpio", "chip2", problem="unplugged"),
        Device("x/gpio", "chip3", held_by="compose-app"),
    ),
    generation=3,
)
TIMEOUT_S = 30.0


def sets(resources: list[Json]) -> dict[str, list[str]]:
    """The items of each set."""
    return {entry["name"]: entry["set"]["item"] for entry in resources if "set" in entry}


def gpio(values: str = '["line7"]') -> Json:
    """A claim for the chip with this label."""
    return {"type": "x/gpio", "match_expressions": [{"key": "labels", "operator": "Contains", "values": values}]}


async def test_a_claim_from_the_offer_to_its_end(master: Served) -> None:
    """A JSON client sees devices in its offer, claims by metadata, and is told what the agent took in the end."""
    async with (
        asyncio.timeout(TIMEOUT_S),
        FakeAgent(master.url, inventory=INVENTORY, on_launch=lambda launch: ()) as agent,
        Framework(master.url) as framework,
    ):
        offer = await framework.offer()
        assert sets(offer["resources"]) == {CORE: ["cpu2", "cpu3"], "x/gpio": ["chip0"]}
        assert [(device["id"], device.get("metadata", "")) for device in offer["devices"]] == [
            ("cpu3", '{"cpuset":[3]}'),
            ("cpu2", '{"cpuset":[2]}'),
            ("chip0", LABELS),
        ]
        assert [each["name"] for each in offer["device_classes"]] == [CORE, "x/gpio", "x/can"]

        await framework.launch(offer, task(offer, "t1", claims=[{"type": CORE}, gpio()], resources=[]))
        await agent.until(lambda agent: bool(agent.launches))
        launch = agent.launches[0]
        assert launch.task.granted == (Granted(CORE, CORE, ("cpu3",)), Granted("x/gpio", "x/gpio", ("chip0",)))
        assert (launch.task.generation, launch.task.app) == (3, "contract")
        agent.report(launch.key, TaskState.RUNNING, granted=(Granted(CORE, CORE, ("cpu2",)),))
        status = await status_of(framework)
        assert status["granted"] == [{"claim": CORE, "type": CORE, "ids": ["cpu2"]}]

        async with connect(master.url) as cluster:
            found = {row["id"]: row for row in await rows(cluster.operator)}
            view = await cluster.operator.tasks()
        assert {resource.name: list(resource.set.item) for resource in view.tasks[0].resources} == {
            CORE: ["cpu2"],
            "x/gpio": ["chip0"],
        }
        assert {name: row["holder"] for name, row in found.items()} == {
            "cpu3": "",
            "cpu2": "t1",
            "chip0": "t1",
            "chip1": "",
            "chip2": "",
            "chip3": "compose-app",
        }


async def test_a_claim_that_does_not_fit_says_why(master: Served) -> None:
    """What nobody has is TASK_ERROR with the claim, its class, what was asked and what there was; so is nonsense."""
    async with (
        asyncio.timeout(TIMEOUT_S),
        FakeAgent(master.url, inventory=INVENTORY),
        Framework(master.url) as framework,
    ):
        offer = await framework.offer()
        await framework.launch(
            offer,
            task(offer, "t1", claims=[gpio('["line8"]')]),
            task(offer, "t2", claims=[gpio('"line8"')]),
            refuse_seconds=0,
        )
        told = [await framework.status() for _ in range(2)]
        assert [(status["task_id"]["value"], status["state"]) for status in told] == [
            ("t1", "TASK_ERROR"),
            ("t2", "TASK_ERROR"),
        ]
        assert "x/gpio" in told[0]["message"]
        assert "no JSON list" in told[1]["message"]


async def test_devices_are_listed(master: Served) -> None:
    """`edgerm devices` shows pool, health, holder, metadata, quarantine, what is fake, and what has no plugin."""
    async with asyncio.timeout(TIMEOUT_S), FakeAgent(master.url, inventory=INVENTORY):
        told = await edgerm("devices", "--json", "--master", master.url)
        shown = await edgerm("devices", "--master", master.url)
        async with connect(master.url) as cluster:
            remarks = (await listing(cluster.operator)).remarks
    found = {row["id"]: row for row in json.loads(told)}
    names = ("class", "pool", "health", "holder", "metadata", "quarantine", "fake")
    assert [found["chip0"][name] for name in names] == [
        "x/gpio",
        "exclusive",
        "Healthy",
        "",
        {"labels": ["line7"], "lines": 4},
        "",
        False,
    ]
    assert found["chip1"]["quarantine"] == "a process holds /dev/gpiochip1"
    assert (found["chip2"]["health"], found["chip3"]["holder"], found["cpu2"]["fake"]) == (
        "Unhealthy",
        "compose-app",
        True,
    )
    lines = {line.split()[2]: line for line in shown.splitlines()}
    assert "Healthy, fake" in lines["cpu2"]
    assert "Healthy, in quarantine" in lines["chip1"]
    assert lines["chip1"].endswith("a process holds /dev/gpiochip1")
    assert remarks == [f"{found['chip0']['agent']}: nothing of class x/can can be claimed: its plugin does not run"]

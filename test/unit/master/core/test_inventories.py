"""Agents' inventories at the master: told once, kept once, restored, dropped with the last agent that has them."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from strategies import GPIO
from support.stage import Stage, agent_spec

from edgerm.core.blobs import Digest, digest_of
from edgerm.core.devices import Inventory
from edgerm.core.ids import AgentId, StreamId
from edgerm.core.link import Join, JoinAnswer, NextPart, WantsInventory, Welcome
from edgerm.core.scheduler import without_devices
from edgerm.wire.codec.devices import encode_inventory
from edgerm_master.core.changes import AgentAdded, AgentRemoved
from edgerm_master.core.effects import Noticed
from edgerm_master.core.events import MarkAgentGone, Watch
from edgerm_master.core.joining import UNREACHABLE_KEPT_S
from edgerm_master.core.records import AgentRecord, InventoryRecord
from edgerm_master.registry import CODEC

LATER = replace(GPIO, devices=GPIO.devices[:1], generation=8)


def name_of(inventory: Inventory) -> Digest:
    """As the link names it."""
    return digest_of(encode_inventory(inventory))


def join(
    stage: Stage, agent: str, incarnation: int = 1, inventory: Inventory = GPIO, *, told: bool = False, **more: int
) -> JoinAnswer:
    """The agent joins with an inventory, whole or by name."""
    spec = replace(agent_spec(agent, "cpus:1;mem:64"), inventory=inventory)
    spec = spec if told else without_devices(spec)
    message = Join(AgentId(agent), incarnation, spec, named=name_of(inventory), devices=told, **more)  # type: ignore[arg-type]
    return stage.send_join(message)


def kept(stage: Stage) -> set[str]:
    """The names of the inventories that are stored."""
    return {key for kind, key in stage.rows if kind == "inventory"}


def test_an_inventory_is_asked_for_once() -> None:
    """The first agent that names it tells it; the next one's name is enough, and both have the same object."""
    stage = Stage()
    assert join(stage, "a1") == WantsInventory()
    assert "a1" not in stage.master.agents
    assert isinstance(join(stage, "a1", told=True), Welcome)
    assert isinstance(join(stage, "a2", inventory=replace(GPIO, generation=9)), Welcome)
    one, other = (stage.master.agents[AgentId(name)].spec.inventory for name in ("a1", "a2"))
    assert (one.generation, other.generation) == (7, 9)
    assert one.devices is other.devices
    assert kept(stage) == {name_of(GPIO)}


def test_a_start_alone_is_no_news() -> None:
    """Who watches is told when an agent comes with other devices, not when it comes again with the same."""
    stage = Stage()
    join(stage, "a1", told=True)
    stage.happen(Watch(StreamId("w")))
    for incarnation, inventory, news in ((2, replace(GPIO, generation=9), []), (3, LATER, [AgentRemoved, AgentAdded])):
        stage.log.clear()
        join(stage, "a1", incarnation, inventory, told=True)
        assert [type(effect.change) for effect in stage.log if isinstance(effect, Noticed)] == news


def test_only_the_last_part_is_asked_for_it() -> None:
    """Parts before the last are taken as they are."""
    stage = Stage()
    assert join(stage, "a1", part=0, more=True) == NextPart()
    assert join(stage, "a1", part=1) == WantsInventory()
    assert isinstance(join(stage, "a1", part=1, told=True), Welcome)
    assert stage.master.agents[AgentId("a1")].spec.inventory == GPIO


def test_an_inventory_is_stored_apart_and_restored() -> None:
    """The agent's record has its name only; another master knows it, and does not ask again."""
    stage = Stage()
    join(stage, "a1", told=True)
    record = stage.rows[("agent", "a1")]
    assert isinstance(record, AgentRecord)
    assert (record.spec.inventory, record.inventory) == (Inventory(generation=7), name_of(GPIO))
    stage.restart()
    assert stage.master.agents[AgentId("a1")].spec.inventory == GPIO
    assert isinstance(join(stage, "a1", 2), Welcome)
    assert isinstance(join(stage, "a1", 3, LATER, told=True), Welcome)
    assert kept(stage) == {name_of(LATER)}


def test_what_no_agent_has_is_dropped() -> None:
    """With the last agent that has an inventory it goes: by another inventory, or with the agent."""
    stage = Stage()
    for agent in ("a1", "a2"):
        join(stage, agent, told=True)
    join(stage, "a1", 2, LATER, told=True)
    assert kept(stage) == {name_of(GPIO), name_of(LATER)}
    stage.maintain(MarkAgentGone(AgentId("a2")))
    assert kept(stage) == {name_of(LATER)}
    stage.pass_time(1000 + UNREACHABLE_KEPT_S)
    assert stage.master.agents == {}
    assert kept(stage) == set()
    assert len(stage.master.world.inventories) == 0


def test_an_inventory_without_an_agent_is_tidied_up() -> None:
    """A master that ended between two batches leaves one behind; the next change drops it."""
    stage = Stage()
    stage.rows[("inventory", "old")] = InventoryRecord(Digest("old"), GPIO)
    stage.restart()
    join(stage, "a1", 1, LATER, told=True)
    assert kept(stage) == {name_of(LATER)}


def test_a_lost_inventory_is_asked_for_again() -> None:
    """An agent whose inventory is not there any more has none, until it joins."""
    stage = Stage()
    join(stage, "a1", told=True)
    del stage.rows[("inventory", name_of(GPIO))]
    stage.restart()
    assert stage.master.agents[AgentId("a1")].spec.inventory == Inventory(generation=7)
    assert join(stage, "a1", 2) == WantsInventory()
    assert isinstance(join(stage, "a1", 2, told=True), Welcome)
    assert kept(stage) == {name_of(GPIO)}


def test_an_unnamed_inventory_is_part_of_the_record() -> None:
    """Without a name, as a simulated agent has none, it stays where it is."""
    stage = Stage()
    spec = replace(agent_spec("a1", "cpus:1;mem:64"), inventory=GPIO)
    stage.send_join(Join(AgentId("a1"), 1, spec))
    stage.restart()
    assert stage.master.agents[AgentId("a1")].spec.inventory == GPIO
    assert kept(stage) == set()


@pytest.mark.parametrize("told", [False, True])
def test_refusals_end_when_devices_are_others(told: bool) -> None:
    """What a framework refused of an agent it may want with other metadata; with another generation it does not."""
    stage = Stage()
    join(stage, "a1", told=True)
    stage.subscribe("f1")
    stage.settle()
    stage.decline("f1", refuse_s=1000)
    changed = replace(GPIO, devices=(replace(GPIO.devices[0], metadata='{"labels":["b"]}'), *GPIO.devices[1:]))
    join(stage, "a1", 2, changed if told else replace(GPIO, generation=8), told=True)
    stage.pass_time(2)
    assert bool(stage.offers("f1")) == told


def test_records_survive_the_store() -> None:
    """An inventory is read as stored, and an agent's record from before there were any has none."""
    record = InventoryRecord(Digest("x"), GPIO)
    assert CODEC.decode("inventory", *CODEC.encode("inventory", record)) == record
    old = AgentRecord(AgentId("a1"), agent_spec("a1", "cpus:1"), 3)
    version, blob = CODEC.encode("agent", old)
    parts = msgspec.msgpack.decode(blob)
    del parts["inventory"], parts["spec"]["inventory"]
    assert CODEC.decode("agent", version, msgspec.msgpack.encode(parts)) == old

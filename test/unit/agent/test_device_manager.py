"""Device plugins at work: what the core hears of them, a task's devices prepared and given back."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pytest
import pytest_asyncio

from edgerm.core.claims import Granted
from edgerm.core.devices import Device, DeviceClass, Inventory
from edgerm.core.errors import Conflict, Invalid, Unavailable
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.plugin.device import NO_SETUP, DeviceNode, DevicePlugin, Grant, Mount, NotClean, Setup
from edgerm.testing.devices import NAME, FakeDevices, fakes
from edgerm_agent.core.effects import Choose, GiveBack
from edgerm_agent.core.events import Chosen, Event, GivenBack, Inventoried
from edgerm_agent.core.records import GrantRecord
from edgerm_agent.devices import inventories, manager
from edgerm_agent.devices.manager import CORES, NETWORKS, Devices

KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
SCHEMA = json.dumps({"type": "object", "properties": {"size": {"type": "integer"}}})
T = TypeVar("T", bound=Event)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried at once."""
    monkeypatch.setattr(inventories, "RETRY_FIRST_S", 0.001)


@dataclass
class Ledger:
    """What plugins and executors of one agent were asked for, in order."""

    lines: list[str] = field(default_factory=list)


@dataclass
class Named(FakeDevices):
    """A fake of one class that writes into the common ledger."""

    ledger: Ledger = field(default_factory=Ledger)
    setup: Setup = NO_SETUP

    async def prepare(self, grant: Grant) -> Setup:
        self.ledger.lines.append(f"prepare {grant.name} cpus={grant.cpus} network={grant.network}")
        await super().prepare(grant)
        return self.setup

    async def release(self, grant: Grant) -> None:
        self.ledger.lines.append(f"release {grant.name} cpus={grant.cpus} network={grant.network}")
        await super().release(grant)


class WithNetworks:
    """An executor that makes networks."""

    name = "docker"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def network(self, key: TaskKey) -> str:
        self._ledger.lines.append(f"network of {key.task_id}")
        return "/run/netns/t"

    async def drop_network(self, key: TaskKey) -> None:
        self._ledger.lines.append(f"no network of {key.task_id}")


class WithoutNetworks:
    """Another one."""

    name = "wasm"


class Agent:
    """The manager, and the core's ear."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.executor = WithNetworks(self.ledger)
        self.devices = Devices({"names"}, {"docker": self.executor})
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    async def begin(self, *plugins: DevicePlugin, within_s: float = 20) -> None:
        for plugin in plugins:
            self.devices.add(plugin)
        await self.devices.first(within_s)
        self.devices.begin(self._events.put_nowait)

    async def next(self, kind: type[T]) -> T:
        """What the core hears next."""
        async with asyncio.timeout(20):
            event = await self._events.get()
        assert isinstance(event, kind), event
        return event

    async def inventory(self) -> Inventory:
        return (await self.next(Inventoried)).inventory

    def plugin(self, name: str, *ids: str, setup: Setup = NO_SETUP, keys: tuple[str, ...] = ()) -> Named:
        inventory = Inventory((DeviceClass(name, config_keys=keys),), fakes(*ids, name=name))
        return Named(inventory, name=name, ledger=self.ledger, setup=setup)


@pytest_asyncio.fixture
async def agent() -> AsyncIterator[Agent]:
    """An agent without plugins."""
    made = Agent()
    yield made
    await made.devices.close()


def grant(name: str, *ids: str, config: str = "", executor: str = "docker") -> GrantRecord:
    """One claim of the task."""
    return GrantRecord(KEY, name, (Granted("mine", name, ids, config=config),), executor, "app")


# --- inventories ---


async def test_the_core_hears_of_every_change_once(agent: Agent) -> None:
    """What was there at first is told when somebody listens, then each change, and nothing else."""
    plugin = FakeDevices()
    await agent.begin(plugin)
    assert await agent.next(Inventoried) == Inventoried("fake", plugin.inventory)
    plugin.wake()  # nothing new
    plugin.set_problem("one", "a  long\nstory")
    found = await agent.inventory()
    assert [device.problem for device in found.devices] == ["a long story", ""]


async def test_a_plugin_that_fails_is_asked_again(agent: Agent) -> None:
    """Meanwhile its classes have the problem and no devices; prepare refuses, with the same words."""
    plugin = FakeDevices()
    await agent.begin(plugin)
    whole = await agent.inventory()
    plugin.fail(OSError("the bus is gone"))
    away = await agent.inventory()
    assert (away.devices, away.classes[0].problem) == ((), "its plugin failed: the bus is gone")
    with pytest.raises(Conflict, match=rf"{NAME} cannot be had: its plugin failed: the bus is gone"):
        await agent.devices.prepare(KEY, [grant(NAME, "one")], agent.executor)
    plugin.fail(None)
    assert await agent.inventory() == whole


@pytest.mark.parametrize(
    ("devices", "told"),
    [
        (fakes("a b"), "device 'a b' of 'example.org/fake': an id is 1 to 255 printable"),
        (fakes("a", "a"), "its id stands twice"),
        (fakes("a", name="other"), "is of class 'other', which is not among its classes"),
        (fakes("a", metadata="[1"), "device 'a' of 'example.org/fake': Expecting"),
        (fakes("a", metadata='{"x":true}'), "metadata x: True is no text"),
        ((Device(NAME, "a", gives=("x",) * 257),), "it gives 257 things, at most 256"),
        (fakes(*(f"d{number}" for number in range(4097))), "4097 devices; at most"),
    ],
)
async def test_an_inventory_that_cannot_be(agent: Agent, devices: tuple[Device, ...], told: str) -> None:
    """It is refused as a whole, its classes say why, and the next one that is right counts."""
    plugin = FakeDevices()
    right = plugin.inventory.devices
    await agent.begin(plugin)
    await agent.inventory()
    plugin.set(*devices)
    found = await agent.inventory()
    assert found.devices == ()
    assert "what its plugin says cannot be" in found.classes[0].problem
    assert told in found.classes[0].problem
    plugin.set(*right)
    assert (await agent.inventory()).devices == right


@pytest.mark.parametrize("name", ["cpus", "names", "1st", "a b", ""])
async def test_a_class_that_cannot_be(agent: Agent, name: str) -> None:
    """A class takes no name of Mesos, none of a plain resource, and none that cannot be written."""
    await agent.begin(FakeDevices(Inventory((DeviceClass(name),))))
    assert await agent.inventory() == Inventory()


async def test_metadata_that_break_their_schema(agent: Agent) -> None:
    """The device is there with that problem, the others are not touched; a schema that is none is its class's."""
    devices = (*fakes("one", metadata='{"size": "big"}'), *fakes("two", metadata='{"size": 2}'))
    plugin = FakeDevices(Inventory((DeviceClass(NAME, schema=SCHEMA),), devices))
    await agent.begin(plugin)
    found = await agent.inventory()
    broken = f"its metadata break the schema of {NAME}: size: 'big' is not of type 'integer'"
    assert [device.problem for device in found.devices] == [broken, ""]
    assert found.devices[1].metadata == '{"size":2}'
    for schema, told in (
        ('{"type": 5}', "its schema is none"),
        ("[", "its schema is none"),
        ('{"$ref": "http://x/y"}', "outside itself"),
    ):
        plugin.set(*devices, classes=[DeviceClass(NAME, schema=schema)])
        assert told in (await agent.inventory()).classes[0].problem


async def test_a_problem_is_not_hidden_by_the_schema(agent: Agent) -> None:
    """Of a device that is not there nothing can be told: its own problem is what people see."""
    (ill,) = fakes("one", metadata='{"size": "big"}')
    await agent.begin(FakeDevices(Inventory((DeviceClass(NAME, schema=SCHEMA),), (replace(ill, problem="it is out"),))))
    assert [device.problem for device in (await agent.inventory()).devices] == ["it is out"]


async def test_a_first_inventory_that_cannot_be(agent: Agent) -> None:
    """The class is listed with the reason even if nothing was right before."""
    await agent.begin(FakeDevices(Inventory((DeviceClass(NAME), DeviceClass("a b")), fakes("a b"))))
    found = await agent.inventory()
    assert [each.name for each in found.classes] == [NAME]
    assert "class 'a b': begin with a letter" in found.classes[0].problem


@dataclass
class Flood(FakeDevices):
    """Says something new all the time, and never waits."""

    said: int = 0

    async def watch(self) -> AsyncIterator[Inventory]:
        while True:
            self.said += 1
            yield replace(self.inventory, devices=fakes("one", f"two-{self.said}"))


async def test_a_plugin_that_floods_is_slowed_down(agent: Agent) -> None:
    """It is heard a few times at once and then at a pace; others go on, and so do its own devices."""
    flood = Flood()
    await agent.begin(flood)
    await agent.devices.prepare(KEY, [grant(NAME, "one")], agent.executor)
    for _ in range(10):
        await agent.inventory()
    assert flood.said < 100


async def test_a_class_has_one_plugin(agent: Agent) -> None:
    """A second plugin is heard without it; when the first is away, the second takes it over."""
    first, second = FakeDevices(), FakeDevices(Inventory((DeviceClass(NAME),), fakes("other")), name="second")
    await agent.begin(first, second)
    assert (await agent.next(Inventoried)).plugin == "fake"
    assert await agent.next(Inventoried) == Inventoried("second", Inventory())
    agent.devices.remove("fake", "it left")
    away = await agent.next(Inventoried)
    assert (away.plugin, away.inventory) == ("fake", Inventory((DeviceClass(NAME, problem="it left"),)))
    with pytest.raises(Conflict, match="it left"):
        await agent.devices.prepare(KEY, [grant(NAME, "one")], agent.executor)
    second.wake()
    assert await agent.next(Inventoried) == Inventoried("fake", Inventory())
    assert await agent.next(Inventoried) == Inventoried("second", second.inventory)


async def test_a_plugin_that_says_nothing_is_not_waited_for(agent: Agent) -> None:
    """The agent starts without a plugin that is slow, and hears of it later; its classes are reserved for it."""

    class Slow(FakeDevices):
        go_on = asyncio.Event()

        async def watch(self) -> AsyncIterator[Inventory]:
            await self.go_on.wait()
            async for each in super().watch():
                yield each

    slow = Slow()
    agent.devices.add(slow, [NAME])
    await agent.begin(within_s=0.01)
    with pytest.raises(Conflict, match=r"'one' of 'example.org/fake' is not there any more"):
        await agent.devices.prepare(KEY, [grant(NAME, "one")], agent.executor)
    slow.go_on.set()
    assert await agent.inventory() == slow.inventory


async def test_plain_tasks_keep_off_some_cpus(agent: Agent) -> None:
    """A plugin may say where tasks run that claim nothing."""

    class Keeps(FakeDevices):
        def plain_cpus(self) -> tuple[int, ...]:
            return (0, 1)

    assert agent.devices.plain_cpus() == ()
    await agent.begin(FakeDevices(), Keeps(name="cpu"))
    assert agent.devices.plain_cpus() == (0, 1)


# --- a task's devices ---


async def test_cores_first_networks_last(agent: Agent) -> None:
    """Who is prepared later is told the task's CPUs, and the network its namespace; all is given back in reverse."""
    cores = agent.plugin(CORES, "cpu2", "cpu3", setup=Setup(cpus=(2, 3)))
    network, other = agent.plugin(NETWORKS, "eno1"), agent.plugin("b", "one", setup=Setup((("A", "1"),)))
    await agent.begin(network, other, cores)
    grants = (grant("b", "one"), grant(NETWORKS, "eno1"), grant(CORES, "cpu3", "cpu2"))
    assert await agent.devices.prepare(KEY, grants, agent.executor) == Setup((("A", "1"),), cpus=(2, 3))
    assert cores.calls[0][2] == ("cpu2", "cpu3"), "in the inventory's order"
    for _ in range(3):
        await agent.inventory()
    agent.devices.give_back(GiveBack(KEY, grants))
    assert await agent.next(GivenBack) == GivenBack(KEY, {})
    assert agent.ledger.lines == [
        f"prepare {CORES} cpus=() network=",
        "prepare b cpus=(2, 3) network=",
        "network of t",
        f"prepare {NETWORKS} cpus=(2, 3) network=/run/netns/t",
        f"release {NETWORKS} cpus=() network=",
        "no network of t",
        "release b cpus=() network=",
        f"release {CORES} cpus=() network=",
    ]


async def test_a_plugin_is_asked_for_one_grant_at_a_time(agent: Agent) -> None:
    """While it prepares for one task, it neither prepares nor releases for another."""
    plugin = FakeDevices()
    plugin.failures.hold = asyncio.Event()
    await agent.begin(plugin)
    await agent.inventory()
    first = asyncio.create_task(agent.devices.prepare(KEY, [grant(NAME, "one")], agent.executor))
    while not plugin.calls:
        await asyncio.sleep(0)
    other = replace(grant(NAME, "two"), key=KEY._replace(task_id=TaskId("u")))
    agent.devices.give_back(GiveBack(other.key, (other,)))
    second = asyncio.create_task(agent.devices.prepare(other.key, [other], agent.executor))
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(plugin.calls) == 1
    plugin.failures.hold.set()
    await asyncio.gather(first, second)
    assert [call[0] for call in plugin.calls] == ["prepare", "release", "prepare"]


async def test_a_config_is_looked_at_first(agent: Agent) -> None:
    """An unknown key is refused with the claim, the class and the known keys before anything is prepared."""
    await agent.begin(agent.plugin("a", "one", keys=("mode", "id")), agent.plugin("b", "one"))
    grants = [grant("a", "one", config='{"mode":"x"}'), grant("b", "one", config='{"moed":"x"}')]
    with pytest.raises(Invalid, match="claim 'mine': b does not know the config key 'moed'; it has no config"):
        await agent.devices.prepare(KEY, grants, agent.executor)
    grants[1] = grant("a", "one", config='{"moed":"x"}')
    with pytest.raises(Invalid, match="a does not know the config key 'moed'; it knows mode, id"):
        await agent.devices.prepare(KEY, grants, agent.executor)
    assert agent.ledger.lines == []


@pytest.mark.parametrize(
    ("error", "raised", "told"),
    [
        (Invalid("claim 'mine': mode = 3"), Invalid, "claim 'mine': mode = 3"),
        (OSError(16, "Device or resource busy", "/dev/x"), Conflict, "b could not be prepared: .*busy: '/dev/x'"),
        (KeyError("oops"), Conflict, "b could not be prepared: 'oops'"),
    ],
)
async def test_a_failure_keeps_nothing(agent: Agent, error: Exception, raised: type[Exception], told: str) -> None:
    """What was prepared before is released, the failed one too, and the plugin's words come out."""
    bad = agent.plugin("b", "one")
    bad.failures.prepare = error
    await agent.begin(agent.plugin("a", "one"), bad, agent.plugin("c", "one"))
    with pytest.raises(raised, match=told):
        await agent.devices.prepare(KEY, [grant(name, "one") for name in "abc"], agent.executor)
    assert [line.split(" cpus")[0] for line in agent.ledger.lines] == [
        "prepare a",
        "prepare b",
        "release b",
        "release a",
    ]


@pytest.mark.parametrize(
    ("setup", "told"),
    [
        (Setup(env=(("A=B", "1"),)), "variable 'A=B'"),
        (Setup(env=(("", "1"),)), "variable ''"),
        (Setup(env=(("A", "x\0y"),)), "variable 'A'"),
        (Setup(env=(("A", "x" * 70_000),)), "variable 'A'"),
        (Setup(env=tuple((f"V{number}", "") for number in range(1025))), "1025 things of one kind"),
        (Setup(annotations=(("", "x"),)), "label ''"),
        (Setup(mounts=(Mount("in", "/out", True, False),)), "'in' is no absolute path"),
        (Setup(mounts=(Mount("/in", "out", True, False),)), "'out' is no absolute path"),
        (Setup(mounts=(Mount("/", "/out", True, False),)), "would hide all that the task has"),
        (Setup(mounts=(Mount("/in/../etc", "/out", True, False),)), "without NUL and .."),
        (Setup(mounts=(Mount("/in", "", True, True),)), "it has no source"),
        (Setup(nodes=(DeviceNode("/dev/../etc/passwd", "/dev/x"),)), "without NUL and .."),
        (Setup(nodes=(DeviceNode("/dev/null", "x"),)), "'x' is no absolute path"),
        (Setup(nodes=(DeviceNode("/dev/null", "/dev/x", "x"),)), "permissions 'x': some of r, w and m"),
        (Setup(nodes=(DeviceNode("/dev/null", "/dev/x", "rr"),)), "permissions 'rr'"),
        (Setup(nodes=(DeviceNode("/dev/null", "/dev/x", ""),)), "permissions ''"),
        (Setup(cdi_names=("nvidia",)), "CDI name 'nvidia': write VENDOR/CLASS=NAME"),
        (Setup(cpus=(3, 2)), "ascending"),
    ],
)
async def test_a_setup_that_cannot_be(agent: Agent, setup: Setup, told: str) -> None:
    """It is refused with the plugin, the class and what is wrong, and the device is given back."""
    await agent.begin(agent.plugin("a", "one", setup=setup))
    with pytest.raises(Conflict, match=f"a: what its plugin a gives cannot be: .*{re.escape(told)}"):
        await agent.devices.prepare(KEY, [grant("a", "one")], agent.executor)
    assert [line.split()[0] for line in agent.ledger.lines] == ["prepare", "release"]


async def test_setups_that_do_not_go_together(agent: Agent) -> None:
    """Two plugins that want one variable with different values: refused, and nothing is kept."""
    one, two = agent.plugin("a", "x", setup=Setup((("V", "1"),))), agent.plugin("b", "x", setup=Setup((("V", "2"),)))
    await agent.begin(one, two)
    with pytest.raises(Conflict, match="set the variable V to different values"):
        await agent.devices.prepare(KEY, [grant("a", "x"), grant("b", "x")], agent.executor)
    assert (one.held, two.held) == ({}, {})


async def test_a_task_without_a_network_of_its_own(agent: Agent) -> None:
    """An executor that makes no network namespace cannot have interfaces, and the refusal says what can."""
    await agent.begin(agent.plugin(NETWORKS, "eno1"))
    with pytest.raises(
        Invalid, match=r"siemens.com/network: a task of executor wasm has no network of its own: run it"
    ):
        await agent.devices.prepare(KEY, [grant(NETWORKS, "eno1", executor="wasm")], WithoutNetworks())


@pytest.mark.parametrize(
    ("name", "device", "told"),
    [
        (NAME, "three", "device 'three' of 'example.org/fake' is not there any more"),
        (NAME, "two", "device 'two' of 'example.org/fake' cannot be had: it is ill"),
        ("lamp", "x", "lamp cannot be had: no plugin of this agent carries it"),
    ],
)
async def test_a_device_that_cannot_be_had(agent: Agent, name: str, device: str, told: str) -> None:
    """A device that is gone, or ill, or of a class that nobody carries is refused by name."""
    plugin = FakeDevices()
    plugin.set_problem("two", "it is ill")
    await agent.begin(plugin)
    with pytest.raises(Conflict, match=told):
        await agent.devices.prepare(KEY, [grant(name, device)], agent.executor)
    assert plugin.calls == []


@pytest.mark.parametrize(
    ("error", "evidence"),
    [
        (NotClean("pid 7 still has\nit open"), "pid 7 still has it open"),
        (RuntimeError("boom"), "it could not be released: boom"),
        (None, f"it could not be released: releasing {NAME} took longer than 0.01 s"),
    ],
)
async def test_what_is_not_clean_is_told(
    agent: Agent, error: Exception | None, evidence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evidence comes back by class, also for a plugin that takes too long; the other classes are released."""
    monkeypatch.setattr(manager, "RELEASE_S", 0.01)
    bad, good = FakeDevices(), agent.plugin("a", "one")
    grants = (grant("a", "one"), grant(NAME, "one"), grant("nobody", "x"))
    await agent.begin(bad, good)
    for _ in range(2):
        await agent.inventory()
    await agent.devices.prepare(KEY, grants[:2], agent.executor)
    bad.failures.release, bad.failures.hold = error, None if error else asyncio.Event()
    agent.devices.give_back(GiveBack(KEY, grants))
    away = "nobody cannot be had: no plugin of this agent carries it"
    assert (await agent.next(GivenBack)).evidence == {NAME: evidence, "nobody": away}
    assert good.held == {}


async def test_a_network_stays_until_its_interfaces_are_home(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """The namespace goes only after a clean release; an engine that is away is evidence."""
    plugin = agent.plugin(NETWORKS, "eno1")
    await agent.begin(plugin)
    await agent.inventory()
    plugin.failures.release = NotClean("eno1 is not home")
    agent.devices.give_back(GiveBack(KEY, (grant(NETWORKS, "eno1"),)))
    assert (await agent.next(GivenBack)).evidence == {NETWORKS: "eno1 is not home"}
    assert "no network of t" not in agent.ledger.lines

    async def away(key: TaskKey) -> None:
        raise Unavailable("the engine is away")

    plugin.failures.release = None
    monkeypatch.setattr(agent.executor, "drop_network", away)
    agent.devices.give_back(GiveBack(KEY, (grant(NETWORKS, "eno1"),)))
    assert (await agent.next(GivenBack)).evidence == {NETWORKS: "it could not be released: the engine is away"}


# --- preferences ---


def last(free: tuple[str, ...]) -> Iterable[str]:
    return reversed(free)


def nonsense(free: tuple[str, ...]) -> Iterable[str]:
    return ("elsewhere", *free)


def twice(free: tuple[str, ...]) -> Iterable[str]:
    return (free[0], free[0], free[0])


async def test_a_plugin_chooses(agent: Agent) -> None:
    """Each claim in turn gets what the plugin likes of what is still free; an answer that is none changes nothing."""
    plugin = FakeDevices(Inventory((DeviceClass(NAME, chooses=True),), fakes("1", "2", "3", "4")))
    await agent.begin(plugin)
    await agent.inventory()
    claims = (Granted("a", NAME, ("1", "2")), Granted("b", NAME, ("3",)))
    effect = Choose(KEY, GrantRecord(KEY, NAME, claims, "docker"), ("1", "2", "3", "4"))
    plugin.prefers = last
    agent.devices.choose(effect)
    assert await agent.next(Chosen) == Chosen(KEY, NAME, {"a": ("4", "3"), "b": ("2",)})
    for bad in (nonsense, twice):
        plugin.prefers = bad
        agent.devices.choose(effect)
        assert await agent.next(Chosen) == Chosen(KEY, NAME, {})


class Endless:
    """A plugin that has always something to say, and something to do at the end."""

    name = "endless"
    ended = False

    async def watch(self) -> AsyncIterator[Inventory]:
        try:
            while True:
                yield Inventory((DeviceClass(NAME),))
        finally:
            self.ended = True

    async def prepare(self, grant: Grant) -> Setup:
        return NO_SETUP

    async def release(self, grant: Grant) -> None:
        pass


async def test_a_plugin_ends_with_its_agent() -> None:
    """What a plugin does when nobody listens any more is done once the agent has closed it, whatever it was at."""
    devices, plugin = Devices(), Endless()
    devices.add(plugin)
    await devices.first(20)
    await devices.close()
    assert plugin.ended

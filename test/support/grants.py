"""An agent's core with devices, for tests: its plugins, its journal, and a master that orders as told."""

from __future__ import annotations

from itertools import count

from edgerm.core.blobs import digest_of
from edgerm.core.claims import Granted
from edgerm.core.devices import Device, DeviceClass, Inventory, resources_granted
from edgerm.core.effects import Drop, Put
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.instant import Instant
from edgerm.core.link import Beat, BeatAnswer, Join, Launch, Order, OrderBody, Welcome
from edgerm.core.resources import parse
from edgerm.core.scheduler import AgentSpec, BlobRef, Status, TaskSpec
from edgerm.plugin.executor import Handle
from edgerm_agent.core.agent import Agent, Identity
from edgerm_agent.core.effects import (
    Effect,
    Noted,
    Send,
    Start,
)
from edgerm_agent.core.events import (
    BeatAnswered,
    Event,
    Inventoried,
    JoinAnswered,
    Rang,
    Recovered,
    Started,
)
from edgerm_agent.core.records import LOCAL, GrantRecord, Record, halves, kind_of

CORE, USB, SHM, ACCEL = "siemens.com/isolated_core", "edgerm.io/usb", "siemens.com/shared_memory", "vendor.com/accel"
CORES = Inventory((DeviceClass(CORE),), tuple(Device(CORE, name) for name in ("cpu2", "cpu3")))
MEMORIES = Inventory((DeviceClass(SHM, shared=True),), (Device(SHM, "frames", shared=True),))
STICKS = Inventory((DeviceClass(USB, config_keys=("id", "on_loss")),), (Device(USB, "stick"),))
ACCELS = Inventory(
    (DeviceClass(ACCEL, chooses=True),),
    (Device(ACCEL, "a0"), Device(ACCEL, "a1"), Device(ACCEL, "a2", metadata='{"kind":"small"}')),
)
PLUGINS = {"cpu": CORES, "shm": MEMORIES, "hotplug": STICKS, "accel": ACCELS}
GONE = Inventory((DeviceClass(CORE, problem="its plugin is gone"),))


BLOB = BlobRef(digest_of(b"module"), 6)


def key(name: str) -> TaskKey:
    return TaskKey(FrameworkId("f"), TaskId(name), LaunchId(f"l-{name}"))


def local(name: str) -> TaskKey:
    return TaskKey(LOCAL, TaskId(name), LaunchId(f"l-{name}"))


def spec(name: str, *granted: Granted, executor: str = "process") -> TaskSpec:
    resources = parse("cpus:0.1") + resources_granted(granted)
    return TaskSpec(TaskId(name), AgentId("a"), resources, executor=executor, granted=granted)


def core(*ids: str, claim: str = "rt") -> Granted:
    return Granted(claim, CORE, ids)


def stick(rule: str) -> Granted:
    return Granted("disk", USB, ("stick",), config=f'{{"on_loss":"{rule}"}}')


def handle(name: str) -> Handle:
    return Handle(key(name), "process", "keeper-1")


class Box:
    """An agent's core, its journal, and a master that orders as told."""

    def __init__(self, rows: dict[tuple[str, str], Record] | None = None, starts: int = 1, alone: bool = False) -> None:
        self.rows = dict(rows or {})
        self.starts = starts
        identity = Identity(AgentId("a"), AgentSpec("box", resources=parse("cpus:4")), starts << 20, alone=alone)
        for half in halves(self.rows.values()):
            del self.rows[(kind_of(half), str(half.key))]
        self.agent = Agent(identity, tuple(self.rows.values()))
        self.now_s = 0.0
        self.request = 0
        self.numbers = count(1)
        self.sent: list[Send] = []
        self.changes: list[Put | Drop] = []  # of the latest event

    def up(self, *held: Handle, plugins: bool = True, awaited: dict[str, str] | None = None) -> list[Effect]:
        """All plugins have told what there is, then the executors are known, and the master takes the join."""
        for name, inventory in PLUGINS.items() if plugins else ():
            self.happen(Inventoried(name, inventory))
        instances = {} if awaited else {"process": "keeper-1"}
        effects = self.happen(Recovered(instances, {one.key: one for one in held}, awaited or {}))
        if self.sent:
            effects += self.happen(JoinAnswered(self.request, Welcome(77, 15.0)))
        return effects

    def happen(self, event: Event) -> list[Effect]:
        effects = self.agent.handle(event, Instant(self.now_s, 1e6 + self.now_s))
        self.changes = []
        for effect in effects:
            match effect:
                case Put(kind, row, record):
                    self.rows[(kind, row)] = record  # type: ignore[assignment]
                    self.changes.append(effect)
                case Drop(kind, row):
                    self.rows.pop((kind, row), None)
                    self.changes.append(effect)
                case Send(request):
                    self.request = request
                    self.sent.append(effect)
        return [effect for effect in effects if not isinstance(effect, Put | Drop | Send | Noted)]

    def order(self, body: OrderBody) -> list[Effect]:
        """The master answers the next beat with this."""
        self.beat()
        return self.happen(BeatAnswered(self.request, BeatAnswer(orders=(Order(next(self.numbers), body),))))

    def beat(self) -> Beat:
        """The beat under way, or one that a ring brings about; the master welcomes whoever joins before that."""
        if self.agent.due_s() is not None:
            self.happen(Rang())
        while isinstance(self.sent[-1].body, Join):
            self.happen(JoinAnswered(self.request, Welcome(77, 15.0)))
            self.numbers = count(1)
            self.happen(Rang())
        beat = self.sent[-1].body
        assert isinstance(beat, Beat)
        return beat

    def persist(self) -> None:
        """The master persists all updates that are under way."""
        while updates := self.beat().updates:
            self.happen(BeatAnswered(self.request, BeatAnswer(persisted=updates[-1].number)))

    def launch(self, task: TaskSpec) -> list[Effect]:
        return self.order(Launch(key(task.task_id), "*", task))

    def run(self, name: str, *granted: Granted) -> None:
        """Launch a task, and let it start."""
        [start] = self.launch(spec(name, *granted))
        assert isinstance(start, Start)
        self.happen(Started(key(name), handle(name)))

    def status(self, name: str) -> Status:
        """The latest that is owed of a task."""
        return self.agent.tasks[key(name)].run.owed[-1].status

    def retry_s(self) -> float:
        """When devices in quarantine are taken back again."""
        due_s = self.agent._stock.grants.next_s()
        assert due_s is not None
        return due_s

    def offered(self) -> set[str]:
        """The devices that the master may promise."""
        return {device.id for device in self.agent.spec.inventory.devices if device.offered}

    def grants(self) -> dict[str, GrantRecord]:
        return {row: record for (_, row), record in self.rows.items() if isinstance(record, GrantRecord)}

    def restarted(self, *held: Handle, plugins: bool = True) -> tuple[Box, list[Effect]]:
        """Another process over the same journal."""
        box = Box(self.rows, self.starts + 1)
        return box, box.up(*held, plugins=plugins)


def after(rows: dict[tuple[str, str], Record], changes: list[Put | Drop]) -> dict[tuple[str, str], Record]:
    """The journal with these changes."""
    found = dict(rows)
    for change in changes:
        if isinstance(change, Put):
            found[(change.kind, change.key)] = change.record  # type: ignore[assignment]
        else:
            found.pop((change.kind, change.key), None)
    return found

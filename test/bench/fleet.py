"""A master's core with many agents and frameworks, in this process: the real core, no loop, no disk, no link.

What does not live here: what is measured with it. A `Fleet` makes what the core is handed as small as it can be, so
that the core's own cost is seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from time import process_time_ns

from edgerm.core.ids import AgentId, FrameworkId, OfferId, StreamId, TaskId, TaskKey
from edgerm.core.instant import Instant
from edgerm.core.link import Beat, BeatAnswer, Join, Launch, Update, Welcome
from edgerm.core.resources import Resources, parse
from edgerm.core.scheduler import (
    Accept,
    Acknowledge,
    AgentSpec,
    Call,
    Capability,
    Event,
    FrameworkSpec,
    Status,
    Subscribed,
    TaskSpec,
)
from edgerm.core.scheduler import Update as Told
from edgerm.core.tasks import Source, TaskState
from edgerm.wire.codec.infos import agent_info, agent_spec, attributes_info
from edgerm.wire.v1.infos_pb2 import AgentInfo
from edgerm_master.core.effects import AnswerAgent, Effect, Tell, TellSoon
from edgerm_master.core.events import Beaten, Called, Joined, Subscribe, Tick
from edgerm_master.core.events import Event as Happening
from edgerm_master.core.master import Master, Settings

RESOURCES = "cpus:{cpus};mem:{mem};disk:65536;ports:[31000-32000]"
NEED = Resources.of(cpus=0.1, mem=32)
APART_S = 3.0  # between two joins, so that their offers expire one by one
FOREVER_S = 1e8  # no agent falls silent meanwhile


def spec_bytes(number: int, own_attributes: int = 0) -> bytes:
    """What an agent of an ordinary fleet says of itself when it joins: four resources, eight attributes.

    `own_attributes` of them (at most one) nobody else has; the others many agents share.
    """
    attributes = {
        "site": f"plant-{number % 40}",
        "zone": "abcd"[number % 4],
        "model": f"box-{number % 5}",
        "arch": ("x86_64", "aarch64")[number % 2],
        "kernel": f"6.1.0-{number % 3}",
        "serial" if own_attributes else "owner": f"SN{number:08d}" if own_attributes else "operations",
        "edgerm.executors": "{docker,process,wasm}",
        "edgerm.limits": "{cpu,memory,pids}",
    }
    name = f"edge-{number:06d}"
    spec = AgentSpec(
        hostname=f"{name}.example.net",
        name=name,
        resources=parse(RESOURCES.format(cpus=4 << number % 3, mem=4096 << number % 3)),
        info=attributes_info(f"{name}.example.net", attributes),
    )
    return agent_info(spec).SerializeToString()


def make_spec(number: int, own_attributes: int = 0) -> AgentSpec:
    """The same as a value, read as the link's codec reads it."""
    return agent_spec(AgentInfo.FromString(spec_bytes(number, own_attributes)))


def agent_id(number: int) -> AgentId:
    """An id of its own."""
    return AgentId(f"{number + 1:032x}")


class Box:
    """What an agent knows of its session."""

    __slots__ = ("incarnation", "number", "seen", "session")

    def __init__(self) -> None:
        self.session = self.seen = self.number = 0
        self.incarnation = 0


class Fleet:
    """`agents` joined, one after another; then `frameworks` subscribed, each in its own role or all in one."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.master = Master("bench", bytes(16), settings or Settings(FOREVER_S, offer_timeout_s=FOREVER_S))
        self.now_s = 0.0
        self.boxes: list[Box] = []
        self.frameworks: list[FrameworkId] = []
        self.told: deque[Status] = deque()  # updates that wait for an acknowledgement
        self._requests = count(1)
        self._tasks = count(1)
        self._welcome: Welcome | None = None
        self._answer: BeatAnswer | None = None
        self.longest_ns = 0
        self.sink: Callable[[Event], object] | None = None  # what a face does with an event, in the same turn

    # --- one event ---

    def do(self, event: Happening) -> int:
        """Let `event` happen; its CPU time in ns, with what the face does with what is told."""
        now = Instant(self.now_s, 1.7e9 + self.now_s)
        before = process_time_ns()
        effects = self.master.handle(event, now)
        if self.sink is not None:
            for effect in effects:
                if isinstance(effect, (Tell, TellSoon)):
                    self.sink(effect.event)
        spent = process_time_ns() - before
        self.longest_ns = max(self.longest_ns, spent)
        self._hear(effects)
        return spent

    def _hear(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, AnswerAgent):
                if isinstance(effect.answer, Welcome):
                    self._welcome = effect.answer
                elif isinstance(effect.answer, BeatAnswer):
                    self._answer = effect.answer
            elif isinstance(effect, Tell) and isinstance(effect.event, Told) and effect.event.status.uuid:
                self.told.append(effect.event.status)
            elif isinstance(effect, Tell) and isinstance(effect.event, Subscribed):
                self.frameworks.append(effect.event.framework_id)

    def settle(self) -> int:
        """Let the core do what is left over; the CPU time."""
        spent = 0
        while (due_s := self.master.due_s()) is not None and due_s <= self.now_s:
            spent += self.do(Tick())
        return spent

    def wait(self, seconds: float) -> None:
        """Let time pass, with a Tick whenever the core wants one."""
        end_s = self.now_s + seconds
        while (due_s := self.master.due_s()) is not None and due_s <= end_s:
            self.now_s = max(due_s, self.now_s)
            self.do(Tick())
        self.now_s = end_s

    # --- agents ---

    def join(self, number: int, spec: AgentSpec | None = None) -> int:
        """The agent joins, as a new incarnation if it is known; what that cost."""
        while len(self.boxes) <= number:
            self.boxes.append(Box())
        box = self.boxes[number]
        box.incarnation += 1
        spent = self.do(
            Joined(next(self._requests), Join(agent_id(number), box.incarnation, spec or make_spec(number)))
        )
        assert self._welcome is not None
        box.session, box.seen, box.number = self._welcome.session, 0, 0
        return spent

    def beat(self, number: int, *updates: Update) -> int:
        """The agent beats."""
        box = self.boxes[number]
        spent = self.do(Beaten(next(self._requests), Beat(box.session, box.seen, updates)))
        if self._answer is not None and self._answer.orders:
            box.seen = self._answer.orders[-1].number
        return spent

    def orders(self) -> list[TaskKey]:
        """The tasks that the latest answer orders to be launched."""
        orders = self._answer.orders if self._answer else ()
        return [order.body.key for order in orders if isinstance(order.body, Launch)]

    def news(self, number: int, key: TaskKey, state: TaskState) -> Update:
        """An update of a task, not yet sent."""
        box = self.boxes[number]
        box.number += 1
        seq = 1 if state is TaskState.RUNNING else 2
        uuid = box.number.to_bytes(8) + number.to_bytes(8)
        status = Status(key.task_id, state, agent_id(number), Source.EXECUTOR, uuid=uuid, launch_id=key.launch_id)
        return Update(key, seq, status, box.number)

    # --- frameworks ---

    def subscribe(self, number: int, known: FrameworkId | None = None, role: str = "*") -> int:
        """A framework subscribes; what the call and the first slice cost."""
        capabilities = frozenset({Capability.PARTITION_AWARE, Capability.MULTI_ROLE})
        spec = FrameworkSpec(f"framework-{number}", "bench", (role,), 600.0, capabilities)
        return self.do(Subscribe(StreamId(f"s{next(self._requests)}"), spec, known))

    def call(self, framework_id: FrameworkId, call: Call) -> int:
        """A framework calls."""
        return self.do(Called(next(self._requests), framework_id, call))

    def launch(self, offer_id: OfferId) -> tuple[int, TaskKey]:
        """The holder of the offer launches a small task and gives the rest back for no time at all."""
        offer = self.master.offers[offer_id]
        spec = TaskSpec(TaskId(f"task-{next(self._tasks)}"), offer.agent_id, NEED, executor="wasm", info=b"x" * 120)
        spent = self.call(offer.framework_id, Accept((offer_id,), (spec,), 0.0))
        return spent, self.master.frameworks[offer.framework_id].tasks[spec.task_id]

    def start(self, number: int, key: TaskKey) -> None:
        """The agent takes its orders over and tells that the task runs."""
        self.beat(number)
        self.beat(number, self.news(number, key, TaskState.RUNNING))
        self.acknowledge()

    def finish(self, number: int, key: TaskKey) -> int:
        """The agent tells that the task has ended; what that cost."""
        return self.beat(number, self.news(number, key, TaskState.FINISHED))

    def acknowledge(self) -> int:
        """The frameworks acknowledge what they were told; what that cost."""
        spent = 0
        while self.told:
            status = self.told.popleft()
            assert status.agent_id is not None
            for framework in self.master.frameworks.values():
                if status.task_id in framework.tasks:
                    call = Acknowledge(status.agent_id, status.task_id, status.uuid)
                    spent += self.call(framework.framework_id, call)
                    break
        return spent

    def forget(self, number: int) -> None:
        """The agent takes over what it may forget."""
        self.beat(number)
        self.beat(number)

"""An edge box in the simulator: the real agent core, and the tasks that run beside it and outlive it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from edgerm.core.claims import Granted
from edgerm.core.devices import resources_granted
from edgerm.core.ids import AgentId, LaunchId, TaskId, TaskKey
from edgerm.core.link import HTTP, Beat, BeatAnswer, Carrier, Frame, Join, JoinAnswer, Letter
from edgerm.core.resources import NOTHING
from edgerm.core.scheduler import AgentSpec, TaskSpec
from edgerm.core.tasks import TaskState
from edgerm.plugin.executor import Exit, ExitReason, Handle
from edgerm.testing.sim.clock import Clock
from edgerm.testing.sim.devices import CLASSES, MEMORY, Journaled, SimDevices
from edgerm.testing.sim.disk import Disk
from edgerm.testing.sim.network import Network
from edgerm.testing.sim.node import Node
from edgerm.testing.sim.output import Writers
from edgerm.testing.sim.talk import Talk
from edgerm_agent.core import effects
from edgerm_agent.core.agent import Agent, Identity
from edgerm_agent.core.events import (
    BeatAnswered,
    Chosen,
    Ended,
    Event,
    ExecutorFound,
    Fetched,
    GivenBack,
    InstanceChanged,
    Inventoried,
    JoinAnswered,
    KillLocal,
    LaunchLocal,
    Preparing,
    Rang,
    Recovered,
    Released,
    RequestFailed,
    SendFrame,
    SendMessage,
    Started,
    StartFailed,
    Tick,
)
from edgerm_agent.core.inventory import DeviceKey
from edgerm_agent.core.records import LOCAL, GrantRecord, Phase, Record, halves, kind_of

if TYPE_CHECKING:
    from edgerm.testing.sim.master import SimMaster

REQUEST_TIMEOUT_S = 10.0
AWAY = 0.4  # of an agent's starts, what holds the tasks answers only later
SLOW = 0.2  # of the tasks take long to start
IDLE_S = 5.0  # what holds the tasks sleeps after so long without any
UNPLUGGED = 0.3  # of the plugs in use
LATE = 0.3  # of the plugins say only after the agent's start what they have
RESTLESS = 0.3  # of the times it does not, for it still has something to clear away


@dataclass(slots=True)
class Running:
    """A task in the executor: alive, or ended and not released."""

    handle: Handle
    exit: Exit | None = None


class SimBox(Node[effects.Speech]):
    """One box. Its executor survives the agent's crash, not the loss of power; a host within it sleeps and wakes."""

    def __init__(
        self,
        clock: Clock,
        network: Network,
        master: SimMaster,
        agent_id: AgentId,
        spec: AgentSpec,
        carrier: Carrier = HTTP,
    ) -> None:
        super().__init__(clock)
        self.disk = Disk(clock, torn=True)
        self._carrier = carrier
        self._network = network
        self._master = master
        self._agent_id = agent_id
        self._spec = spec
        self._boots = 1
        self._starts = 0  # journaled before the first join, as the real shell does
        self._begin_session(0)
        self.executor: dict[TaskKey, Running] = {}
        self._hosts = 0
        self._host = ""  # the instance that takes tasks; empty: none runs
        self._unwanted: set[TaskKey] = set()  # starts that were abandoned
        self._stopped: set[TaskKey] = set()  # tasks that were asked to end
        self.started: dict[TaskKey, int] = {}  # the ledger: how often each task was ever started
        self._ever: set[TaskKey] = set()
        self.talk = Talk()  # of all tasks that ever ran here
        self.ended: dict[TaskKey, TaskState] = {}  # and how it ended, once that was on the disk
        self.devices = SimDevices(clock.random, self.later, Journaled(self._grant_on_disk, self._runs))
        self._locals = 0
        self.rough = True  # plugs are pulled
        self.on_start: Callable[[TaskKey], None] = lambda _key: None  # told of each first start
        self.duration_s: Callable[[TaskKey], float] = lambda _key: clock.random.expovariate(1 / 20)
        self.core = self._make()

    def _make(self) -> Agent:
        incarnation = self._starts << 20
        boot_id = f"boot{self._boots}"
        identity = Identity(self._agent_id, self._spec, incarnation, boot_id, b"jitter", self._carrier)
        records = cast("list[Record]", list(self.disk.rows.values()))
        for half in halves(records):
            self.disk.rows.pop((kind_of(half), str(half.key)))
        return Agent(identity, cast("list[Record]", list(self.disk.rows.values())), {"wasm": IDLE_S})

    def begin(self) -> None:
        self._starts += 1
        self._begin_session(0)
        self.core = self._make()
        self._unwanted = set()
        for plugin in CLASSES:
            if self.clock.random.random() < LATE:
                self.later(self.clock.random.uniform(0.0, 5.0), partial(self.tell_devices, plugin))
            else:
                self.tell_devices(plugin)
        if self.clock.random.random() < AWAY:
            instance = self._wake()
            self.post(Recovered(awaited={"wasm": "it is away"}))
            self.later(self.clock.random.uniform(0.1, 60.0), lambda: self._find(instance))
        else:
            self.post(Recovered({"wasm": self._host}, self._held()))

    def tell_devices(self, plugin: str) -> None:
        """The plugin says what it has."""
        self.post(Inventoried(plugin, self.devices.inventory(plugin)))

    def change_devices(self) -> None:
        """Somebody pulls a plug, or puts one in; or a plugin goes, or is there again."""
        self.tell_devices(self.devices.change())

    def calm_devices(self) -> None:
        """All devices are there, and their plugins."""
        self.rough = False
        self.devices.calm()
        for plugin in CLASSES:
            self.tell_devices(plugin)

    def claim_locally(self) -> None:
        """Somebody on the box takes a device for a while, if there is one."""
        free = self.core.free
        if not self.alive or not free:
            return
        device = self.clock.random.choice(free)
        self._locals += 1
        task_id = TaskId(f"local-{self._locals}")
        key = TaskKey(LOCAL, task_id, LaunchId(f"{self._agent_id}-{self._locals}"))
        granted = (Granted("mine", device.name, (device.id,), device.shared),)
        task = TaskSpec(task_id, self._agent_id, resources_granted(granted), executor="wasm", granted=granted)
        self.post(LaunchLocal(key, task))
        self.later(self.clock.random.uniform(0.0, 20.0), lambda: self.post(KillLocal(key)))

    def _grant_on_disk(self, key: str) -> GrantRecord | None:
        return cast("GrantRecord | None", self.disk.rows.get(("grant", key)))

    def _runs(self, key: TaskKey) -> bool:
        running = self.executor.get(key)
        return running is not None and running.exit is None

    def _held(self) -> dict[TaskKey, Handle]:
        return {key: running.handle for key, running in self.executor.items()}

    def _find(self, instance: str) -> None:
        """What was away is back; that it is told twice must do no harm."""
        self.post(ExecutorFound("wasm", instance, self._held()))
        self.later(1.0, lambda: self.post(ExecutorFound("wasm", instance, self._held())))

    def cut_power(self) -> None:
        """Everything on the box stops, tasks too."""
        if self.alive:
            self.crash()
        self.executor = {}
        self.devices.cut_power()
        self._host = ""
        self._boots += 1

    def due_s(self) -> float | None:
        return self.core.due_s()

    def tick(self) -> None:
        self.post(Tick())

    def post(self, event: Event) -> None:
        """Let `event` happen, if the agent lives."""
        if self.alive:
            made = self.core.handle(event, self.now)
            self._check(event)
            self.take(made)

    def _check(self, event: object) -> None:
        used = NOTHING
        for key, running in self.executor.items():
            if running.exit is None and key in self.core.tasks:
                used = used + self.core.tasks[key].record.task.resources
        used = used.only(lambda key: not key.name.startswith("sim/"))
        assert self._spec.resources.covers(used), f"{self._agent_id}, after {event}: {used} runs at once"
        self._check_devices(event)

    def _check_devices(self, event: object) -> None:
        """No exclusive device is given twice, and what is prepared for a task that is over is not offered."""
        holders: dict[DeviceKey, TaskKey] = {}
        for key, holding in self.core.grants.items():
            for device in (d for d in holding.devices() if d[0] != MEMORY):
                other = holders.setdefault(device, key)
                assert other == key, f"{self._agent_id}, after {event}: {device} is given to {key} and {other}"
        for told in self.core.spec.inventory.devices:
            for key in self.devices.prepared.get((told.name, told.id), ()):
                task = self.core.tasks.get(key)
                fine = not told.offered or (task is not None and task.live)
                assert fine, f"{self._agent_id}, after {event}: {told} is offered as it was left by {key}"

    def rang(self, session: int) -> None:
        """The doorbell of `session` rang."""
        if session == self._session:
            self.post(Rang())

    # --- what the core asks for ---

    def speak(self, effect: effects.Speech) -> None:
        random = self.clock.random
        match effect:
            case effects.Send(request, body):
                self._note_ends(body)
                self._send(request, body)
            case effects.SessionBegan(session):
                self._begin_session(session)
                self.later(0.001, lambda: self.post(Rang()))
            case effects.Fetch(key, _, wakes):
                self.later(random.uniform(0.01, 3.0), lambda: self._fetched(key, wakes))
            case effects.Start(key, _, grants):
                self.devices.prepare(key, grants, partial(self._prepared, key))
            case effects.GiveBack() | effects.Choose():
                self._ask_plugins(effect)
            case effects.Abandon(key, _):
                self._unwanted.add(key)
            case effects.Watch(handle):
                self._watch(handle)
            case effects.Sleep():
                self.later(0.0, self._fall_asleep)  # before whoever wakes it
            case effects.Stop(handle, grace_s):
                self._stopped.add(handle.key)
                self.clock.after(random.uniform(0.0, grace_s), lambda: self._end(handle, Exit(signal=15)))
            case effects.Release(key, _):
                running = self.executor.get(key)
                ends = running is None or running.exit is not None or key in self._stopped
                assert ends, f"{key} is released while it runs"
                self.later(random.uniform(0.0, 0.05), lambda: self._release(key))
            case effects.MessageIn() | effects.FramesIn():
                self._hear(effect)
            case effects.Discard() | effects.Dismissed() | effects.LocalRefused() | effects.LocalEnded():
                pass

    def _ask_plugins(self, effect: effects.GiveBack | effects.Choose) -> None:
        key = effect.key
        if isinstance(effect, effects.GiveBack):
            self.devices.release(key, effect.grants, lambda evidence: self.post(GivenBack(key, evidence)))
        else:
            chosen = Chosen(key, effect.grant.name, self.devices.choose(effect))
            self.later(self.clock.random.uniform(0.0, 0.5), lambda: self.post(chosen))

    def _hear(self, effect: effects.MessageIn | effects.FramesIn) -> None:
        if isinstance(effect, effects.MessageIn):
            self._answer(effect.letter)
            return
        for frame in effect.frames:
            self._writers.take(frame)

    def _answer(self, letter: Letter) -> None:
        """A task that hears something says up to two things."""
        self.talk.hear(letter.key, letter.data)
        for _ in range(self.clock.random.randrange(3)):
            data = self.talk.say(letter.key)
            self.later(0.0, partial(self.post, SendMessage(Letter(letter.key, data))))

    def _begin_session(self, session: int) -> None:
        def send(frame: Frame) -> None:
            self.later(0.0, lambda: self.post(SendFrame(frame)) if session == self._session else None)

        self._session = session
        self._writers = Writers(send, self._carrier.data_bytes)

    def _note_ends(self, body: Join | Beat) -> None:
        if isinstance(body, Beat):
            ends = {update.key: update.status.state for update in body.updates if update.status.state.terminal}
            for key, state in ends.items():
                assert self.ended.setdefault(key, state) is state, f"{key} ended as {self.ended[key]} and as {state}"

    def _send(self, request: int, body: Join | Beat) -> None:
        self.later(REQUEST_TIMEOUT_S, lambda: self.post(RequestFailed(request)))
        life = self.life

        def answered(answer: JoinAnswer | BeatAnswer) -> None:
            self._network.carry(self._agent_id, answer, lambda got: self._answered(life, request, got))

        self._network.carry(self._agent_id, body, lambda got: self._master.agent_asks(got, self._carrier, answered))

    def _answered(self, life: int, request: int, answer: JoinAnswer | BeatAnswer) -> None:
        if life != self.life:
            return
        if isinstance(answer, BeatAnswer):
            self.post(BeatAnswered(request, answer))
        else:
            self.post(JoinAnswered(request, answer))

    # --- the executor ---

    def _fetched(self, key: TaskKey, wakes: str) -> None:
        if wakes:
            self.post(InstanceChanged("wasm", self._wake()))
        self.post(Fetched(key))

    def _wake(self) -> str:
        if not self._host:
            self._hosts += 1
            self._host = f"host{self._hosts}"
        return self._host

    def _fall_asleep(self) -> None:
        if self.executor or self.clock.random.random() < RESTLESS:
            self.post(InstanceChanged("wasm", self._host))
        else:
            self._host = ""

    def _prepared(self, key: TaskKey, why: str) -> None:
        if why:
            self.post(StartFailed(key, why))
        else:
            self._prepare(key)

    def _release(self, key: TaskKey) -> None:
        task = self.core.tasks.get(key)
        if task is not None and task.run.phase is Phase.WAITING:
            self.started.pop(key, None)  # it may be started anew
        self.executor.pop(key, None)
        self._stopped.discard(key)
        self.post(Released(key))

    def _prepare(self, key: TaskKey) -> None:
        random = self.clock.random
        if random.random() >= SLOW:
            self.later(random.uniform(0.0, 0.05), lambda: self._start(key))
            return
        takes_s = random.uniform(0.1, 30.0)
        for part in (0.1, 0.2, 0.9):
            self.later(takes_s * part, lambda: self.post(Preparing(key, "it takes long")))
        self.later(takes_s, lambda: self._start(key))

    def _start(self, key: TaskKey) -> None:
        running = self.executor.get(key)
        if running is None and key in self._unwanted:
            self.post(StartFailed(key, "it was given up"))
            return
        if running is None:
            self._maybe_unplug(key)
            if key not in self._ever:
                self._ever.add(key)
                self.on_start(key)
            self.started[key] = self.started.get(key, 0) + 1
            assert self._host, f"{key} is started while nothing is there to hold it"
            running = self.executor[key] = Running(Handle(key, "wasm", self._host))
            code = 0 if self.clock.random.random() < 0.8 else 1
            handle = running.handle
            self.clock.after(self.duration_s(key), lambda: self._end(handle, Exit(code=code)))
        self.post(Started(key, running.handle))
        self._tell_end(running)

    def _maybe_unplug(self, key: TaskKey) -> None:
        """The plug of a running task's device is pulled, and put in again."""
        random = self.clock.random
        for device in self.devices.plugs(key):
            if self.rough and random.random() < UNPLUGGED:
                away_s = random.uniform(0.0, 10.0)
                self.clock.after(away_s, partial(self._plug, device, False))
                self.clock.after(away_s + random.uniform(0.0, 30.0), partial(self._plug, device, True))

    def _plug(self, device: DeviceKey, is_in: bool) -> None:
        if is_in:
            self.devices.absent.discard(device)
        elif self.rough:
            self.devices.absent.add(device)
        self.tell_devices("usb")

    def _watch(self, handle: Handle) -> None:
        running = self.executor.get(handle.key)
        if running is None or running.handle != handle:
            gone = Exit(ExitReason.EXECUTOR_DIED)
            self.later(0.0, lambda: self.post(Ended(handle.key, gone)))
        else:
            self._tell_end(running)

    def _end(self, handle: Handle, end: Exit) -> None:
        running = self.executor.get(handle.key)
        if running is not None and running.handle == handle and running.exit is None:
            running.exit = end
            self._tell_end(running)

    def _tell_end(self, running: Running) -> None:
        if running.exit is not None:
            end, key = running.exit, running.handle.key
            self.later(0.0, partial(self.post, Ended(key, end)))

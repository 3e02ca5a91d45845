"""Starting tasks on executors that answer late, wrongly or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from edgerm.core.claims import Granted
from edgerm.core.errors import Conflict, Unavailable
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.plugin.executor import Exit, ExitReason, Handle, LaunchSpec, Tell, unheard
from edgerm.store.blobs import BlobStore
from edgerm.testing.devices import NAME, FakeDevices
from edgerm.testing.executors import FakeExecutor, Script
from edgerm.wire.codec.tasks import task_spec_from_bytes
from edgerm.wire.v1.tasks_pb2 import CommandInfo, TaskInfo
from edgerm_agent import tasks as module
from edgerm_agent.blobs import Blobs
from edgerm_agent.containers import Allowed
from edgerm_agent.core.effects import Abandon, Release, Start, Watch
from edgerm_agent.core.events import Ended, Event, Preparing, Started, StartFailed
from edgerm_agent.core.records import GrantRecord
from edgerm_agent.devices.manager import Devices
from edgerm_agent.launch import Users
from edgerm_agent.sandboxes import Sandboxes
from edgerm_agent.tasks import Tasks

KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
AGENT = AgentId("0" * 32)


def start(**command: object) -> Start:
    """A task to be started."""
    message = TaskInfo(name="t", command=CommandInfo(**{"value": "x", **command}))  # type: ignore[arg-type]
    message.task_id.value, message.agent_id.value = "t", AGENT
    return Start(KEY, task_spec_from_bytes(message.SerializeToString()))


class Flaky(FakeExecutor):
    """Fails the first start as it is told, before or after the task has begun."""

    fault: Callable[[Flaky], None] | None = None
    begins = True

    async def start(self, spec: LaunchSpec, tell: Tell = unheard) -> Handle:
        """See `Executor.start`."""
        fault, self.fault = self.fault, None
        if fault is None:
            return await super().start(spec, tell)
        if self.begins:
            await super().start(spec, tell)
        fault(self)
        raise Unavailable("no answer")


def dies(executor: Flaky) -> None:
    """The process behind the executor is replaced by another."""
    executor.instance = "second"
    executor.tasks.clear()


class Bench:
    """Tasks on one flaky executor, and what they tell."""

    def __init__(self, path: Path) -> None:
        self.executor = Flaky(lambda spec: Script(exit=None), name="process", instance="first")
        self.blobs = Blobs(BlobStore(path / "b", 1 << 20), set)
        self.sandboxes = Sandboxes(path / "s", 1e6, 1 << 20, tuple)
        self.devices = Devices()
        self.tasks = Tasks(
            AGENT,
            {"process": self.executor},
            self.blobs,
            self.sandboxes,
            None,  # type: ignore[arg-type]  # nothing is fetched here
            Users("me"),
            Allowed(),
            self._instance,
            self.devices,
        )
        self.away = ""  # what is waited for
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self.tasks.begin(self._events.put_nowait, lambda handle: None)

    async def _instance(self, name: str) -> str:
        if self.away:
            raise Unavailable(self.away)
        return self.executor.instance

    async def next(self) -> Event:
        """What was told next."""
        async with asyncio.timeout(20):
            return await self._events.get()


@pytest_asyncio.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """A bench that retries at once."""
    monkeypatch.setattr(module, "RETRY_FIRST_S", 0.001)
    made = Bench(tmp_path)
    yield made
    await made.tasks.close()
    await made.devices.close()
    await made.blobs.close()


@pytest.mark.parametrize("begins", [True, False])
async def test_a_start_without_an_answer_is_repeated(bench: Bench, begins: bool) -> None:
    """When the executor is the same as before, the start is repeated, and the task runs once."""
    bench.executor.fault, bench.executor.begins = (lambda executor: None), begins
    bench.tasks.start(start())
    handle = Handle(KEY, "process", "first")
    assert await bench.next() == Started(KEY, handle)
    bench.executor.end(KEY, Exit(code=3))
    assert await bench.next() == Ended(KEY, Exit(code=3))


async def test_a_start_is_never_repeated_elsewhere(bench: Bench) -> None:
    """When what was asked to start the task died, the task is lost: it may have run, and must not run twice."""
    bench.executor.fault = dies
    bench.tasks.start(start())
    event = await bench.next()
    assert isinstance(event, Ended)
    assert event.exit.reason is ExitReason.EXECUTOR_DIED
    assert bench.executor.tasks == {}


async def test_a_start_that_fails_for_too_long(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that is not possible for so long is given up, with the reason."""
    monkeypatch.setattr(module, "START_S", 0.0)
    bench.executor.fault, bench.executor.begins = (lambda executor: None), False
    bench.tasks.start(start())
    event = await bench.next()
    assert isinstance(event, StartFailed)
    assert "no answer" in event.why


async def test_a_start_waits_for_what_is_away(bench: Bench) -> None:
    """While the executor's engine is away the task is told to wait for it; it starts when the engine is back."""
    bench.away = "waits for the engine"
    bench.tasks.start(start())
    assert await bench.next() == Preparing(KEY, "waits for the engine")
    bench.away = ""
    assert await bench.next() == Started(KEY, Handle(KEY, "process", "first"))


async def test_a_kill_ends_the_wait(bench: Bench) -> None:
    """A start that waits for an engine is given up at once when it is abandoned, and never done."""
    bench.away = "waits for the engine"
    bench.tasks.start(start())
    await bench.next()
    bench.tasks.abandon(Abandon(KEY, "process"))
    event = await bench.next()
    assert isinstance(event, StartFailed)
    assert "killed" in event.why
    bench.away = ""
    bench.tasks.abandon(Abandon(KEY, "process"))
    assert bench.executor.tasks == {}


async def test_a_start_abandoned_before_it_began_is_never_done(bench: Bench) -> None:
    """An abandon right behind its start finds it."""
    bench.tasks.start(start())
    bench.tasks.abandon(Abandon(KEY, "process"))
    assert isinstance(await bench.next(), StartFailed)
    assert bench.executor.tasks == {}


async def test_what_is_prepared_is_told_and_can_be_abandoned(bench: Bench) -> None:
    """News of the executor becomes Preparing, the latest of a burst last; abandoned, the start fails."""
    bench.executor.script = lambda spec: Script(preparing=("1 %",))
    bench.tasks.start(start())
    assert await bench.next() == Preparing(KEY, "1 %")
    bench.tasks.abandon(Abandon(KEY, "process"))
    event = await bench.next()
    assert isinstance(event, StartFailed)
    assert "abandoned" in event.why


async def test_what_was_prepared_starts(bench: Bench) -> None:
    """After its preparations the task starts."""
    bench.executor.script = lambda spec: Script(None, preparing=("1 %",))
    bench.tasks.start(start())
    await bench.next()
    bench.executor.prepared(KEY)
    assert await bench.next() == Started(KEY, Handle(KEY, "process", "first"))


async def test_an_abandoned_attempt_without_an_answer_is_looked_at(bench: Bench) -> None:
    """A start that may have happened is not given up: the executor is asked, and what runs is told."""
    bench.executor.fault = lambda executor: bench.tasks.abandon(Abandon(KEY, "process"))
    bench.tasks.start(start())
    assert await bench.next() == Started(KEY, Handle(KEY, "process", "first"))


async def test_what_cannot_be_started(bench: Bench) -> None:
    """A TaskInfo without anything to run fails, and says why."""
    bench.tasks.start(start(value="", shell=False))
    event = await bench.next()
    assert isinstance(event, StartFailed)
    assert "nothing to run" in event.why


async def test_a_task_that_is_gone_is_told(bench: Bench) -> None:
    """A task that was to be taken back and is not there is told as lost."""
    bench.tasks.watch(Watch(Handle(KEY, "process", "before")))
    event = await bench.next()
    assert isinstance(event, Ended)
    assert event.exit.reason is ExitReason.EXECUTOR_DIED


async def test_output_is_kept_before_the_executor_forgets(bench: Bench) -> None:
    """A release keeps both streams beside the sandbox, then frees the executor."""
    bench.tasks.start(start())
    event = await bench.next()
    assert isinstance(event, Started)
    bench.executor.write(KEY, "stdout", b"out")
    bench.executor.write(KEY, "stderr", b"err")
    bench.executor.end(KEY, Exit(code=0))
    await bench.next()
    bench.tasks.release(Release(KEY, event.handle))
    assert bench.tasks.releasing(KEY) is None or bench.tasks.releasing(KEY) == event.handle
    async with asyncio.timeout(20):
        await asyncio.gather(*bench.tasks._running)
    assert bench.executor.tasks == {}
    assert bench.sandboxes.output(KEY, "stdout", 0, 100).data == b"out"
    assert bench.sandboxes.output(KEY, "stderr", 0, 100).data == b"err"


# --- with devices ---


class Keeps(FakeDevices):
    """A fake that keeps tasks without devices off some CPUs."""

    def plain_cpus(self) -> tuple[int, ...]:
        return (0, 1)


@pytest_asyncio.fixture
async def plugin(bench: Bench) -> Keeps:
    """A plugin of the bench."""
    made = Keeps()
    bench.devices.add(made)
    await bench.devices.first()
    return made


def start_with(device: str) -> Start:
    """A task that was given this device."""
    grant = GrantRecord(KEY, NAME, (Granted(NAME, NAME, (device,)),), "process")
    return replace(start(), grants=(grant,))


async def test_devices_are_prepared_before_the_start(bench: Bench, plugin: Keeps) -> None:
    """What they give is in the launch; one without devices keeps off the CPUs of others."""
    bench.tasks.start(start_with("two"))
    assert isinstance(await bench.next(), Started)
    spec = bench.executor.tasks[KEY].spec
    assert ("FAKE_DEVICES", "two") in spec.env
    assert spec.cpus == (0, 1)
    assert list(plugin.held.values()) == [("two",)]


async def test_a_device_that_cannot_be_prepared(bench: Bench, plugin: Keeps) -> None:
    """The task fails with the plugin's words, and never reaches the executor."""
    plugin.failures.prepare = Conflict("the lamp is broken")
    bench.tasks.start(start_with("one"))
    assert await bench.next() == StartFailed(KEY, "the lamp is broken")
    assert (bench.executor.tasks, plugin.held) == ({}, {})


async def test_devices_that_are_not_ready_are_waited_for(bench: Bench, plugin: Keeps) -> None:
    """What is not possible now is tried again, until it took too long."""
    plugin.failures.prepare = Unavailable("the engine is away")
    bench.tasks.start(start_with("one"))
    async with asyncio.timeout(20):
        while len(plugin.calls) < 4:  # prepare and release, twice
            await asyncio.sleep(0)
    plugin.failures.prepare = None
    assert isinstance(await bench.next(), Started)


async def test_a_start_abandoned_while_devices_are_prepared(
    bench: Bench, plugin: Keeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill does not wait long for a plugin."""
    monkeypatch.setattr(module, "FINISH_S", 0.01)
    plugin.failures.hold = asyncio.Event()
    bench.tasks.start(start_with("one"))
    while not plugin.calls:
        await asyncio.sleep(0)
    bench.tasks.abandon(Abandon(KEY, "process"))
    event = await bench.next()
    assert isinstance(event, StartFailed)
    assert "killed" in event.why
    assert bench.executor.tasks == {}


async def test_a_kill_ends_the_wait_for_devices(bench: Bench, plugin: Keeps, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start whose devices are not ready is given up when it is abandoned, without another attempt."""
    monkeypatch.setattr(module, "FINISH_S", 0.01)
    monkeypatch.setattr(module, "RETRY_FIRST_S", 3600.0)
    plugin.failures.prepare = Unavailable("the engine is away")
    bench.tasks.start(start_with("one"))
    async with asyncio.timeout(20):
        while len(plugin.calls) < 2:  # prepare and release
            await asyncio.sleep(0)
    bench.tasks.abandon(Abandon(KEY, "process"))
    event = await bench.next()
    assert isinstance(event, StartFailed)
    assert [call[0] for call in plugin.calls] == ["prepare", "release"]

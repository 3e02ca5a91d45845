"""An agent without tasks: speaks the real link over HTTP, and answers launches at once from memory.

For tests and benches of the master. What does not live here: anything that runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import uuid4

import aiohttp

from edgerm.core.claims import Granted
from edgerm.core.devices import NO_INVENTORY, Inventory, resources_of
from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.link import (
    HTTP,
    AgentHalf,
    Close,
    Credit,
    Data,
    Forget,
    Frame,
    Intake,
    Join,
    Kill,
    Launch,
    OpenLog,
    OpenStats,
    Request,
    Stats,
    TaskReport,
    TaskUsage,
    Update,
)
from edgerm.core.resources import parse
from edgerm.core.scheduler import AgentSpec, Status
from edgerm.core.tasks import Source, TaskState
from edgerm.wire.codec import link as codec

HEADERS = {"Content-Type": "application/x-protobuf"}
PATIENCE_S = 60.0  # so that a test that waits for what does not come fails
OnLaunch = Callable[[Launch], tuple[TaskState, ...]]


def runs(launch: Launch) -> tuple[TaskState, ...]:
    """Every task just runs on."""
    return (TaskState.RUNNING,)


def finishes(launch: Launch) -> tuple[TaskState, ...]:
    """Every task runs and finishes at once."""
    return (TaskState.RUNNING, TaskState.FINISHED)


@dataclass
class FakeAgent:
    """`async with FakeAgent(url):` joins, and beats until the block is left."""

    url: str
    resources: str = "cpus:4;mem:2048;disk:10000;ports:[31000-32000]"
    on_launch: OnLaunch = runs
    agent_id: AgentId = field(default_factory=lambda: AgentId(uuid4().hex))
    output: bytes = b""  # of every task, for those who read logs
    info: bytes = b""  # AgentInfo with attributes
    inventory: Inventory = NO_INVENTORY  # its devices, which are resources as well
    extra: bytes = b""  # TaskStatus with what every status says besides: data, labels …
    incarnation: int = 1
    launches: list[Launch] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    forgotten: list[TaskKey] = field(default_factory=list)
    tasks: dict[TaskKey, tuple[Launch, TaskState, int]] = field(default_factory=dict)
    usages: tuple[TaskUsage, ...] | None = ()  # what it says of its tasks; None: it does not answer
    opened: list[OpenLog | OpenStats] = field(default_factory=list)  # streams
    joined: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> FakeAgent:
        resources = parse(self.resources) + resources_of(self.inventory.devices)
        name = f"fake-{self.agent_id[:4]}"
        spec = AgentSpec("127.0.0.1", name, 5051, resources, self.info, inventory=self.inventory)
        self.half = AgentHalf(self.agent_id, spec, self.incarnation, seed=self.agent_id.encode())
        self._http = aiohttp.ClientSession()
        self._logs: dict[int, int] = {}  # up to where each was sent
        self._changed = asyncio.Event()
        self._news = asyncio.Event()
        self._works = [asyncio.create_task(self._run()), asyncio.create_task(self._listen())]
        await self.joined.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        for work in self._works:
            work.cancel()
        await asyncio.gather(*self._works, return_exceptions=True)
        await self._http.close()

    async def until(self, condition: Callable[[FakeAgent], bool]) -> None:
        """Wait until `condition` holds; it is looked at after each answer of the master."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    def report(self, key: TaskKey, state: TaskState, message: str = "", granted: tuple[Granted, ...] = ()) -> None:
        """Let the task change its state; `granted`: the devices that it took."""
        launch, _, seq = self.tasks[key]
        self.tasks[key] = (launch, state, seq + 1)
        status = Status(
            key.task_id,
            state,
            self.agent_id,
            Source.EXECUTOR,
            None,
            message,
            uuid4().bytes,
            launch_id=key.launch_id,
            granted=granted,
            extra=self.extra,
        )
        self.half.report(Update(key, seq + 1, status))
        self._news.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            polled = self.half.poll(loop.time(), self._reports())
            if polled is None:
                due_s = self.half.due_s(loop.time())
                self._news.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if due_s is None else max(0.0, due_s - loop.time())):
                        await self._news.wait()
                continue
            number, request = polled
            try:
                self._handle(await self._ask(number, request))
            except aiohttp.ClientError:
                self.half.failed(number, loop.time())
            self._changed.set()

    def _reports(self) -> list[TaskReport]:
        return [
            TaskReport(key, state, seq, launch.role, launch.task) for key, (launch, state, seq) in self.tasks.items()
        ]

    async def _ask(self, number: int, request: Request) -> Intake:
        loop = asyncio.get_running_loop()
        if isinstance(request, Join):
            body = await self._post("/link/v1/join", codec.encode_join(request))
            intake = self.half.join_answered(number, codec.decode_join_answer(body), loop.time())
        else:
            body = await self._post("/link/v1/beat", codec.encode_beat(request, self.agent_id))
            intake = self.half.beat_answered(number, codec.decode_beat_answer(body, self.agent_id), loop.time())
        return intake

    async def _post(self, path: str, body: bytes) -> bytes:
        async with self._http.post(self.url + path, data=body, headers=HEADERS) as answer:
            if answer.status == 503:  # a master that is stopping; the next one is found by trying again
                raise aiohttp.ClientConnectionError(await answer.text())
            if answer.status not in (200, 409):
                raise AssertionError(f"{path}: {answer.status} {await answer.text()}")
            return await answer.read()

    def _handle(self, intake: Intake) -> None:
        if intake.joined:
            self.joined.set()
            self._news.set()
        for order in intake.orders:
            body = order.body
            if isinstance(body, Launch):
                self._launch(body)
            elif isinstance(body, Kill):
                self.kills.append(body)
                if body.key in self.tasks and not self.tasks[body.key][1].terminal:
                    self.report(body.key, TaskState.KILLED)
            elif isinstance(body, Forget):
                self.tasks.pop(body.key, None)
                self.forgotten.append(body.key)
        if intake.orders:
            self.half.ring()  # tell at once what was seen
        for frame in intake.frames:
            self._frame(frame)

    def _launch(self, launch: Launch) -> None:
        if launch.key in self.tasks:
            return
        self.launches.append(launch)
        self.tasks[launch.key] = (launch, TaskState.STAGING, 0)
        for state in self.on_launch(launch):
            self.report(launch.key, state)

    def _frame(self, frame: Frame) -> None:
        body = frame.body
        if isinstance(body, OpenLog):
            if body.key not in self.tasks:
                self.half.send(Frame(frame.stream, Close(f"not found: task {body.key}")))
                return
            start = max(0, body.offset if body.offset >= 0 else len(self.output) + body.offset)
            self.opened.append(body)
            self._logs[frame.stream] = start
            self._pour(frame.stream, body.credit_bytes)
        elif isinstance(body, Credit) and frame.stream in self._logs:
            self._pour(frame.stream, body.credit_bytes)
        elif isinstance(body, Close):
            self._logs.pop(frame.stream, None)
        elif isinstance(body, OpenStats):
            self.opened.append(body)
            if self.usages is not None:
                self.half.send(Frame(frame.stream, Stats(self.usages, end=True)))
                self._news.set()

    def _pour(self, stream: int, credit_bytes: int) -> None:
        start, end = self._logs[stream], False
        while credit_bytes > 0 and not end:
            data = self.output[start : start + min(credit_bytes, HTTP.data_bytes)]
            end = start + len(data) == len(self.output)
            self.half.send(Frame(stream, Data(start, data, end)))
            start, credit_bytes = start + len(data), credit_bytes - len(data)
        self._logs[stream] = start
        if end:
            del self._logs[stream]
        self._news.set()

    async def _listen(self) -> None:
        """The doorbell."""
        await self.joined.wait()
        while True:
            with suppress(aiohttp.ClientError):
                url = f"{self.url}/link/v1/doorbell?session={self.half.session}"
                async with self._http.get(url, timeout=aiohttp.ClientTimeout(None)) as answer:
                    self.half.ring()  # what rang before is not heard again
                    self._news.set()
                    async for line in answer.content:
                        if line == b"ring\n":
                            self.half.ring()
                            self._news.set()
            await asyncio.sleep(0.05)

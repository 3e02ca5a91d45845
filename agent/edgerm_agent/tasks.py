"""Tasks on their way: fetch what they need, start them, await their end, stop, release. Tells the core what happened.

What does not live here: what follows from it (`edgerm_agent.core`). Every step may be repeated; a step that fails for
a reason that may pass is tried again for as long as it takes, because only the executor knows what runs.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from edgerm import logs
from edgerm.core.errors import EdgermError, NotFound, Unavailable
from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.scheduler import TaskSpec
from edgerm.plugin.device import Setup
from edgerm.plugin.executor import Executor, Exit, ExitReason, Handle, LaunchFailed, LaunchSpec, Stream
from edgerm_agent.blobs import Blobs, Source
from edgerm_agent.containers import Allowed
from edgerm_agent.core.effects import Abandon, Discard, Fetch, Release, Start, Stop, Watch
from edgerm_agent.core.events import Ended, Event, Fetched, FetchFailed, Preparing, Released, Started, StartFailed
from edgerm_agent.devices.manager import Devices
from edgerm_agent.executors.local import LOCAL
from edgerm_agent.launch import CONTAINERS, Users, launch_spec
from edgerm_agent.mailbox import Mailboxes
from edgerm_agent.news import News
from edgerm_agent.sandboxes import Sandboxes

RETRY_FIRST_S = 0.1
RETRY_MAX_S = 15.0
START_S = 60.0  # a start that fails for a reason that may pass is given up after so long
OUTPUT_BYTES_MAX = 1 << 20  # of each stream, kept after the end
STREAMS: tuple[Stream, ...] = ("stdout", "stderr")
FINISH_S = 5.0  # how long a kill waits for devices that are just prepared, rather than break that off
UNWANTED = "killed before it was started"

T = TypeVar("T")
log = logs.get("agent.tasks")


@dataclass(frozen=True, slots=True)
class _Starting:
    """A start under way."""

    news: News
    unwanted: asyncio.Event = field(default_factory=asyncio.Event)

    def check(self) -> None:
        """Raises `LaunchFailed` if the task shall not start any more."""
        if self.unwanted.is_set():
            raise LaunchFailed(UNWANTED)


class Tasks:
    """Carries out the core's effects on tasks.

    `instance` tells an executor's present instance, started if need be; `devices` makes a task's devices ready.
    """

    def __init__(
        self,
        agent_id: AgentId,
        executors: Mapping[str, Executor],
        blobs: Blobs,
        sandboxes: Sandboxes,
        source: Source,
        users: Users,
        allowed: Allowed,
        instance: Callable[[str], Awaitable[str]],
        devices: Devices,
        mailboxes: Mailboxes | None = None,
    ) -> None:
        self._agent_id = agent_id
        self._executors = executors
        self._blobs = blobs
        self._sandboxes = sandboxes
        self._source = source
        self._users = users
        self._allowed = allowed
        self._instance = instance
        self._devices = devices
        self._mailboxes = mailboxes or Mailboxes()
        self._running: set[asyncio.Task[None]] = set()
        self._starting: dict[TaskKey, _Starting] = {}
        self._releasing: dict[TaskKey, Handle] = {}
        self._closed = False
        self._post: Callable[[Event], None] = lambda event: None
        self._seen: Callable[[Handle], None] = lambda handle: None

    def begin(self, post: Callable[[Event], None], seen: Callable[[Handle], None]) -> None:
        """Whom to tell what happened, and whom which instance started a task."""
        self._post, self._seen = post, seen

    # --- what the core asks for ---

    def fetch(self, effect: Fetch) -> None:
        """Get what the task needs."""
        self._go(self._fetch(effect))

    def start(self, effect: Start) -> None:
        """Start the task and await its end."""
        starting = _Starting(News(lambda line: self._post(Preparing(effect.key, line))))
        self._starting[effect.key] = starting
        self._go(self._start(effect, starting))

    def abandon(self, effect: Abandon) -> None:
        """Do not start the task, if that can still be helped."""
        starting = self._starting.get(effect.key)
        if starting is not None:
            starting.unwanted.set()
            executor = self._executors[effect.executor]
            self._go(self._insist(effect.key, lambda: executor.abandon(effect.key)))

    def watch(self, effect: Watch) -> None:
        """Await the end of a task that runs already."""
        self._go(self._take_back(effect.handle))

    def stop(self, effect: Stop) -> None:
        """End the task."""
        executor = self._executors[effect.handle.executor]
        self._go(self._insist(effect.handle.key, lambda: executor.stop(effect.handle, effect.grace_s)))

    def release(self, effect: Release) -> None:
        """Keep the output of the ended task, then let its executor forget it."""
        self._go(self._release(effect.key, effect.handle))

    def releasing(self, key: TaskKey) -> Handle | None:
        """The handle of a task that has ended and whose output is not in its sandbox yet."""
        return self._releasing.get(key)

    def discard(self, effect: Discard) -> None:
        """The task is forgotten."""
        self._mailboxes.close(effect.key)
        self._sandboxes.discard(effect.key)

    async def close(self) -> None:
        """Stop waiting, and start nothing more; the tasks themselves go on."""
        self._closed = True
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _go(self, work: Coroutine[Any, Any, None]) -> None:
        if self._closed:
            work.close()
            return
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task was lost sight of by a fault of ours", exc_info=error)

    # --- how it is done ---

    async def _fetch(self, effect: Fetch) -> None:
        try:
            for ref in effect.needs:
                await self._blobs.fetch(ref, self._source)
            if name := effect.wakes:
                await self._insist(effect.key, lambda: self._instance(name), START_S)
        except EdgermError as error:
            self._post(FetchFailed(effect.key, str(error)))
        else:
            self._post(Fetched(effect.key))

    async def _start(self, effect: Start, starting: _Starting) -> None:
        key, executor = effect.key, self._executors[effect.task.executor]
        try:
            setup = await self._prepare(effect, executor, starting)
            spec = await self._spec_surely(key, effect.task, setup)
            if spec.messages is None:
                self._mailboxes.refuse(key)
            else:
                self._mailboxes.open(key, spec.sandbox, executor.name)
            handle = await self._start_surely(executor, spec, starting)
        except LaunchFailed as error:
            self._post(StartFailed(key, str(error)))
            return
        finally:
            starting.news.close()
            del self._starting[key]
        if handle is None:
            self._post(Ended(key, Exit(ExitReason.EXECUTOR_DIED, message="what started the task died meanwhile")))
            return
        self._seen(handle)
        self._post(Started(key, handle))
        await self._await_end(executor, handle)

    async def _prepare(self, effect: Start, executor: Executor, starting: _Starting) -> Setup:
        """What its devices give it. Raises `LaunchFailed`; then the core asks for them back."""
        key, grants = effect.key, effect.grants
        work = asyncio.ensure_future(self._insist(key, lambda: self._devices.prepare(key, grants, executor), START_S))
        unwanted = asyncio.ensure_future(starting.unwanted.wait())
        try:
            await asyncio.wait({work, unwanted}, return_when=asyncio.FIRST_COMPLETED)
            if unwanted.done():
                await asyncio.wait({work}, timeout=FINISH_S)
            starting.check()
            return work.result()
        except EdgermError as error:
            raise LaunchFailed(str(error)) from error
        finally:
            unwanted.cancel()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _spec_surely(self, key: TaskKey, task: TaskSpec, setup: Setup) -> LaunchSpec:
        """What to start; a blob that is gone is fetched again. Raises `LaunchFailed`."""
        try:
            while True:
                try:
                    return self._spec(key, task, setup)
                except NotFound as error:  # evicted, or lost with the disk's last seconds, between fetch and start
                    log.info("a blob of a task is gone again", task=str(key), error=str(error))
                for ref in task.needs:
                    await self._blobs.fetch(ref, self._source)
        except EdgermError as error:
            raise LaunchFailed(str(error)) from error

    def _spec(self, key: TaskKey, task: TaskSpec, setup: Setup) -> LaunchSpec:
        if task.executor == LOCAL:  # nothing is started: whoever asked for the devices is told their setup
            return LaunchSpec(key, "", (), (), self._sandboxes.place(key))
        info = task.info or (self._blobs.read(task.info_blob) if task.info_blob else b"")
        return launch_spec(
            key,
            task,
            info,
            agent_id=self._agent_id,
            sandbox=self._sandboxes.make(key, shared=task.executor == CONTAINERS),
            blob_path=self._blobs.path,
            users=self._users,
            allowed=self._allowed,
            setup=setup,
            plain_cpus=self._devices.plain_cpus(),
        )

    async def _start_surely(self, executor: Executor, spec: LaunchSpec, starting: _Starting) -> Handle | None:
        """The handle; None: it may have been started by a process that died since. Raises `LaunchFailed`.

        An attempt without an answer leaves open whether the task runs. Asked again, the same process starts it once;
        another process would start it a second time.
        """
        loop = asyncio.get_running_loop()
        before = await self._reach(executor.name, starting)
        until, wait_s = loop.time() + START_S, RETRY_FIRST_S
        while True:
            try:
                return await executor.start(spec, starting.news)
            except Unavailable as error:
                log.warning("a task does not start yet", task=str(spec.key), error=str(error))
                why = error
            held = (await self._insist(spec.key, executor.inspect)).held
            if not any(handle.key == spec.key for handle in held):
                if await self._insist(spec.key, lambda: self._instance(executor.name)) != before:
                    await self._insist(spec.key, lambda: executor.adopt(Handle(spec.key, executor.name, before)))
                    return None
                starting.check()
                if loop.time() > until:
                    raise LaunchFailed(f"it was tried for {START_S:.0f} s: {why}") from why
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_MAX_S)

    async def _reach(self, name: str, starting: _Starting) -> str:
        """The executor's instance, however long that takes: nothing was asked for yet, so a kill ends the wait.

        Raises `LaunchFailed` then.
        """
        wait_s = RETRY_FIRST_S
        unwanted = asyncio.ensure_future(starting.unwanted.wait())
        try:
            while True:
                asked = asyncio.ensure_future(self._instance(name))
                try:
                    await asyncio.wait({asked, unwanted}, return_when=asyncio.FIRST_COMPLETED)
                    starting.check()
                    return asked.result()
                except Unavailable as error:
                    log.info("an executor is waited for", executor=name, error=str(error))
                    starting.news(str(error))
                finally:
                    asked.cancel()
                await asyncio.wait({unwanted}, timeout=wait_s)
                starting.check()
                wait_s = min(2 * wait_s, RETRY_MAX_S)
        finally:
            unwanted.cancel()

    async def _take_back(self, handle: Handle) -> None:
        executor = self._executors[handle.executor]
        if not await self._insist(handle.key, lambda: executor.adopt(handle)):
            self._post(Ended(handle.key, Exit(ExitReason.EXECUTOR_DIED, message="what held the task is gone")))
            return
        self._mailboxes.reopen(handle.key, self._sandboxes.place(handle.key), handle.executor)
        await self._await_end(executor, handle)

    async def _await_end(self, executor: Executor, handle: Handle) -> None:
        try:
            exited = await self._insist(handle.key, lambda: executor.wait(handle))
        except NotFound as error:
            exited = Exit(ExitReason.EXECUTOR_DIED, message=str(error))
        self._mailboxes.close(handle.key)
        self._releasing[handle.key] = handle  # from now on the core knows it no longer; its output is still there
        self._post(Ended(handle.key, exited))

    async def _release(self, key: TaskKey, handle: Handle) -> None:
        executor = self._executors[handle.executor]
        self._releasing[key] = handle
        try:
            with suppress(NotFound):
                await self._insist(key, lambda: executor.wait(handle))
                for stream in STREAMS:
                    await self._keep(executor, handle, stream)
            await self._insist(key, lambda: executor.release(handle))
        finally:
            self._releasing.pop(key, None)
        self._post(Released(key))

    async def _keep(self, executor: Executor, handle: Handle, stream: Stream) -> None:
        last = -OUTPUT_BYTES_MAX
        chunk = await self._insist(handle.key, lambda: executor.output(handle, stream, last, OUTPUT_BYTES_MAX, 0.0))
        try:
            await asyncio.to_thread(self._sandboxes.save, handle.key, stream, chunk)
        except EdgermError as error:
            log.warning("the output of a task is lost", task=str(handle.key), stream=stream, error=str(error))

    async def _insist(self, key: TaskKey, work: Callable[[], Awaitable[T]], patience_s: float = math.inf) -> T:
        """Do it, again and again while it is not possible now; raises `Unavailable` when that took too long."""
        loop = asyncio.get_running_loop()
        until, wait_s = loop.time() + patience_s, RETRY_FIRST_S
        while True:
            try:
                return await work()
            except Unavailable as error:
                log.warning("it is not possible now, trying again", task=str(key), error=str(error))
                if loop.time() > until:
                    raise
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_MAX_S)

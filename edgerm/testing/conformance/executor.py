"""The suite that every executor passes (`edgerm.plugin.executor.Executor`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TypeAlias

import pytest
import pytest_asyncio

from edgerm.core.errors import NotFound
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.plugin.executor import Executor, ExitReason, Handle, Intake, LaunchFailed, LaunchSpec

DEADLINE_S = 60
TAIL_BYTES_MAX = 4096

Make: TypeAlias = Callable[[], Awaitable[Executor]]
NewSpec: TypeAlias = Callable[[], LaunchSpec]


class ExecutorSuite:
    """Subclass it as `TestMyExecutor`: say how to make the executor, and how a task of its kind does what is needed."""

    async def make_executor(self, path: Path) -> Executor:
        """An executor whose state lies in `path`; of two with one path, the second finds what the first started."""
        raise NotImplementedError

    async def close_executor(self, executor: Executor) -> None:
        """Leave the executor as an ending agent does: its tasks stay."""

    async def discard(self, path: Path) -> None:
        """End whatever serves `path` and all its tasks."""

    def task_that_ends(self, spec: LaunchSpec, code: int, stdout: bytes, stderr: bytes) -> LaunchSpec:
        """`spec` so that the task writes these (printable) and exits with `code`."""
        raise NotImplementedError

    def task_that_runs(self, spec: LaunchSpec) -> LaunchSpec:
        """`spec` so that the task runs until it is stopped, and writes a line beginning with `up` at its start."""
        raise NotImplementedError

    def task_that_cannot_start(self, spec: LaunchSpec) -> LaunchSpec:
        """`spec` so that the task can never start."""
        return replace(spec, program="", argv=())

    @pytest_asyncio.fixture
    async def make(self, tmp_path: Path) -> AsyncIterator[Make]:
        """Makes executors on one path; everything is ended afterwards."""
        path = tmp_path / "data"
        path.mkdir()
        made: list[Executor] = []

        async def make_one() -> Executor:
            made.append(await self.make_executor(path))
            return made[-1]

        yield make_one
        for executor in made:
            await self.close_executor(executor)
        await self.discard(path)

    @pytest_asyncio.fixture
    async def executor(self, make: Make) -> Executor:
        """One executor."""
        return await make()

    @pytest.fixture
    def spec(self, tmp_path: Path) -> NewSpec:
        """Makes launches, each with a key and a sandbox of its own."""
        numbers = count(1)

        def make_spec() -> LaunchSpec:
            number = next(numbers)
            sandbox = tmp_path / f"sandbox-{number}"
            sandbox.mkdir()
            key = TaskKey(FrameworkId("framework-1"), TaskId(f"task-{number}"), LaunchId("launch-1"))
            return LaunchSpec(key, "task", ("task",), (), sandbox)

        return make_spec

    @pytest.fixture
    def ending(self, spec: NewSpec) -> LaunchSpec:
        """A task that writes to both streams and ends with code 3."""
        return self.task_that_ends(spec(), 3, b"some output\n", b"a complaint\n")

    @pytest.fixture
    def running(self, spec: NewSpec) -> LaunchSpec:
        """A task that runs until it is stopped."""
        return self.task_that_runs(spec())

    @pytest.fixture
    def failing(self, spec: NewSpec) -> LaunchSpec:
        """A task that cannot start."""
        return self.task_that_cannot_start(spec())

    async def test_an_exit_tells_its_code_and_the_tail(self, executor: Executor, ending: LaunchSpec) -> None:
        """A task that ends by itself is reported with its exit code, one line of message, and the end of its stderr."""
        async with asyncio.timeout(DEADLINE_S):
            exit_ = await executor.wait(await executor.start(ending))
        assert (exit_.reason, exit_.code, exit_.signal, exit_.trap) == (ExitReason.ENDED, 3, None, None)
        assert "\n" not in exit_.message
        assert len(exit_.tail.encode()) <= TAIL_BYTES_MAX

    async def test_an_open_input_takes_each_byte_once(self, executor: Executor, spec: NewSpec) -> None:
        """An input that stays open skips what it has, is closed once, and refuses what comes after that."""
        async with asyncio.timeout(DEADLINE_S):
            handle = await executor.start(replace(self.task_that_runs(spec()), stdin_open=True))
            assert await executor.put_input(handle, 0, b"", False, 0.0) == Intake(0)
            assert await executor.put_input(handle, 0, b"abc", False, DEADLINE_S) == Intake(3)
            assert await executor.put_input(handle, 1, b"bcde", True, DEADLINE_S) == Intake(5, closed=True)
            assert await executor.put_input(handle, 5, b"", True, 0.0) == Intake(5, closed=True)
            with pytest.raises(NotFound):
                await executor.put_input(handle, 5, b"f", False, 0.0)
            await executor.stop(handle, 0.0)
            await executor.wait(handle)
            with pytest.raises(NotFound):
                await executor.put_input(handle, 5, b"f", False, 0.0)

    async def test_an_input_that_is_not_open(self, executor: Executor, running: LaunchSpec) -> None:
        """A task that was started without an open input has none."""
        async with asyncio.timeout(DEADLINE_S):
            handle = await executor.start(running)
            with pytest.raises(NotFound):
                await executor.put_input(handle, 0, b"x", False, 0.0)
            await executor.stop(handle, 0.0)
            await executor.wait(handle)

    async def test_output_is_read_by_offset(self, executor: Executor, ending: LaunchSpec) -> None:
        """Each stream is read from its start, from the middle and from before its end, and says when it has ended."""
        handle = await executor.start(ending)
        async with asyncio.timeout(DEADLINE_S):
            await executor.wait(handle)
        whole = await executor.output(handle, "stdout", 0, 1000, 0)
        assert (whole.offset, whole.data, whole.ended) == (0, b"some output\n", True)
        part = await executor.output(handle, "stdout", 5, 3, 0)
        assert (part.offset, part.data, part.ended) == (5, b"out", False)
        end = await executor.output(handle, "stderr", -6, 1000, 0)
        assert (end.offset, end.data, end.ended) == (6, b"laint\n", True)

    async def test_a_start_is_done_once(self, executor: Executor, running: LaunchSpec) -> None:
        """Starting the same key again, even at the same time, answers the first task's handle and starts nothing."""
        async with asyncio.timeout(DEADLINE_S):
            first, second = await asyncio.gather(executor.start(running), executor.start(running))
            third = await executor.start(running)
            assert first == second == third
            assert (await executor.inspect()).held == (first,)
            await executor.stop(first, 0)
            ended = await executor.wait(first)
            assert await executor.start(running) == first
            assert await executor.wait(first) == ended

    async def test_a_task_that_cannot_start(self, executor: Executor, failing: LaunchSpec) -> None:
        """A launch that can never succeed raises `LaunchFailed` with one line, and nothing is held afterwards."""
        with pytest.raises(LaunchFailed) as caught:
            await executor.start(failing)
        assert str(caught.value)
        assert "\n" not in str(caught.value)
        assert (await executor.inspect()).held == ()

    async def test_what_is_not_being_started_is_not_abandoned(self, executor: Executor, running: LaunchSpec) -> None:
        """To abandon a task that runs, or that nobody knows, does nothing."""
        async with asyncio.timeout(DEADLINE_S):
            await executor.abandon(running.key)
            handle = await executor.start(running)
            await executor.abandon(running.key)
            assert (await executor.inspect()).held == (handle,)
            await executor.stop(handle, 0)
            await executor.wait(handle)

    async def test_stop_ends_a_task(self, executor: Executor, running: LaunchSpec) -> None:
        """A stopped task ends, not with success, and stopping it again or after its end is no error."""
        async with asyncio.timeout(DEADLINE_S):
            handle = await executor.start(running)
            await executor.stop(handle, 5)
            await executor.stop(handle, 0)
            exit_ = await executor.wait(handle)
            await executor.stop(handle, 0)
        assert exit_.reason is ExitReason.ENDED
        assert exit_.code != 0
        assert (exit_.code is not None) + (exit_.signal is not None) + (exit_.trap is not None) == 1

    async def test_all_who_wait_are_told(self, executor: Executor, running: LaunchSpec) -> None:
        """Any number may wait for one task, also after its end, and all see the same exit."""
        async with asyncio.timeout(DEADLINE_S):
            handle = await executor.start(running)
            waiters = [asyncio.create_task(executor.wait(handle)) for _ in range(3)]
            waiters[0].cancel()
            await executor.stop(handle, 0)
            exits = [await waiter for waiter in waiters[1:]]
            assert exits == [await executor.wait(handle)] * 2
        assert waiters[0].cancelled()

    async def test_output_can_be_awaited(self, executor: Executor, running: LaunchSpec) -> None:
        """A read at the end of a running task's output waits, and is answered when the task ends."""
        async with asyncio.timeout(DEADLINE_S):
            handle = await executor.start(running)
            first = await executor.output(handle, "stdout", 0, 1000, DEADLINE_S)
            assert first.data.startswith(b"up")
            at = first.offset + len(first.data)
            nothing = await executor.output(handle, "stderr", 0, 1000, 0)
            assert (nothing.data, nothing.ended) == (b"", False)
            reader = asyncio.create_task(executor.output(handle, "stderr", 0, 1000, DEADLINE_S))
            await executor.stop(handle, 0)
            await executor.wait(handle)
            assert (await reader).ended or (await reader).data
            assert (await executor.output(handle, "stdout", at, 1000, DEADLINE_S)).ended

    async def test_release_forgets(self, executor: Executor, ending: LaunchSpec) -> None:
        """A released task is held no more, its output is gone, and a second release is no error."""
        async with asyncio.timeout(DEADLINE_S):
            handle = await executor.start(ending)
            await executor.wait(handle)
            await executor.release(handle)
            await executor.release(handle)
            assert (await executor.inspect()).held == ()
            assert not await executor.adopt(handle)
            with pytest.raises(NotFound):
                await executor.output(handle, "stdout", 0, 10, 0)

    async def test_a_new_agent_adopts(
        self, executor: Executor, make: Make, running: LaunchSpec, ending: LaunchSpec
    ) -> None:
        """A second executor on the same state finds running and ended tasks, waits for them and stops them."""
        async with asyncio.timeout(DEADLINE_S):
            runs, ended = await executor.start(running), await executor.start(ending)
            exit_ = await executor.wait(ended)
            await self.close_executor(executor)
            later = await make()
            assert set((await later.inspect()).held) == {runs, ended}
            assert await later.adopt(runs)
            assert await later.adopt(ended)
            assert await later.wait(ended) == exit_
            await later.stop(runs, 0)
            assert (await later.wait(runs)).code != 0

    async def test_an_unknown_instance_is_not_adopted(self, executor: Executor, running: LaunchSpec) -> None:
        """A handle of a holder that is gone, or of a task never started, is not adopted; release and stop ignore it."""
        async with asyncio.timeout(DEADLINE_S):
            handle = await executor.start(running)
            key = handle.key._replace(launch_id=LaunchId("launch-2"))
            for stranger in (replace(handle, key=key, instance="gone"), replace(handle, key=key)):
                assert not await executor.adopt(stranger)
                await executor.stop(stranger, 0)
                await executor.release(stranger)
            assert await executor.adopt(handle)

    async def test_usage_never_fails(self, executor: Executor, running: LaunchSpec) -> None:
        """Usage is a measure with no negative number, or None; for what is not held it is None."""
        async with asyncio.timeout(DEADLINE_S):
            handle = await executor.start(running)
            usage = await executor.usage(handle)
            stranger = Handle(handle.key._replace(launch_id=LaunchId("launch-2")), handle.executor, handle.instance)
            assert await executor.usage(stranger) is None
        assert usage is None or (usage.cpu_s >= 0 and usage.memory_bytes >= 0)

    async def test_tasks_do_not_mix(self, executor: Executor, spec: NewSpec) -> None:
        """Twenty tasks at once each end with their own code and their own output."""
        specs = [self.task_that_ends(spec(), code, b"task %d\n" % code, b"") for code in range(20)]
        async with asyncio.timeout(DEADLINE_S):
            handles = await asyncio.gather(*map(executor.start, specs))
            exits = await asyncio.gather(*map(executor.wait, handles))
            chunks = [await executor.output(handle, "stdout", 0, 100, 0) for handle in handles]
        assert [exit_.code for exit_ in exits] == list(range(20))
        assert [chunk.data for chunk in chunks] == [b"task %d\n" % code for code in range(20)]


class PreparingExecutorSuite(ExecutorSuite):
    """For executors whose starts may take long: what they fetch before a task runs."""

    async def task_that_prepares(self, spec: LaunchSpec) -> LaunchSpec:
        """`spec` so that its start tells at least one line, and does not come to an end by itself."""
        raise NotImplementedError

    async def test_a_start_that_prepares_can_be_abandoned(self, executor: Executor, spec: NewSpec) -> None:
        """A start that takes long tells about it in lines; abandoned, it raises `LaunchFailed`, and nothing is held."""
        preparing = await self.task_that_prepares(spec())
        told: asyncio.Queue[str] = asyncio.Queue()
        async with asyncio.timeout(DEADLINE_S):
            start = asyncio.create_task(executor.start(preparing, told.put_nowait))
            line = await told.get()
            await executor.abandon(preparing.key)
            with pytest.raises(LaunchFailed):
                await start
            assert (await executor.inspect()).held == ()
        assert line
        assert "\n" not in line

"""The docker executor on a real engine: the suite that every executor passes, on containers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.engine import IMAGE, TestEngine
from support.slow_registry import slow_registry

from edgerm.core.ids import AgentId
from edgerm.plugin.executor import ContainerSpec, LaunchSpec
from edgerm.testing.conformance.executor import PreparingExecutorSuite
from edgerm_agent.executors.docker.executor import DockerExecutor


class TestOnARealEngine(PreparingExecutorSuite):
    """Tasks are containers of busybox; the state lies in the engine, under the agent's id."""

    @pytest.fixture(autouse=True)
    def _on(self, engine: TestEngine) -> None:
        self.engine = engine

    def agent_of(self, path: Path) -> AgentId:
        """One agent for each path."""
        return AgentId(f"agent-{path.stat().st_ino}")

    async def make_executor(self, path: Path) -> DockerExecutor:
        """On the tests' engine."""
        return DockerExecutor(self.agent_of(path), self.engine.url)

    async def close_executor(self, executor: DockerExecutor) -> None:  # type: ignore[override]
        """The containers go on."""
        await executor.close()

    async def discard(self, path: Path) -> None:
        """Remove the containers."""
        executor = await self.make_executor(path)
        await executor.end_tasks()
        await executor.close()

    def task_that_ends(self, spec: LaunchSpec, code: int, stdout: bytes, stderr: bytes) -> LaunchSpec:
        """A script."""
        script = 'printf %s "$1"; printf %s "$2" >&2; exit $3'
        argv = ("-c", script, "sh", stdout.decode(), stderr.decode(), str(code))
        return replace(spec, program="/bin/sh", argv=argv, container=ContainerSpec(IMAGE, "none"))

    def task_that_runs(self, spec: LaunchSpec) -> LaunchSpec:
        """A script."""
        argv = ("-c", "echo up; exec sleep 1000")
        return replace(spec, program="/bin/sh", argv=argv, container=ContainerSpec(IMAGE, "none"))

    def task_that_cannot_start(self, spec: LaunchSpec) -> LaunchSpec:
        """A program that the image does not have."""
        return replace(spec, program="/no/such", argv=(), container=ContainerSpec(IMAGE, "none"))

    async def task_that_prepares(self, spec: LaunchSpec) -> LaunchSpec:
        """An image whose pull takes long."""
        return replace(spec, program="", argv=(), container=ContainerSpec(self.slow_image, "none"))

    @pytest.fixture(autouse=True)
    async def _registry(self, engine: TestEngine) -> AsyncIterator[None]:
        async with slow_registry(engine) as registry:
            self.slow_image = registry.image
            yield

"""The fake executor keeps the promises of an executor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgerm.core.ids import TaskKey
from edgerm.plugin.executor import Executor, Exit, LaunchSpec
from edgerm.testing.conformance.executor import PreparingExecutorSuite
from edgerm.testing.executors import FakeExecutor, FakeTask, Script

RUN = "run"
PREPARE = "prepare"


def follow(spec: LaunchSpec) -> Script:
    """The script that the test wrote into the command."""
    if spec.argv == (RUN,):
        return Script(None, b"up\n")
    if spec.argv == (PREPARE,):
        return Script(preparing=("halfway",))
    code, stdout, stderr = spec.argv
    return Script(Exit(code=int(code)), stdout.encode(), stderr.encode())


class TestFakeExecutor(PreparingExecutorSuite):
    """The fake passes the suite that real executors pass."""

    @pytest.fixture(autouse=True)
    def _hold(self) -> None:
        self.tasks: dict[TaskKey, FakeTask] = {}

    async def make_executor(self, path: Path) -> Executor:
        """One on the shared tasks."""
        return FakeExecutor(follow, tasks=self.tasks)

    def task_that_ends(self, spec: LaunchSpec, code: int, stdout: bytes, stderr: bytes) -> LaunchSpec:
        """By script."""
        return replace(spec, argv=(str(code), stdout.decode(), stderr.decode()))

    def task_that_runs(self, spec: LaunchSpec) -> LaunchSpec:
        """By script."""
        return replace(spec, argv=(RUN,))

    async def task_that_prepares(self, spec: LaunchSpec) -> LaunchSpec:
        """By script."""
        return replace(spec, argv=(PREPARE,))

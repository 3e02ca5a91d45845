"""The stage that the tests of the master's core play on."""

from __future__ import annotations

import pytest
from support.stage import Stage


@pytest.fixture
def stage() -> Stage:
    """A master that knows nobody."""
    return Stage()


@pytest.fixture
def pair(stage: Stage) -> Stage:
    """A master with one agent a1 (4 cpus, 1024 MiB), and framework f1 that has been offered all of it."""
    stage.join("a1")
    stage.subscribe("f1")
    stage.hear("f1")
    return stage

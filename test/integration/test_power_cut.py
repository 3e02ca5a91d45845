"""A power cut at any commit: the master that is started on what SQLite's log then holds accepts its own state.

`test_store_powercut.py` shows which rows are there; here they are the master's, and its invariants judge them.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest
from support.stage import Stage, task

from edgerm.core.effects import Drop, Put
from edgerm.core.ids import TaskKey
from edgerm.core.instant import Instant
from edgerm.core.scheduler import Kill, Teardown
from edgerm.core.tasks import TaskState
from edgerm.store.sqlite import SqliteStore
from edgerm_master.core.effects import Effect
from edgerm_master.core.events import Event
from edgerm_master.core.invariants import broken
from edgerm_master.core.master import Master
from edgerm_master.registry import Registry

HEADER_BYTES, FRAME_BYTES = 32, 24 + 4096


class StoredStage(Stage):
    """A stage whose master writes to a real store: each event's changes are one commit."""

    def __init__(self, store: SqliteStore) -> None:
        super().__init__()
        self._registry = Registry(store)

    def happen(self, event: Event) -> list[Effect]:
        effects = super().happen(event)
        changes = [effect for effect in effects if isinstance(effect, (Put, Drop))]
        if changes:
            self._registry.write(changes)
        return effects


def live(stage: Stage) -> None:
    """A life with everything in it: agents that come and go, tasks in every state, a framework that ends."""
    stage.join("a1", "cpus:8;mem:4096")
    stage.subscribe("f1")
    stage.hear("f1")
    stage.accept("f1", *(task(f"t{number}", "a1", "cpus:0.5;mem:64") for number in range(6)))
    stage.beats()
    for number in range(5):
        stage.report("a1", f"t{number}", TaskState.RUNNING)
    for status in stage.hear_updates("f1")[:4]:
        stage.acknowledge("f1", status)
    stage.report("a1", "t0", TaskState.FINISHED)
    stage.report("a1", "t1", TaskState.FAILED)
    for status in stage.hear_updates("f1"):
        stage.acknowledge("f1", status)
    stage.beats()
    stage.call("f1", Kill(stage.key("f1", "t2").task_id))
    stage.pass_time(200.0)
    stage.join("a1")
    stage.beats()
    stage.subscribe("f2")
    stage.call("f1", Teardown())
    stage.beats()


@pytest.fixture
def stored(tmp_path: Path) -> tuple[bytes, bytes]:
    """The database and its log after `live`, with nothing of the log folded in."""
    path = tmp_path / "registry.db"
    with closing(SqliteStore(path)) as store:
        database = path.read_bytes()
        live(StoredStage(store))
        log = path.with_name(path.name + "-wal").read_bytes()
    shutil.rmtree(tmp_path / "cuts", ignore_errors=True)
    return database, log


def test_every_cut_leaves_a_state_that_holds(stored: tuple[bytes, bytes], tmp_path: Path) -> None:
    """Cut after any frame of the log, a new master recovers a state in which every invariant holds."""
    database, log = stored
    cuts = range(HEADER_BYTES, len(log) + 1, FRAME_BYTES)
    assert len(cuts) > 30
    seen: set[int] = set()
    for cut in cuts:
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        path = folder / "registry.db"
        path.write_bytes(database)
        path.with_name("registry.db-wal").write_bytes(log[:cut])
        with closing(SqliteStore(path)) as store:
            master = Master("m1", bytes(16))
            master.recover(Registry(store).load(), Instant(0.0, 0.0))
        assert broken(master.world) == []
        assert all(isinstance(key, TaskKey) for key in master.tasks)
        seen.add(len(master.tasks))
        shutil.rmtree(folder)
    assert {0, 6} <= seen

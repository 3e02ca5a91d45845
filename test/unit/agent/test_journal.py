"""The agent's journal."""

from __future__ import annotations

import pytest

from edgerm.core.effects import Drop, Put
from edgerm.core.errors import Invalid
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.link import Update
from edgerm.core.resources import parse
from edgerm.core.scheduler import Status, TaskSpec
from edgerm.core.tasks import TaskState
from edgerm.plugin.executor import Handle
from edgerm.store import api
from edgerm.store.memory import MemoryStore
from edgerm_agent.core.records import Phase, RunRecord, TaskRecord
from edgerm_agent.journal import Journal

FIRST, SECOND = AgentId("1" * 32), AgentId("2" * 32)


def records(name: str) -> tuple[TaskRecord, RunRecord]:
    """A task's two records."""
    key = TaskKey(FrameworkId("f"), TaskId(name), LaunchId("l"))
    task = TaskSpec(TaskId(name), FIRST, parse("cpus:1;ports:[1-2]"), executor="process", info=b"\x00\xff")
    update = Update(key, 1, Status(TaskId(name), TaskState.RUNNING, FIRST, uuid=bytes(16)))
    handle = Handle(key, "process", "instance", 7)
    run = RunRecord(key, Phase.RUNNING, TaskState.RUNNING, "instance", handle, 1, (update,), kill_grace_s=1.5)
    return TaskRecord(key, "*", task), run


def puts(*kept: TaskRecord | RunRecord) -> list[Put]:
    """Changes that store these."""
    return [Put("task" if isinstance(record, TaskRecord) else "run", str(record.key), record) for record in kept]


def test_an_agent_keeps_its_id_and_counts_its_starts() -> None:
    """The id is made once; each start has a higher incarnation than all that an earlier one can have used."""
    store = MemoryStore()
    first = Journal(store).begin(FIRST)
    second = Journal(store).begin(SECOND)
    assert (first.agent_id, second.agent_id) == (FIRST, FIRST)
    assert first.incarnation + 1000 < second.incarnation < 2**63


def test_records_come_back() -> None:
    """What was written is loaded as it was, and what was dropped is not."""
    store = MemoryStore()
    journal = Journal(store)
    journal.begin(FIRST)
    kept, gone = records("kept"), records("gone")
    journal.write(puts(*kept, *gone))
    journal.write([Drop("task", str(gone[0].key)), Drop("run", str(gone[0].key))])
    assert sorted(map(repr, Journal(store).load())) == sorted(map(repr, kept))


@pytest.mark.parametrize("half", [0, 1])
def test_half_a_task_is_no_task(half: int) -> None:
    """One of a task's two records, as a crash between two batches leaves it, is removed for good."""
    store = MemoryStore()
    Journal(store).write(puts(*records("whole"), records("half")[half]))
    assert {record.key.task_id for record in Journal(store).load()} == {"whole"}
    assert len(list(store.load())) == 2


def test_a_newer_journal_is_refused() -> None:
    """Rows that this edgerm cannot read stop it, instead of being taken for nothing."""
    store = MemoryStore()
    fence = store.take_over()
    store.apply([api.Put("task", "f/t/l", 99, b"")], fence)
    with pytest.raises(Invalid, match="newer"):
        Journal(store).load()

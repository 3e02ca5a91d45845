"""Records as rows and back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import agents, frameworks, ids, roles, spans_s, statuses, task_keys, tasks, updates

from edgerm.core.errors import EdgermError, Invalid
from edgerm.core.ids import AgentId, TaskId, TaskKey
from edgerm.core.link import Update
from edgerm.core.resources import NOTHING, Resources, parse
from edgerm.core.scheduler import AgentSpec, Capability, FrameworkSpec, Status, TaskSpec
from edgerm.core.tasks import TaskState
from edgerm.plugin.executor import Handle
from edgerm.store.records import RecordCodec
from edgerm_agent.core import records as agent_records
from edgerm_master.core import records as master_records
from edgerm_master.core.agents import DrainPlan, Duty


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Pair(NamedTuple):
    left: str
    right: int = 0


@dataclass(frozen=True, slots=True)
class Everything:
    """A field of each sort that a record may have."""

    key: TaskKey
    text: str
    number: int
    real: float
    data: bytes
    flag: bool
    mood: Mood
    state: TaskState
    bag: Resources
    pairs: tuple[Pair, ...] = ()
    capabilities: frozenset[Capability] = frozenset()
    grace_s: float | None = None
    specs: tuple[TaskSpec, ...] = ()
    status: Status | None = None
    agent: AgentSpec | None = None
    framework: FrameworkSpec | None = None
    update: Update | None = None


def _everything() -> st.SearchStrategy[Everything]:
    return st.builds(
        Everything,
        key=task_keys,
        text=st.text(st.characters(codec="utf-8"), max_size=5),
        number=st.integers(-(2**63), 2**63),
        real=st.floats(allow_nan=False),
        data=st.binary(max_size=5),
        flag=st.booleans(),
        mood=st.sampled_from(Mood),
        state=st.sampled_from(TaskState),
        bag=agents().map(lambda agent: agent.resources),
        pairs=st.lists(st.builds(Pair, st.just("x"), st.integers(0, 9)), max_size=2).map(tuple),
        capabilities=st.frozensets(st.sampled_from(Capability)),
        grace_s=st.none() | spans_s,
        specs=st.lists(tasks, max_size=1).map(tuple),
        status=st.none() | statuses,
        agent=st.none() | agents(),
        framework=st.none() | frameworks(),
        update=st.none() | updates,
    )


EVERYTHING = RecordCodec({"everything": (3, Everything)})
MASTER = RecordCodec(
    {
        "framework": (1, master_records.FrameworkRecord),
        "removed": (1, master_records.RemovedRecord),
        "agent": (1, master_records.AgentRecord),
        "gone": (1, master_records.GoneRecord),
        "task": (1, master_records.TaskRecord),
        "run": (1, master_records.RunRecord),
    }
)
AGENT = RecordCodec({"task": (1, agent_records.TaskRecord), "run": (1, agent_records.RunRecord)})

drain_plans = st.builds(DrainPlan, spans_s, st.none() | spans_s, st.booleans(), spans_s, spans_s)
of_master: st.SearchStrategy[tuple[str, Any]] = st.one_of(
    st.tuples(st.just("framework"), st.builds(master_records.FrameworkRecord, ids, frameworks())),
    st.tuples(st.just("removed"), st.builds(master_records.RemovedRecord, ids, ids, st.integers(1, 2**62))),
    st.tuples(
        st.just("agent"),
        st.builds(
            master_records.AgentRecord, ids, agents(), st.integers(0, 9), st.sampled_from(Duty), st.none() | drain_plans
        ),
    ),
    st.tuples(st.just("gone"), st.builds(master_records.GoneRecord, ids, ids, spans_s, st.integers(1, 2**62))),
    st.tuples(st.just("task"), st.builds(master_records.TaskRecord, task_keys, roles, tasks)),
    st.tuples(
        st.just("run"),
        st.builds(
            master_records.RunRecord,
            task_keys,
            st.sampled_from(TaskState),
            st.integers(0, 2**40),
            st.lists(statuses, max_size=2).map(tuple),
            st.booleans(),
            st.none() | spans_s,
            st.booleans(),
            st.booleans(),
        ),
    ),
)
of_agent: st.SearchStrategy[tuple[str, Any]] = st.one_of(
    st.tuples(st.just("task"), st.builds(agent_records.TaskRecord, task_keys, roles, tasks)),
    st.tuples(
        st.just("run"),
        st.builds(
            agent_records.RunRecord,
            task_keys,
            st.sampled_from(agent_records.Phase),
            st.sampled_from(TaskState),
            ids,
            st.none() | st.builds(Handle, task_keys, ids, ids, st.none() | st.integers(1, 2**22)),
            st.integers(0, 2**40),
            st.lists(updates, max_size=2).map(tuple),
            st.booleans(),
            st.none() | spans_s,
            st.booleans(),
        ),
    ),
)


def packed(**fields: object) -> bytes:
    return msgspec.msgpack.encode(fields)


@given(_everything())
def test_every_sort_of_field_survives(record: Everything) -> None:
    """A record comes back equal, field by field, in the version in which it was written."""
    version, blob = EVERYTHING.encode("everything", record)
    assert version == 3
    assert EVERYTHING.decode("everything", version, blob) == record


@given(of_master)
def test_the_masters_records_survive(pair: tuple[str, Any]) -> None:
    """Whatever the master keeps comes back equal."""
    kind, record = pair
    assert MASTER.decode(kind, *MASTER.encode(kind, record)) == record


@given(of_agent)
def test_the_agents_records_survive(pair: tuple[str, Any]) -> None:
    """Whatever the agent keeps comes back equal."""
    kind, record = pair
    assert AGENT.decode(kind, *AGENT.encode(kind, record)) == record


@given(of_master)
def test_a_record_has_one_encoding(pair: tuple[str, Any]) -> None:
    """Written, read and written again, the blob is the same."""
    kind, record = pair
    version, blob = MASTER.encode(kind, record)
    assert MASTER.encode(kind, MASTER.decode(kind, version, blob)) == (version, blob)


@given(st.sampled_from(["framework", "removed", "agent", "task", "run"]), st.binary(max_size=60))
def test_no_bytes_lead_to_another_error(kind: str, blob: bytes) -> None:
    """A damaged row is Invalid, whatever is in it, and the text names its kind."""
    with pytest.raises(Invalid, match=kind):
        MASTER.decode(kind, 1, blob)


@given(of_master, st.data())
def test_a_changed_byte_leads_to_no_other_error(pair: tuple[str, Any], draw: st.DataObject) -> None:
    """A row with one byte changed is a record or Invalid."""
    kind, record = pair
    version, blob = MASTER.encode(kind, record)
    position = draw.draw(st.integers(0, len(blob) - 1))
    damaged = blob[:position] + bytes([draw.draw(st.integers(0, 255))]) + blob[position + 1 :]
    try:
        assert type(MASTER.decode(kind, version, damaged)) is type(record)
    except Invalid as error:
        assert kind in str(error)


@pytest.mark.parametrize(("kind", "version"), [("dragon", 1), ("everything", 4)])
def test_a_row_of_a_newer_edgerm_is_refused_with_the_remedy(kind: str, version: int) -> None:
    """An unknown kind and a newer version say who wrote the directory."""
    with pytest.raises(Invalid, match=f"'{kind}'.*written by a newer edgerm"):
        EVERYTHING.decode(kind, version, packed())


@dataclass(frozen=True, slots=True)
class Today:
    name: str
    size_bytes: int
    data: bytes = b""
    bag: Resources = NOTHING


def _name(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "name": fields["title"]}


def _size(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "size_bytes": fields["size_kib"] * 1024}


MIGRATING = RecordCodec({"thing": (3, Today)}, {("thing", 1): _name, ("thing", 2): _size})


@pytest.mark.parametrize("version", [1, 2])
def test_an_old_row_is_migrated_step_by_step(version: int) -> None:
    """Each version is brought to the next until it is today's; bytes and resources stay as they are."""
    bag = [["cpus", [["web", True, "p", b"l"]], b"d", False, False, 500]]
    row = packed(title="n", name="n", size_kib=2, data=b"\xff", bag=bag)
    read = MIGRATING.decode("thing", version, row)
    assert (read.name, read.size_bytes, read.data) == ("n", 2048, b"\xff")
    assert next(iter(read.bag.values())) == 500


@pytest.mark.parametrize(
    ("version", "blob", "why"),
    [
        (0, packed(), "no longer reads"),
        (2, packed(), "damaged"),  # the migration misses its field
        (2, b"\x01", "no fields"),
        (2, b"\xc1", "damaged"),
    ],
)
def test_an_old_row_that_cannot_be_migrated_is_refused(version: int, blob: bytes, why: str) -> None:
    """A version without a way to today's, or one whose fields are not there, is Invalid."""
    with pytest.raises(Invalid, match=why):
        MIGRATING.decode("thing", version, blob)


@pytest.mark.parametrize("stored", [-1, [[1, 2], "a"], [[2, 1]], "text", None, [[1]], 1.5], ids=repr)
def test_amounts_that_cannot_be_are_refused(stored: object) -> None:
    """A negative amount, a mixture and anything else that is no amount is Invalid."""
    bag = [["cpus", [], b"", False, False, stored]]
    with pytest.raises(Invalid, match="thing"):
        MIGRATING.decode("thing", 3, packed(name="n", size_bytes=1, bag=bag))


def test_a_field_with_a_default_may_be_missing() -> None:
    """A new field with a default needs no new version."""
    assert MIGRATING.decode("thing", 3, packed(name="n", size_bytes=1)) == Today("n", 1)


def test_equal_bags_are_kept_once() -> None:
    """Records with equal resources share them, unless they are big."""
    codec = RecordCodec({"task": (1, TaskSpec)})

    def read(resources: Resources) -> Resources:
        blob = codec.encode("task", TaskSpec(TaskId("t"), AgentId("a"), resources))
        task = codec.decode("task", *blob)
        assert isinstance(task, TaskSpec)
        assert task.resources == resources
        return task.resources

    small, big = parse("cpus:1;ports:[1-2]"), parse("gpus:{" + ",".join(f"g{n}" for n in range(500)) + "}")
    assert read(small) is read(small)
    assert read(big) is not read(big)


def test_a_record_of_another_type_is_not_written() -> None:
    """A mix-up of kinds is found when it is made, not when it is read."""
    with pytest.raises(EdgermError, match="'thing' is a Today"):
        MIGRATING.encode("thing", "text")


def test_an_agent_of_before_drains_were_known_is_active() -> None:
    """A record without duty and drain, as earlier masters wrote it, is one of an agent in service."""
    record = master_records.AgentRecord(AgentId("a1"), AgentSpec("box"), 7)
    version, blob = MASTER.encode("agent", record)
    fields = msgspec.msgpack.decode(blob)
    del fields["duty"], fields["drain"]
    assert MASTER.decode("agent", version, msgspec.msgpack.encode(fields)) == record

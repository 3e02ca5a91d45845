"""TaskStatus."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import statuses

from edgerm.core.errors import Invalid
from edgerm.core.ids import TaskId
from edgerm.core.scheduler import Status
from edgerm.core.tasks import Reason, TaskState
from edgerm.wire.codec.status import (
    TEXT_BYTES_MAX,
    decode_status,
    encode_status,
    status_from_message,
    status_to_message,
)
from edgerm.wire.v1 import tasks_pb2 as pb


def message(**fields: object) -> pb.TaskStatus:
    status = pb.TaskStatus(state=pb.TASK_RUNNING, **fields)  # type: ignore[arg-type]
    status.task_id.value = "t"
    return status


@given(statuses)
def test_a_status_survives_the_wire(status: Status) -> None:
    """A status written and read is the same, with all that it has no field for."""
    assert decode_status(encode_status(status)) == status


@given(st.binary(max_size=60))
def test_no_bytes_lead_to_another_error(data: bytes) -> None:
    """Arbitrary bytes are a status or Invalid."""
    try:
        assert isinstance(decode_status(data), Status)
    except Invalid as error:
        assert str(error)


@pytest.mark.parametrize("write", [False, True])
def test_a_status_is_small_whoever_made_it(write: bool) -> None:
    """Texts are cut to 4 KiB of valid UTF-8, of the output its end stays; what else is told is left out above that."""
    text = "first " + "\N{EURO SIGN}" * 200_000 + " last"
    if write:
        extra = message(data=b"x" * 600_000).SerializeToString()
        made = Status(
            TaskId("t"), TaskState.RUNNING, message=text, trap=text, output_tail=text, detail=text, extra=extra
        )
        read = pb.TaskStatus.FromString(encode_status(made))
        assert not read.HasField("data")
    else:
        big = message(
            message=text, trap=text, output_tail=text, detail=text, data=b"x" * 600_000, launch_id="l" * 10**6
        )
        big.agent_id.value = "a" * 10**6
        read = status_from_message(big)  # type: ignore[assignment]
        assert (len(read.agent_id), len(read.launch_id), read.extra) == (255, 255, b"")  # type: ignore[arg-type, attr-defined]
    for cut in (read.message, read.trap, read.detail):
        assert cut == text[: len(cut)]
        assert TEXT_BYTES_MAX - 2 <= len(cut.encode()) <= TEXT_BYTES_MAX
    assert read.output_tail == text[-len(read.output_tail) :]
    assert TEXT_BYTES_MAX - 2 <= len(read.output_tail.encode()) <= TEXT_BYTES_MAX


def test_what_fits_is_kept() -> None:
    """Data and labels within the bound are told as they came."""
    extra = status_from_message(message(data=b"x" * 4000)).extra
    assert status_to_message(Status(TaskId("t"), TaskState.RUNNING, extra=extra)).data == b"x" * 4000


def test_a_status_of_the_master_has_no_uuid_field() -> None:
    """Clients go by the presence of the field, so none is set for an empty uuid."""
    written = status_to_message(Status(TaskId("t"), TaskState.LOST))
    assert not written.HasField("uuid")
    assert not written.HasField("timestamp")


def test_our_numbers_may_be_zero() -> None:
    """Exit code 0 is told, and is not the same as none."""
    assert status_to_message(Status(TaskId("t"), TaskState.FINISHED, exit_code=0)).HasField("exit_code")
    assert decode_status(encode_status(Status(TaskId("t"), TaskState.FINISHED))).exit_code is None


def test_foreign_parts_are_kept_underneath() -> None:
    """Data and labels of an executor come out again, beside what the status says itself."""
    read = status_from_message(message(data=b"d", message="m", healthy=True))
    written = status_to_message(read)
    assert (written.data, written.message, written.healthy) == (b"d", "m", True)
    assert not pb.TaskStatus.FromString(read.extra).HasField("message")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (message(reason=pb.TaskStatus.REASON_GC_ERROR).SerializeToString(), None),  # edgerm never gives it
        (message().SerializeToString() + b"\x50\x63", None),  # 99: not one of Mesos' reasons today
        (message(reason=pb.TaskStatus.REASON_RECONCILIATION).SerializeToString(), Reason.RECONCILIATION),
    ],
)
def test_every_reason_comes_out_as_it_came_in(data: bytes, reason: Reason | None) -> None:
    """A reason that is not in our table is kept, even one without a name."""
    status = decode_status(data)
    assert status.reason is reason
    again = pb.TaskStatus.FromString(encode_status(status))
    again.ClearField("source")  # an absent source is filled in
    assert sorted(again.SerializeToString()) == sorted(data)


@pytest.mark.parametrize("fields", [{"uuid": b"short"}, {"timestamp": math.nan}, {"timestamp": math.inf}])
def test_a_broken_status_is_refused(fields: dict[str, object]) -> None:
    """A uuid of another length and a timestamp that is no number are Invalid, by name."""
    with pytest.raises(Invalid, match=next(iter(fields))):
        status_from_message(message(**fields))

"""What the generated classes promise: Mesos' presence, defaults and enums, and the bounds of our own additions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from edgerm.core.errors import EdgermError, Invalid, TooLarge
from edgerm.wire.content import from_protobuf, to_protobuf
from edgerm.wire.v1 import (
    basics_pb2,
    executor_pb2,
    infos_pb2,
    master_pb2,
    offers_pb2,
    resources_pb2,
    scheduler_pb2,
    tasks_pb2,
)

MESOS_ROOTS = (
    scheduler_pb2.Call,
    scheduler_pb2.Event,
    scheduler_pb2.Response,
    executor_pb2.Call,
    executor_pb2.Event,
    master_pb2.Call,
    master_pb2.Response,
    master_pb2.Event,
)


def reachable(roots: tuple[type[Message], ...]) -> Iterator[FieldDescriptor]:
    """Every field of every message type that the roots reach."""
    seen: set[str] = set()
    todo: list[Descriptor] = [root.DESCRIPTOR for root in roots]  # type: ignore[misc]
    while todo:
        descriptor = todo.pop()
        if descriptor.full_name in seen:
            continue
        seen.add(descriptor.full_name)
        for f in descriptor.fields:
            yield f
            if f.message_type is not None:
                todo.append(f.message_type)


def test_unset_fields_have_mesos_defaults() -> None:
    """A field left out reads as the default that Mesos documents, and stays unset."""
    assert offers_pb2.Filters().refuse_seconds == 5.0
    assert not offers_pb2.Filters().HasField("refuse_seconds")
    assert infos_pb2.FrameworkInfo().role == "*"
    assert infos_pb2.FrameworkInfo().failover_timeout == 0.0
    assert infos_pb2.AgentInfo().port == 5051
    assert infos_pb2.MasterInfo().port == 5050
    assert resources_pb2.Resource().role == "*"
    assert resources_pb2.Image().cached is True
    assert tasks_pb2.CommandInfo().shell is True
    assert tasks_pb2.CommandInfo.URI().extract is True
    assert tasks_pb2.LinuxInfo().share_cgroups is True
    assert tasks_pb2.Environment.Variable().type == tasks_pb2.Environment.Variable.VALUE
    assert tasks_pb2.ContainerInfo.DockerInfo().network == tasks_pb2.ContainerInfo.DockerInfo.HOST
    assert tasks_pb2.NetworkInfo.IPAddress().protocol == tasks_pb2.NetworkInfo.IPv4
    check = tasks_pb2.HealthCheck()
    assert (check.delay_seconds, check.interval_seconds, check.timeout_seconds) == (15.0, 10.0, 20.0)
    assert (check.consecutive_failures, check.grace_period_seconds) == (3, 10.0)
    assert tasks_pb2.WasmInfo().entry_point == "_start"


def test_a_default_that_is_set_is_written() -> None:
    """A field that is set to its default travels, so that the reader sees that it was set."""
    assert to_protobuf(tasks_pb2.CommandInfo(shell=True)) == bytes.fromhex("30 01")
    assert to_protobuf(resources_pb2.Value.Range(begin=0, end=0)) == bytes.fromhex("08 00 10 00")


def test_an_unknown_enum_value_is_no_value_but_survives() -> None:
    """A closed enum keeps a number that it does not know out of the field, and writes it back."""
    body = bytes.fromhex("10 63")  # type = 2: 99
    call = from_protobuf(scheduler_pb2.Call, body)
    assert not call.HasField("type")
    assert call.type == scheduler_pb2.Call.UNKNOWN
    assert to_protobuf(call) == body


def test_an_unknown_value_among_repeated_enums_survives() -> None:
    """A repeated closed enum keeps the values that it knows and writes the others back."""
    body = bytes.fromhex("08 e8 07 08 e7 07")  # capabilities = 1: CHOWN 1000, then 999
    message = from_protobuf(tasks_pb2.CapabilityInfo, body)
    assert list(message.capabilities) == [tasks_pb2.CapabilityInfo.CHOWN]
    assert sorted((to_protobuf(message)[:3], to_protobuf(message)[3:])) == sorted((body[:3], body[3:]))


def test_an_unknown_value_of_a_required_enum_is_a_missing_field() -> None:
    """A task state that we do not know makes the status incomplete, as it does for every strict client."""
    with pytest.raises(Invalid, match="missing required state"):
        from_protobuf(tasks_pb2.TaskStatus, bytes.fromhex("0a 04 0a 02 54 31 10 63"))


def test_missing_required_fields_are_named_by_path() -> None:
    """The error says which required fields are missing, with their full paths."""
    body = bytes.fromhex("10 03 22 02 0a 00")  # accept { offer_ids {} }
    with pytest.raises(Invalid, match=r"^scheduler\.Call in protobuf: missing required accept\.offer_ids\[0\]\.value$"):
        from_protobuf(scheduler_pb2.Call, body)


def test_many_missing_fields_are_named_within_bounds() -> None:
    """An error about a thousand missing fields names a dozen and counts the rest."""
    body = bytes.fromhex("0a 00") * 1000
    with pytest.raises(Invalid, match=r"offer_ids\[11\]\.value and 988 more$"):
        from_protobuf(scheduler_pb2.Call.Accept, body)


def test_an_incomplete_message_is_not_written() -> None:
    """Writing a message without its required fields is our own fault, and no Invalid."""
    with pytest.raises(EdgermError, match="cannot write AgentInfo: missing required hostname") as caught:
        to_protobuf(infos_pb2.AgentInfo())
    assert not isinstance(caught.value, Invalid)


def test_text_that_is_not_utf8_is_refused() -> None:
    """A string field with a byte that is not UTF-8 makes the message invalid."""
    with pytest.raises(Invalid, match="UTF-8"):
        from_protobuf(basics_pb2.TaskID, bytes.fromhex("0a 01 ff"))


def test_a_cut_message_is_refused() -> None:
    """A body that ends inside a field is invalid."""
    with pytest.raises(Invalid, match=r"scheduler\.Call in protobuf"):
        from_protobuf(scheduler_pb2.Call, bytes.fromhex("0a 04 0a 02"))


def test_nesting_beyond_the_bound_is_refused() -> None:
    """A message nested a thousand deep is invalid, and costs no stack."""
    body = b""
    for _ in range(1000):
        size = len(body)
        varint = bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7])
        body = b"\x12" + varint + body  # ContainerID.parent = 2
    with pytest.raises(Invalid, match="ContainerID in protobuf"):
        from_protobuf(basics_pb2.ContainerID, b"\x0a\x01x" + body)


def test_a_body_beyond_its_bound_is_refused() -> None:
    """A body one byte larger than allowed is too large, and one of the size allowed is not."""
    body = bytes.fromhex("0a 01 78")
    assert from_protobuf(basics_pb2.TaskID, body, max_bytes=3).value == "x"
    with pytest.raises(TooLarge, match="TaskID of 3 bytes; at most 2"):
        from_protobuf(basics_pb2.TaskID, body, max_bytes=2)


def test_repeated_numbers_are_written_expanded_and_read_in_both_forms() -> None:
    """Repeated numbers leave us one by one, as proto2 clients write them, and packed ones are understood."""
    expanded = bytes.fromhex("08 50 20 c8 01 20 cc 01")  # port = 1, statuses = 4: 200, statuses = 4: 204
    packed = bytes.fromhex("08 50 22 04 c8 01 cc 01")
    for body in (expanded, packed):
        check = from_protobuf(tasks_pb2.HealthCheck.HTTPCheckInfo, body)
        assert list(check.statuses) == [200, 204]
        assert to_protobuf(check) == expanded


def test_unknown_fields_survive() -> None:
    """A field that a newer peer added comes out as it went in, at any depth."""
    body = bytes.fromhex("0a 09 0a 02 46 31 fa 7f 02 68 69 10 0c")  # framework_id {value, 2047: "hi"}, type SUPPRESS
    assert to_protobuf(from_protobuf(scheduler_pb2.Call, body)) == body


def test_map_entries_are_written_in_order() -> None:
    """Equal messages with a map give equal bytes, whatever the order of insertion."""
    one, other = tasks_pb2.Task(), tasks_pb2.Task()
    for task, keys in ((one, "ab"), (other, "ba")):
        task.MergeFromString(bytes.fromhex("0a 00 12 02 0a 00 1a 02 0a 00 2a 02 0a 00 30 00"))
        for key in keys:
            task.limits[key].value = 1.0
    assert to_protobuf(one) == to_protobuf(other)


def test_our_additions_are_these() -> None:
    """Mesos messages carry exactly the fields of ours that are listed here, from number 1000 on, none required."""
    ours = {f"{f.full_name.removeprefix('edgerm.v1.')}={f.number}" for f in reachable(MESOS_ROOTS) if f.number >= 1000}
    assert ours == {
        "AgentInfo.name=1000",
        "AgentInfo.device_classes=1002",
        "AgentInfo.devices=1001",
        "AgentInfo.inventory_generation=1003",
        "ContainerInfo.wasm=1000",
        "DrainConfig.deadline=1000",
        "InverseOffer.answer=1001",
        "InverseOffer.starts_in_s=1000",
        "MasterInfo.edgerm_version=1000",
        "Offer.agent_name=1000",
        "Offer.device_classes=1002",
        "Offer.devices=1001",
        "Task.launch_id=1000",
        "Task.alternative=1004",
        "TaskInfo.input=1000",
        "TaskInfo.stdin_open=1001",
        "TaskInfo.messages=1002",
        "TaskInfo.claims=1005",
        "TaskInfo.alternative=1004",
        "TaskInfo.alternatives=1003",
        "TaskStatus.detail=1005",
        "TaskStatus.exit_code=1000",
        "TaskStatus.granted=1006",
        "TaskStatus.launch_id=1004",
        "TaskStatus.output_tail=1003",
        "TaskStatus.signal=1001",
        "TaskStatus.trap=1002",
        "VersionInfo.edgerm_version=1000",
        "master.Call.DrainAgent.deadline=1000",
        "scheduler.Call.Request.waiting=1000",
        "master.Response.GetAgents.Agent.carrier=1002",
        "master.Response.GetAgents.Agent.drain=1003",
        "master.Response.GetAgents.Agent.last_beat_s=1001",
        "master.Response.GetAgents.Agent.link_state=1000",
    }
    assert not [f.full_name for f in reachable(MESOS_ROOTS) if f.number >= 1000 and f.is_required]


def test_enums_of_mesos_are_closed_and_have_no_value_of_ours() -> None:
    """The states and call types that strict clients switch on have Mesos' values and no more."""
    assert all(f.enum_type.is_closed for f in reachable(MESOS_ROOTS) if f.enum_type is not None)
    assert sorted(tasks_pb2.TaskState.values()) == list(range(14))
    assert sorted(tasks_pb2.TaskStatus.Reason.values()) == list(range(35))
    assert sorted(scheduler_pb2.Call.Type.values()) == list(range(18))
    assert sorted(scheduler_pb2.Event.Type.values()) == list(range(12))
    assert sorted(executor_pb2.Event.Type.values()) == list(range(10))
    assert sorted(master_pb2.Call.Type.values()) == list(range(40))
    assert sorted(master_pb2.Response.Type.values()) == list(range(20))
    assert sorted(master_pb2.Event.Type.values()) == list(range(10))
    assert tasks_pb2.ContainerInfo.Type.items() == [("DOCKER", 1), ("MESOS", 2)]

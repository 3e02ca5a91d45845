"""docs/mesos-compatibility.md says what is so: of each call of the protos, by the master's answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import aiohttp
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from edgerm.core.errors import EdgermError, NotImplementedCall
from edgerm.wire import v1
from edgerm.wire.codec.scheduler import call_from_message
from edgerm.wire.v1 import executor_pb2, master_pb2, offers_pb2, scheduler_pb2
from edgerm_master.main import Served

TEST = Path(__file__).parents[1]
PAGE = TEST.parent / "docs/mesos-compatibility.md"
NOT_MESOS = ("link_pb2", "operator_pb2")
STATES = ("built", "differs", "not built")
Operation = offers_pb2.Offer.Operation
TABLES: dict[str, Any] = {
    "Scheduler calls": scheduler_pb2.Call.Type,
    "Operations of ACCEPT": Operation.Type,
    "Scheduler events": scheduler_pb2.Event.Type,
    "Operator calls": master_pb2.Call.Type,
    "Operator events": master_pb2.Event.Type,
}


def rows(heading: str) -> list[list[str]]:
    """The rows below a heading, of all tables there, as cells."""
    [part] = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.strip("|").split("|") for line in part.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in lines]
    return [
        line
        for number, line in enumerate(cells)
        if set(line) != {"---"} and set(*cells[number + 1 : number + 2]) != {"---"}
    ]


def states(heading: str) -> dict[str, str]:
    """Name → state."""
    return {row[0]: row[1] for row in rows(heading)}


@pytest.mark.parametrize("heading", TABLES)
def test_every_name_has_its_row(heading: str) -> None:
    """Each value of the enum has one row, and no row is of anything else."""
    assert sorted(row[0] for row in rows(heading)) == sorted(TABLES[heading].keys())


def test_every_name_of_the_executor_api_has_its_row() -> None:
    """Calls, then events."""
    named = [row[0] for row in rows("Executor API")]
    assert named == [*executor_pb2.Call.Type.keys(), *executor_pb2.Event.Type.keys()]


@pytest.mark.parametrize("heading", [*TABLES, "Executor API", "Paths", "Headers", "Status codes"])
def test_what_is_built_is_shown_by_a_test(heading: str) -> None:
    """Each row has a state; one that works names a test, and each named test exists."""
    for name, state, _, shown in rows(heading):
        assert state in STATES, name
        tests = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", shown)
        assert tests or state == "not built", f"{name} is {state}, and no test shows it"
        for file, function in tests:
            found = [path.read_text() for path in TEST.rglob(file)]
            assert any(f"def {function}" in text for text in found), f"{name}: {file}::{function}"


def test_every_field_of_ours_is_named() -> None:
    """The page has each field that Mesos does not, by its message."""
    told = {
        (message, field)
        for messages, fields in rows("Fields of ours")
        for message in re.findall(r"`([\w.]+)`", messages)
        for field in re.findall(r"`(\w+)`", fields)
    }
    names = [module.name for module in iter_modules(v1.__path__) if module.name.endswith("_pb2")]
    files = [import_module(f"{v1.__name__}.{name}").DESCRIPTOR for name in names if name not in NOT_MESOS]
    kinds = [kind for file in files for kind in file.message_types_by_name.values()]
    assert told == {ours for kind in kinds for ours in _ours(kind)}


def _ours(kind: Any) -> Iterator[tuple[str, str]]:
    yield from (
        (kind.full_name.removeprefix("edgerm.v1."), field.name) for field in kind.fields if field.number >= 1000
    )
    for nested in kind.nested_types:
        yield from _ours(nested)


# --- the answers ------------------------------------------------------------------------------------------------


def filled(message: Message) -> Message:
    """With every required field, down to the last."""
    for field in message.DESCRIPTOR.fields:
        if not field.is_required:
            continue
        if field.message_type is not None:
            inner = getattr(message, field.name)
            inner.SetInParent()
            filled(inner)
        elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            setattr(message, field.name, b"x" * 16 if field.type == FieldDescriptor.TYPE_BYTES else "x")
        elif field.enum_type is not None:
            setattr(message, field.name, field.enum_type.values[0].number)
        else:
            setattr(message, field.name, 1)
    return message


def call_of(kind: type[scheduler_pb2.Call | master_pb2.Call], name: str) -> Message:
    """A call of this type with the body that goes with it, if there is one."""
    call: Message = kind(type=name)  # type: ignore[arg-type]
    body = call.DESCRIPTOR.fields_by_name.get(name.lower())
    if body is not None:
        inner = getattr(call, body.name)
        inner.SetInParent()
        filled(inner)
    return call


@pytest.mark.parametrize("name", sorted({*scheduler_pb2.Call.Type.keys()} - {"UNKNOWN", "SUBSCRIBE"}))
def test_a_scheduler_call_is_what_the_page_says(name: str) -> None:
    """What is called not built is counted as that, everything else is read."""
    try:
        not_built = bool(call_from_message(call_of(scheduler_pb2.Call, name)).not_built)  # type: ignore[arg-type]
    except NotImplementedCall:
        not_built = True
    except EdgermError:  # looked at, and found wanting
        not_built = False
    assert not_built == (states("Scheduler calls")[name] == "not built")


@pytest.mark.parametrize("name", Operation.Type.keys())
def test_an_operation_is_what_the_page_says(name: str) -> None:
    """An operation that is called not built is counted as that."""
    call = scheduler_pb2.Call(type=scheduler_pb2.Call.ACCEPT)
    call.accept.operations.add(type=name)
    assert bool(call_from_message(call).not_built) == (states("Operations of ACCEPT")[name] == "not built")


async def test_operator_calls_are_what_the_page_says(master: Served, http: aiohttp.ClientSession) -> None:
    """501 for what is called not built, and for nothing else."""
    found = {}
    for name in sorted(master_pb2.Call.Type.keys()):
        body = call_of(master_pb2.Call, name).SerializeToString()
        headers = {"Content-Type": "application/x-protobuf", "Accept": "application/x-protobuf"}
        async with http.post(f"{master.url}/api/v1", data=body, headers=headers) as answer:
            found[name] = answer.status == 501
    assert found == {name: state == "not built" for name, state in states("Operator calls").items()}


async def test_paths_are_what_the_page_says(master: Served, http: aiohttp.ClientSession) -> None:
    """404 for the master's paths that are called not built, and for no other."""
    for told, state, *_ in rows("Paths"):
        for path in re.findall(r"`(/[\w/-]+)`", told) if not told.startswith("agent") else ():
            async with http.get(master.url + path, allow_redirects=False) as answer:
                assert (answer.status == 404) == (state == "not built"), path

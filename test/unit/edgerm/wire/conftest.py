"""Messages of any shape, drawn from their descriptors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

MAX_DEPTH = 6  # below it, required fields only

INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
}


def scalars(f: FieldDescriptor) -> st.SearchStrategy[Any]:
    if f.enum_type is not None:
        return st.sampled_from([value.number for value in f.enum_type.values])
    if f.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=8)
    if f.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return st.text(max_size=6)
    if f.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if f.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return st.floats(allow_nan=False)
    return INTEGERS[f.cpp_type]


def fill(draw: st.DrawFn, message: Message, descriptor: Descriptor, depth: int) -> None:
    optional = [f for f in descriptor.fields if not f.is_required]
    chosen = draw(st.sets(st.sampled_from(optional), max_size=3)) if optional and depth < MAX_DEPTH else set()
    for f in descriptor.fields:
        if f.is_required or f in chosen:
            set_field(draw, message, f, depth + 1)


def set_field(draw: st.DrawFn, message: Message, f: FieldDescriptor, depth: int) -> None:
    value = getattr(message, f.name)
    if f.message_type is None:
        if f.is_repeated:
            value.extend(draw(st.lists(scalars(f), max_size=2)))
        else:
            setattr(message, f.name, draw(scalars(f)))
    elif f.message_type.GetOptions().map_entry:
        entry = f.message_type.fields_by_name["value"]
        for key in draw(st.sets(st.text(max_size=3), max_size=2)):
            if entry.message_type is None:
                value[key] = draw(scalars(entry))
            else:
                fill(draw, value[key], entry.message_type, depth)
    elif f.is_repeated:
        for _ in range(draw(st.integers(0, 2))):
            fill(draw, value.add(), f.message_type, depth)
    else:
        value.SetInParent()
        fill(draw, value, f.message_type, depth)


@st.composite
def messages(draw: st.DrawFn, message_class: type[Message]) -> Message:
    """Complete messages: all required fields, some optional ones, text and numbers of any kind but NaN."""
    message = message_class()
    fill(draw, message, message_class.DESCRIPTOR, 0)  # type: ignore[arg-type]
    return message


@pytest.fixture(scope="session", name="messages")
def messages_fixture() -> Callable[[type[Message]], st.SearchStrategy[Message]]:
    """The strategy `messages(message_class)`, for tests in this folder."""
    return messages

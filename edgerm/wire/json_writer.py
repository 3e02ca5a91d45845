"""Message to plain JSON values: closures compiled once per descriptor, in the form that Mesos clients expect.

Set fields only, by their exact names; a submessage that is set is there even when empty; enums by name, bytes as padded
base64, 64-bit integers as numbers. What does not live here: text (`json.py`).
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

Writer = Callable[[Message], dict[str, Any]]
ValueWriter = Callable[[Any], Any]

_writers: dict[Descriptor, Writer] = {}


def writer_of(descriptor: Descriptor) -> Writer:
    """The writer of a message type, compiled at first use."""
    return _writers.get(descriptor) or _compile(descriptor)


def _compile(descriptor: Descriptor) -> Writer:
    fields: dict[int, tuple[str, ValueWriter | None]] = {}

    def write(message: Message) -> dict[str, Any]:
        out = {}
        for f, value in message.ListFields():
            name, convert = fields[f.number]
            out[name] = value if convert is None else convert(value)
        return out

    _writers[descriptor] = write  # before its fields: types may contain themselves
    for f in descriptor.fields:
        fields[f.number] = (f.name, _field_writer(f))
    return write


def _field_writer(f: FieldDescriptor) -> ValueWriter | None:
    """How to turn a field's value into JSON values; None: it is one already."""
    if f.message_type is not None and f.message_type.GetOptions().map_entry:
        convert = _value_writer(f.message_type.fields_by_name["value"])
        return lambda entries: {key: convert(value) if convert else value for key, value in entries.items()}
    convert = _value_writer(f)
    if not f.is_repeated:
        return convert
    return list if convert is None else lambda values: [convert(value) for value in values]


def _value_writer(f: FieldDescriptor) -> ValueWriter | None:
    if f.message_type is not None:
        return writer_of(f.message_type)
    if f.enum_type is not None:
        return {value.number: value.name for value in f.enum_type.values}.__getitem__
    if f.type == FieldDescriptor.TYPE_BYTES:
        return lambda value: binascii.b2a_base64(value, newline=False).decode("ascii")
    if f.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return _write_double
    return None


def _write_double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"

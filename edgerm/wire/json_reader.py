"""JSON to message: closures compiled once per descriptor, lenient about form, strict about ranges and bounds.

What does not live here: single values (`json_scalars.py`), text and required fields (`json.py`). A value that does not
fit raises `Refused`, which gathers its JSON path while it unwinds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from edgerm.wire.json_scalars import DROPPED, Refused, scalar_reader, show


@dataclass(slots=True)
class Walk:
    """What one document may still cost, and what was ignored in it."""

    depth_left: int
    ignored: list[str] = field(default_factory=list)


Reader = Callable[[Message, Any, Walk], None]  # fills a message from a JSON object
Setter = Callable[[Message, Any, Walk], None]  # sets one field of a message from a JSON value

_readers: dict[Descriptor, Reader] = {}


def reader_of(descriptor: Descriptor) -> Reader:
    """The reader of a message type, compiled at first use."""
    return _readers.get(descriptor) or _compile(descriptor)


def _compile(descriptor: Descriptor) -> Reader:
    setters: dict[str, Setter] = {}

    def read(message: Message, value: Any, walk: Walk) -> None:
        if type(value) is not dict:
            raise Refused(f"expected an object, got {show(value)}")
        walk.depth_left -= 1
        if walk.depth_left < 0:
            raise Refused("nested deeper than a document may be")
        for name, item in value.items():
            if item is None:
                continue
            setter = setters.get(name)
            if setter is None:
                walk.ignored.append(name)
                continue
            try:
                setter(message, item, walk)
            except Refused as refused:
                refused.steps.append(f".{name}")
                raise
        walk.depth_left += 1

    reader = _or_text(read) if descriptor.full_name == "google.protobuf.Duration" else read
    _readers[descriptor] = reader  # before its fields: types may contain themselves
    for f in descriptor.fields:
        setters[f.name] = _setter(f)
    return reader


def _or_text(read: Reader) -> Reader:
    """A duration may also come as text with its unit, the form that protobuf's own JSON has: "1.5s"."""

    def read_duration(message: Message, value: Any, walk: Walk) -> None:
        if type(value) is not str:
            read(message, value, walk)
            return
        try:
            message.FromJsonString(value)  # type: ignore[attr-defined]
        except ValueError as error:
            raise Refused(f"expected a duration such as 1.5s, got {show(value)}") from error

    return read_duration


def _setter(f: FieldDescriptor) -> Setter:
    if f.message_type is not None and f.message_type.GetOptions().map_entry:
        return _map_setter(f)
    if f.message_type is not None:
        return _repeated_message_setter(f) if f.is_repeated else _message_setter(f)
    return _repeated_scalar_setter(f) if f.is_repeated else _scalar_setter(f)


def _message_setter(f: FieldDescriptor) -> Setter:
    name, read = f.name, reader_of(_type_of(f))

    def set_message(message: Message, value: Any, walk: Walk) -> None:
        child = getattr(message, name)
        child.SetInParent()
        read(child, value, walk)

    return set_message


def _repeated_message_setter(f: FieldDescriptor) -> Setter:
    name, read = f.name, reader_of(_type_of(f))

    def set_messages(message: Message, value: Any, walk: Walk) -> None:
        add = getattr(message, name).add
        for index, item in enumerate(_list(value)):
            try:
                read(add(), item, walk)
            except Refused as refused:
                refused.steps.append(f"[{index}]")
                raise

    return set_messages


def _scalar_setter(f: FieldDescriptor) -> Setter:
    name, read = f.name, scalar_reader(f)

    def set_scalar(message: Message, value: Any, walk: Walk) -> None:
        scalar = read(value)
        if scalar is DROPPED:
            walk.ignored.append(show(value))
        else:
            setattr(message, name, scalar)

    return set_scalar


def _repeated_scalar_setter(f: FieldDescriptor) -> Setter:
    name, read = f.name, scalar_reader(f)

    def set_scalars(message: Message, value: Any, walk: Walk) -> None:
        append = getattr(message, name).append
        for index, item in enumerate(_list(value)):
            try:
                scalar = read(item)
            except Refused as refused:
                refused.steps.append(f"[{index}]")
                raise
            if scalar is DROPPED:
                walk.ignored.append(show(item))
            else:
                append(scalar)

    return set_scalars


def _map_setter(f: FieldDescriptor) -> Setter:
    entry = _type_of(f)
    name, read_key, value_field = f.name, scalar_reader(entry.fields_by_name["key"]), entry.fields_by_name["value"]
    of_messages = value_field.message_type is not None
    read_message = reader_of(_type_of(value_field)) if of_messages else None
    read_scalar = scalar_reader(value_field) if not of_messages else None

    def set_map(message: Message, value: Any, walk: Walk) -> None:
        if type(value) is not dict:
            raise Refused(f"expected an object, got {show(value)}")
        entries = getattr(message, name)
        for key, item in value.items():
            if item is None:
                continue
            try:
                if read_message is not None:
                    read_message(entries[read_key(key)], item, walk)
                elif read_scalar is not None and (scalar := read_scalar(item)) is not DROPPED:
                    entries[read_key(key)] = scalar
            except Refused as refused:
                refused.steps.append(f"[{show(key)}]")
                raise

    return set_map


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise Refused(f"expected an array, got {show(value)}")
    return value


def _type_of(f: FieldDescriptor) -> Descriptor:
    assert f.message_type is not None
    return f.message_type

"""JSON values of fields that are no messages: numbers, text, bytes, enums. Lenient about form, strict about ranges.

What does not live here: objects and arrays (`json_reader.py`).
"""

from __future__ import annotations

import binascii
import math
import re
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

ScalarReader = Callable[[Any], Any]  # turns a JSON value into what protobuf takes, or raises Refused

DROPPED = object()  # an enum value that we do not know, where the field may be left out

_INTEGER = re.compile(r"-?[0-9]{1,20}")
_NUMBER = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?")
_NAMED_DOUBLES = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}
_SHOWN_CHARACTERS = 60


class Refused(Exception):
    """One value does not fit; `path` is complete when the error has left the outermost reader."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.steps: list[str] = []  # innermost first

    @property
    def path(self) -> str:
        """Where the value stands, such as `accept.offer_ids[0].value`; empty for the document itself."""
        return "".join(reversed(self.steps)).removeprefix(".")


def show(value: Any) -> str:
    """A value as an error quotes it: one line, ASCII, cut to a bounded length."""
    if type(value) is dict:
        return f"an object of {len(value)}"
    if type(value) is list:
        return f"an array of {len(value)}"
    if type(value) is int and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    text = ascii(value[: _SHOWN_CHARACTERS + 1] if type(value) is str else value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def scalar_reader(f: FieldDescriptor) -> ScalarReader:
    """The reader of one value of a field that is no message (of a repeated field: of one element)."""
    if f.enum_type is not None:
        return _enum_reader(f.enum_type, required=f.is_required)
    if f.type == FieldDescriptor.TYPE_BYTES:
        return _read_bytes
    return _BY_CPPTYPE[f.cpp_type]


def _enum_reader(enum: EnumDescriptor, *, required: bool) -> ScalarReader:
    known: dict[Any, int] = {value.name: value.number for value in enum.values}
    numbers = set(known.values())

    def read_enum(value: Any) -> Any:
        if type(value) is int and value in numbers:
            return value
        if type(value) not in (str, int):
            raise Refused(f"expected a name of {enum.full_name}, got {show(value)}")
        number = known.get(value)
        if number is not None:
            return number
        if required:
            raise Refused(f"{show(value)} is no value of {enum.full_name}; known: {', '.join(known)}")
        return DROPPED

    return read_enum


def _integer_reader(lowest: int, highest: int) -> ScalarReader:
    def read_integer(value: Any) -> int:
        number = value
        whole_text = type(value) is str and _INTEGER.fullmatch(value)
        if whole_text or (type(value) is float and value.is_integer()):
            number = int(value)
        if type(number) is not int:
            raise Refused(f"expected an integer, got {show(value)}")
        if not lowest <= number <= highest:
            raise Refused(f"{show(value)} is not within {lowest}..{highest}")
        return number

    return read_integer


def _read_double(value: Any) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is str:
        if value in _NAMED_DOUBLES:
            return _NAMED_DOUBLES[value]
        if not _NUMBER.fullmatch(value):
            raise Refused(f"expected a number, got {show(value)}")
    elif type(value) is not int and type(value) is not float:
        raise Refused(f"expected a number, got {show(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Refused(f"{show(value)} does not fit a double")
    return number


def _read_bool(value: Any) -> bool:
    if value is True or value == "true":
        return True
    if value is False or value == "false":
        return False
    raise Refused(f"expected true or false, got {show(value)}")


def _read_string(value: Any) -> str:
    if type(value) is not str:
        raise Refused(f"expected a string, got {show(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Refused(f"{show(value)} holds half of a surrogate pair") from error
    return value


def _read_bytes(value: Any) -> bytes:
    if type(value) is not str:
        raise Refused(f"expected base64 text, got {show(value)}")
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError as error:
        raise Refused(f"{show(value)} is not padded standard base64: {error}") from error


_BY_CPPTYPE: dict[int, ScalarReader] = {
    FieldDescriptor.CPPTYPE_INT32: _integer_reader(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: _integer_reader(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: _integer_reader(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: _integer_reader(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_DOUBLE: _read_double,
    FieldDescriptor.CPPTYPE_BOOL: _read_bool,
    FieldDescriptor.CPPTYPE_STRING: _read_string,
}

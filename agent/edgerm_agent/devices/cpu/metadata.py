"""What is told of a core: /proc/cpuinfo, `lscpu -J` and `lscpu -e -J` as values, and the schema of that. Pure.

What does not live here: what the operator knows better (`plugin`), the form of metadata (`edgerm.core.metadata`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping

from edgerm.core.errors import Invalid

Fields = dict[str, object]

LISTS = frozenset({"flags", "Features", "features", "bugs", "vmx flags"})  # of words
TEXTS = frozenset({"model name", "Model", "Hardware", "Revision", "Serial", "isa"})  # also where one is all digits
INTEGERS = frozenset(
    (
        *("processor", "cpu family", "model", "stepping", "physical id", "siblings", "core id", "cpu cores"),
        *("apicid", "initial apicid", "cpuid level", "clflush size", "cache_alignment"),
        *("CPU architecture", "CPU revision", "hart"),
    )
)
REALS = frozenset({"cpu MHz", "bogomips", "BogoMIPS"})

_INTEGER = re.compile(r"[0-9]{1,15}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?", re.ASCII)


def parse_cpuinfo(text: str) -> dict[int, Fields]:
    """/proc/cpuinfo by CPU. What it says of the whole box, as on ARM, is told of each.

    A field whose value is not of the kind that its name has everywhere else is left out.
    """
    found: dict[int, Fields] = {}
    common: Fields = {}
    target = common
    for line in text.splitlines():
        name, colon, value = (part.strip() for part in line.partition(":"))
        if not colon:
            target = common  # a blank line ends a CPU
        elif name == "processor" and _INTEGER.fullmatch(value):
            target = found.setdefault(int(value), {"processor": int(value)})
        elif name and (typed := _typed(name, value)) is not None:
            target[name] = typed
    return {cpu: common | fields for cpu, fields in found.items()}


def _typed(name: str, value: str) -> object:
    """None: it is not what the name says."""
    if name in LISTS:
        return value.split()
    if name in INTEGERS:
        return int(value) if _INTEGER.fullmatch(value) else None
    if name in REALS:
        return float(value) if _NUMBER.fullmatch(value) else None
    return value if name in TEXTS else _number(value)


def _number(text: str) -> int | float | str:
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text


def parse_lscpu(text: str) -> dict[str, str]:
    """`lscpu -J`, or `lscpu` without it: texts by field, those below others too. Raises `Invalid`."""
    if not text.lstrip().startswith("{"):
        pairs = (line.partition(":") for line in text.splitlines())
        return {name.strip(): value.strip() for name, colon, value in pairs if colon and name.strip()}
    return dict(_lscpu_entries(_rows(text, "lscpu")))


def _lscpu_entries(rows: object) -> Iterator[tuple[str, str]]:
    """Since util-linux 2.38 entries may have children."""
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict):
            name, value = row.get("field"), row.get("data")
            if isinstance(name, str) and name.rstrip(":") and isinstance(value, str):
                yield name.rstrip(":"), value
            yield from _lscpu_entries(row.get("children"))


def parse_lscpu_e(text: str) -> dict[int, Fields]:
    """`lscpu -e -J` by CPU, numbers as numbers, also of versions that write them as texts. Raises `Invalid`."""
    found: dict[int, Fields] = {}
    for row in _rows(text, "cpus"):
        cells = {str(name): _cell(value) for name, value in row.items() if name} if isinstance(row, dict) else {}
        cpu = cells.get("cpu")
        if isinstance(cpu, int):
            found[cpu] = {name: value for name, value in cells.items() if value is not None}
    return found


def _cell(value: object) -> object:
    """Booleans are no metadata: the table for people says yes and no, too. None: nothing is known."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return None if value == "-" else _number(value)
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _rows(text: str, name: str) -> list[object]:
    try:
        found = json.loads(text, parse_constant=lambda constant: None)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"lscpu did not write JSON: {error}") from error
    rows = found.get(name) if isinstance(found, dict) else None
    if not isinstance(rows, list):
        raise Invalid(f"lscpu wrote no list {name!r}")
    return rows


def overlaid(below: Mapping[str, object], above: Mapping[str, object]) -> Fields:
    """The one over the other; objects that both have are overlaid in turn."""
    result = dict(below)
    for key, value in above.items():
        under = result.get(key)
        result[key] = overlaid(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return result


_ANY = {"type": ["number", "string", "array"]}
_INT = {"type": "integer"}
_REAL = {"type": "number"}
_TEXT = {"type": "string"}
_WORDS = {"type": "array", "items": _TEXT}

SCHEMA = json.dumps(
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "CPU Metadata",
        "type": "object",
        "required": ["cpuset"],
        "properties": {
            "cpuset": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
            "cpuinfo": {
                "title": "CPU Info",
                "type": "object",
                "properties": {
                    **dict.fromkeys(sorted(INTEGERS), _INT),
                    **dict.fromkeys(sorted(REALS), _REAL),
                    **dict.fromkeys(sorted(LISTS), _WORDS),
                    **dict.fromkeys(sorted(TEXTS), _TEXT),
                },
                "additionalProperties": _ANY,
            },
            "lscpu": {"title": "Lscpu", "type": "object", "additionalProperties": _TEXT},
            "lscpue": {
                "title": "LscpuE",
                "type": "object",
                "properties": {
                    **dict.fromkeys(("cpu", "node", "socket", "cluster", "core"), _INT),
                    **dict.fromkeys(("maxmhz", "minmhz", "mhz"), _REAL),
                    "online": _TEXT,
                },
                "additionalProperties": {"type": ["number", "string"]},
            },
        },
    }
)
"""JSON Schema of a core's metadata; an operator may add to it what the kernel does not know."""

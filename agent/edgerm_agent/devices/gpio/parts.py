"""What a GPIO chip is to others: a device with metadata, columns of variables, and safe states of its lines. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgerm.core import metadata
from edgerm.core.devices import Device, DeviceClass
from edgerm.core.errors import Conflict, Invalid
from edgerm_agent.config import Chip as Setting
from edgerm_agent.lines import Chip, Line

CLASS = "siemens.com/gpio"
SCHEMA = (
    '{"type":"object","required":["labels","lines","name"],"additionalProperties":false,"properties":{'
    '"name":{"type":"string"},"label":{"type":"string"},"labels":{"type":"array","items":{"type":"string"}},'
    '"lines":{"type":"object","required":["offsets","names"],"additionalProperties":false,"properties":{'
    '"offsets":{"type":"array","items":{"type":"integer","minimum":0}},'
    '"names":{"type":"array","items":{"type":"string"}}}}}}'
)
GPIO_CLASS = DeviceClass(CLASS, config_keys=("id", "safe_state"), schema=SCHEMA)
CHIPS_MAX = 64
LABELS_MAX = 64
LABEL_CHARS_MAX = 128
LINES_MAX = 1024  # of a chip that are told; larger ones are refused
UNNAMED = "unnamed"

_ID = re.compile(r"[!#-&(-+\--:<-z|~]{1,128}")  # printable ASCII without blanks, quotes and , ; { }
_APART = re.compile(r"[\s,]")


@dataclass(frozen=True, slots=True)
class Declared:
    """A chip that the operator gives to tasks."""

    id: str
    path: str
    labels: tuple[str, ...]


def declared(settings: Sequence[Setting]) -> tuple[Declared, ...]:
    """The operator's chips: their first label is their id, else the last part of their path. Raises `Invalid`."""
    if len(settings) > CHIPS_MAX:
        raise Invalid(f"devices.gpio.chips: {len(settings)} chips, at most {CHIPS_MAX} are allowed")
    found: dict[str, Declared] = {}
    for number, setting in enumerate(settings):
        where = f"devices.gpio.chips[{number}]"
        if not setting.path.startswith("/") or not setting.path.isprintable():
            raise Invalid(f"{where}.path = {setting.path[:80]!r}: write an absolute path, such as /dev/gpiochip0")
        if len(setting.labels) > LABELS_MAX or not all(map(_is_label, setting.labels)):
            raise Invalid(f"{where}.labels: at most {LABELS_MAX} of 1 to {LABEL_CHARS_MAX} printable characters")
        name = setting.labels[0] if setting.labels else setting.path.rpartition("/")[2]
        if not _ID.fullmatch(name):
            raise Invalid(f"{where}: {name[:80]!r} is its id, so it has neither blanks nor quotes nor any of , ; {{ }}")
        if name in found:
            raise Invalid(f"{where}: {name!r} is the id of another chip; give each a first label of its own")
        found[name] = Declared(name, setting.path, tuple(dict.fromkeys(setting.labels)))
    return tuple(found.values())


def _is_label(text: str) -> bool:
    return 0 < len(text) <= LABEL_CHARS_MAX and text.isprintable()


def device_of(chip: Declared, found: Chip | None, problem: str) -> Device:
    """The chip as a device; `found`: how it was seen last, None: never."""
    if found is None:
        return Device(CLASS, chip.id, problem=problem)
    known: dict[str, object] = {
        "name": found.name,
        "label": found.label,
        "labels": list(chip.labels),
        "lines": {"offsets": [line.offset for line in found.lines], "names": [line.name for line in found.lines]},
    }
    return Device(CLASS, chip.id, problem=problem, gives=(f"node {found.path} rw",), metadata=metadata.to_text(known))


def columns(chips: Iterable[tuple[str, Chip]]) -> tuple[tuple[str, str], ...]:
    """The variables of a task that has these: of each the id that its claim gave it."""
    given = list(chips)
    return (
        ("IEDGE_GPIO_IDS", ",".join(name for name, _ in given)),
        ("IEDGE_GPIO_DEVICES", ",".join(chip.path for _, chip in given)),
        ("IEDGE_GPIO_LINE_OFFSETS", ",".join(" ".join(str(line.offset) for line in chip.lines) for _, chip in given)),
        ("IEDGE_GPIO_LINE_LABELS", ",".join(" ".join(label_of(line) for line in chip.lines) for _, chip in given)),
    )


def label_of(line: Line) -> str:
    """Its name as one word of a column."""
    return _APART.sub("_", line.name) or UNNAMED


def claimed_id(claim: str, config: Mapping[str, object]) -> str:
    """What the claim calls its chips. Raises `Invalid`."""
    name = config.get("id", "")
    if not isinstance(name, str) or "," in name or not name.isprintable() or len(name) > LABEL_CHARS_MAX:
        raise Invalid(f"claim {claim!r}: id = {name!r:.80}: a printable text without commas is wanted")
    return name


def safe_levels(claim: str, config: Mapping[str, object], chip: Chip) -> dict[int, int]:
    """Offset → level of the claim's `safe_state`. Raises `Invalid`, naming claim, line and value."""
    stated = config.get("safe_state", {})
    if not isinstance(stated, Mapping):
        raise Invalid(f"claim {claim!r}: safe_state = {stated!r:.80}: a mapping of lines to 0 or 1 is wanted")
    levels: dict[int, int] = {}
    for line, level in stated.items():
        if isinstance(level, bool) or level not in (0, 1):
            raise Invalid(f"claim {claim!r}: safe_state of line {line!r:.80} is {level!r:.40}: 0 or 1 is wanted")
        offset = _offset(claim, str(line), chip)
        if levels.setdefault(offset, int(level)) != level:
            raise Invalid(f"claim {claim!r}: safe_state says 0 and 1 of line {offset}, which is also {line!r:.80}")
    return levels


def _offset(claim: str, line: str, chip: Chip) -> int:
    """Of a line by its name, else by its offset."""
    named = [each.offset for each in chip.lines if each.name == line]
    if len(named) > 1:
        raise Invalid(f"claim {claim!r}: safe_state: {chip.name} has {len(named)} lines {line!r:.80}; write the offset")
    if named:
        return named[0]
    if line.isascii() and line.isdecimal() and any(each.offset == int(line) for each in chip.lines):
        return int(line)
    raise Invalid(f"claim {claim!r}: safe_state: {chip.name} [{chip.label}] has no line {line!r:.80}")


def check_free(claim: str, chip: Chip, levels: Mapping[int, int], ours: Iterable[int]) -> None:
    """Raises `Conflict` for a line with a safe state that somebody else has; `ours`: offsets that we hold."""
    held = set(ours)
    for line in chip.lines:
        if line.offset in levels and line.user and line.offset not in held:
            raise Conflict(f"claim {claim!r}: safe_state: {in_use(chip, line)}")


def in_use(chip: Chip, line: Line) -> str:
    """Who has a line, in words."""
    name = f" {line.name!r}" if line.name else ""
    return f"line {line.offset}{name} of {chip.name} is used by {line.user!r}"

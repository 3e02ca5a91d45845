"""A shared memory as the operator writes it, and what a claim may say of it. Pure: mounting is `mounts`' affair."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgerm.core.devices import DeviceClass
from edgerm.core.errors import Invalid

CLASS = "siemens.com/shared_memory"
SCHEMA = (
    '{"type":"object","required":["labels","size"],"additionalProperties":false,"properties":'
    '{"labels":{"type":"array","items":{"type":"string"}},"size":{"type":"integer","minimum":1}}}'
)
SHM_CLASS = DeviceClass(
    CLASS, shared=True, config_keys=("id", "posix_mount", "permissions"), unambiguous=True, schema=SCHEMA
)
MEMORIES_MAX = 64
LABELS_MAX = 64
LABEL_CHARS_MAX = 128
APPS_MAX = 256
GRAIN_BYTES = 64 * 1024  # sizes are whole ones of these: no page of any kernel is larger
SIZE_BYTES_MAX = 1 << 44
ANY_APP = "*"
RO, RW = "ro", "rw"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")
_SIZE = re.compile(r"([0-9]{1,15})\s*(?:([KMGT])(?:i?B)?|B)?", re.IGNORECASE)
_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True, slots=True)
class Memory:
    """One of them. `permissions`: app → what it may at most."""

    name: str
    size_bytes: int
    labels: tuple[str, ...] = ()
    permissions: tuple[tuple[str, tuple[str, ...]], ...] = ((ANY_APP, (RW,)),)

    def allows(self, app: str) -> str:
        """What the app may: `rw` (which is also `ro`), `ro`, or nothing. An entry of its own goes before `*`."""
        entries = dict(self.permissions)
        given = entries.get(app, entries.get(ANY_APP, ()))
        return RW if RW in given else RO if RO in given else ""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a claim's config asks for."""

    id: str = ""
    posix_mount: bool = False
    read_only: bool = False


def parse_size(text: str) -> int:
    """Bytes of `64M`, `1 GiB`, `65536`, rounded up to whole 64 KiB; K is 1024. Raises `Invalid`."""
    found = _SIZE.fullmatch(text.strip())
    size = int(found[1]) * _FACTORS[(found[2] or "").upper()] if found else 0
    if not 0 < size <= SIZE_BYTES_MAX:
        raise Invalid(f"size {text[:40]!r} is none: write such as 64M, at least 1 and at most 16T")
    return -(-size // GRAIN_BYTES) * GRAIN_BYTES


def checked(
    where: str, name: str, size: str, labels: Sequence[str], permissions: Mapping[str, Sequence[str]]
) -> Memory:
    """The memory that the operator wants; raises `Invalid`, saying `where` what is wrong stands."""
    if not _NAME.fullmatch(name):
        raise Invalid(f"{where}.name = {name[:80]!r}: 1 to 64 letters, digits and any of _.-, first a letter or digit")
    if len(labels) > LABELS_MAX or len(permissions) > APPS_MAX:
        raise Invalid(f"{where}: at most {LABELS_MAX} labels and {APPS_MAX} permissions are allowed")
    for label in labels:
        if not 0 < len(label) <= LABEL_CHARS_MAX or not label.isprintable():
            raise Invalid(f"{where}.labels: {label[:80]!r} is no label: 1 to {LABEL_CHARS_MAX} printable characters")
    for app, given in permissions.items():
        if not app or any(each not in (RO, RW) for each in given):
            raise Invalid(f"{where}.permissions: {app[:80]!r} = {list(given)!r:.80}: write some of 'ro' and 'rw'")
    try:
        size_bytes = parse_size(size)
    except Invalid as error:
        raise Invalid(f"{where}.{error}") from None
    allowed = sorted((app, tuple(sorted(set(given)))) for app, given in permissions.items())
    return Memory(name, size_bytes, tuple(dict.fromkeys(labels)), tuple(allowed))


def check_all(memories: Iterable[Memory]) -> None:
    """Raises `Invalid` for two of one name, or too many."""
    names: set[str] = set()
    for memory in memories:
        if memory.name in names:
            raise Invalid(f"devices.shm.memories: {memory.name!r} stands twice")
        names.add(memory.name)
    if len(names) > MEMORIES_MAX:
        raise Invalid(f"devices.shm.memories: {len(names)} memories, at most {MEMORIES_MAX} are allowed")


def to_note(memory: Memory) -> dict[str, object]:
    """As a small JSON object."""
    permissions = {app: list(given) for app, given in memory.permissions}
    return {"size_bytes": memory.size_bytes, "labels": list(memory.labels), "permissions": permissions}


def from_note(name: str, note: Mapping[str, object]) -> Memory:
    """The reverse."""
    size, labels, permissions = note["size_bytes"], note["labels"], note["permissions"]
    assert isinstance(size, int)
    assert isinstance(labels, list)
    assert isinstance(permissions, dict)
    allowed = sorted((app, tuple(given)) for app, given in permissions.items())
    return Memory(name, size, tuple(labels), tuple(allowed))


def parse_config(claim: str, config: Mapping[str, object]) -> Wish:
    """What the claim asks for; raises `Invalid`, naming claim and key."""
    name = config.get("id", "")
    if not isinstance(name, str) or "," in name or not name.isprintable() or len(name) > LABEL_CHARS_MAX:
        raise Invalid(f"claim {claim!r}: id = {name!r:.80}: a printable text without commas is wanted")
    posix = config.get("posix_mount", False)
    if not isinstance(posix, bool):
        raise Invalid(f"claim {claim!r}: posix_mount = {posix!r:.80}: true or false is wanted")
    permissions = config.get("permissions", [RW])
    if not isinstance(permissions, list) or not permissions or any(each not in (RO, RW) for each in permissions):
        raise Invalid(f"claim {claim!r}: permissions = {permissions!r:.80}: a list of 'ro' or 'rw' is wanted")
    return Wish(name, posix, RW not in permissions)

"""Records and blobs: how the values that a core keeps become rows, and rows values again, across versions.

A record is a frozen dataclass of plain parts: numbers, texts, bytes, None, tuples, named tuples, enums, frozensets,
`Resources`, dataclasses of these. It is stored by field name, so a new field with a default needs no new version;
whatever else changes does, and a migration. What does not live here: which records there are (registry, journal).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec

from edgerm.core.errors import EdgermError, Invalid
from edgerm.core.resources import Amount, Reservation, ResourceKey, Resources, coalesce

Migration: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""Fields of a record in one version, as msgpack holds them → the same in the next version."""

_Packed: TypeAlias = list[list[Any]]
_SMALL_BYTES = 1000


class RecordCodec:
    """Turns the records of one store into blobs and back.

    `types`: kind → (version that is written, type). `migrations`: (kind, version) → what brings a record of that
    version to the next one.
    """

    def __init__(
        self,
        types: Mapping[str, tuple[int, type]],
        migrations: Mapping[tuple[str, int], Migration] | None = None,
    ) -> None:
        self._types = dict(types)
        self._migrations = dict(migrations or {})
        self._encoder = msgspec.msgpack.Encoder(enc_hook=_pack, order="deterministic")
        self._decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {
            kind: msgspec.msgpack.Decoder(record_type, dec_hook=_unpack) for kind, (_, record_type) in types.items()
        }

    def encode(self, kind: str, record: object) -> tuple[int, bytes]:
        """The version and the blob of a record; raises EdgermError if it is not of the kind's type."""
        version, record_type = self._types[kind]
        if type(record) is not record_type:
            raise EdgermError(f"a record of kind {kind!r} is a {record_type.__name__}, not {type(record).__name__}")
        return version, self._encoder.encode(record)

    def decode(self, kind: str, version: int, blob: bytes) -> Any:
        """The record in a row; raises `Invalid`, naming the kind, if this edgerm cannot read it."""
        known = self._types.get(kind)
        if known is None:
            raise Invalid(f"a record of kind {kind!r} is not known: {_NEWER}")
        if version > known[0]:
            raise Invalid(f"a record of kind {kind!r} has version {version}, known is {known[0]}: {_NEWER}")
        try:
            if version == known[0]:
                return self._decoders[kind].decode(blob)
            fields = self._migrated(kind, version, msgspec.msgpack.decode(blob))
            return msgspec.convert(fields, known[1], dec_hook=_unpack, builtin_types=(bytes,))
        except Invalid:
            raise
        except (msgspec.MsgspecError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise Invalid(f"a record of kind {kind!r}, version {version}, is damaged: {error!r}") from None

    def _migrated(self, kind: str, version: int, fields: Any) -> dict[str, Any]:
        for older in range(version, self._types[kind][0]):
            migrate = self._migrations.get((kind, older))
            if migrate is None:
                raise Invalid(f"a record of kind {kind!r} has version {version}, which this edgerm no longer reads")
            if not isinstance(fields, dict):
                raise Invalid(f"a record of kind {kind!r}, version {version}, is damaged: it has no fields")
            fields = migrate(fields)
        result: dict[str, Any] = fields
        return result


_NEWER = "this data directory was written by a newer edgerm; run that one, or use another data directory"


def _pack(value: object) -> _Packed:
    if isinstance(value, Resources):
        return [[*key, sorted(amount) if isinstance(amount, frozenset) else amount] for key, amount in value.items()]
    raise NotImplementedError(f"{type(value).__name__} cannot be part of a record")


def _unpack(wanted: type, packed: Any) -> Resources:
    if wanted is not Resources:
        raise NotImplementedError(f"{wanted.__name__} cannot be part of a record")
    again = _repacked(packed)
    return _remembered(again) if len(again) <= _SMALL_BYTES else _resources(again)


def _resources(packed: bytes) -> Resources:
    return Resources([(entry.key(), entry.amount()) for entry in _entries(packed)])


_remembered = lru_cache(maxsize=4096)(_resources)  # thousands of records hold the same few bags: each is read once


class _Entry(msgspec.Struct, array_like=True, frozen=True):
    """One amount as it is stored: the fields of its key, then a number, pairs, or texts."""

    name: str
    reservations: tuple[Reservation, ...]
    disk: bytes
    revocable: bool
    shared: bool
    stored: int | list[tuple[int, int] | str]

    def key(self) -> ResourceKey:
        return ResourceKey(self.name, self.reservations, self.disk, self.revocable, self.shared)

    def amount(self) -> Amount:
        if isinstance(self.stored, int):
            if self.stored < 0:
                raise Invalid(f"resource {self.name!r} has the amount {self.stored}")
            return self.stored
        pairs = [part for part in self.stored if isinstance(part, tuple)]
        if len(pairs) == len(self.stored):
            return coalesce(pairs)
        if pairs:
            raise Invalid(f"resource {self.name!r} has both ranges and items")
        return frozenset(part for part in self.stored if isinstance(part, str))


_repacked = msgspec.msgpack.Encoder().encode
_entries = msgspec.msgpack.Decoder(list[_Entry]).decode

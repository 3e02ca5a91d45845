"""What a store promises: rows of (kind, key, versioned blob), changed in small atomic batches under a fence.

What lives here: the interface, its values and its bounds. What a blob means is the business of the registry and the
journal; how rows are kept, of the implementations. The bounds are those that etcd has by default (128 operations in a
transaction, 1.5 MiB in a request), so that it stays only one more implementation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from edgerm.core.effects import BATCH_OPERATIONS_MAX
from edgerm.core.errors import Code, EdgermError, Invalid, TooLarge

BATCH_BYTES_MAX = 1_000_000
KIND_CHARACTERS_MAX = 64
KEY_BYTES_MAX = 1024
VERSION_MAX = 2**31 - 1
_KIND = re.compile("[a-z][a-z0-9_]*")
_UNFIT = re.compile("[\\x00-\\x1f\\x7f\\ud800-\\udfff]")


@dataclass(frozen=True, slots=True)
class Put:
    """Set the row (kind, key); `version` is that of the blob's schema, so that a reader can migrate it."""

    kind: str
    key: str
    version: int
    blob: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the row (kind, key); a row that is not there is already removed."""

    kind: str
    key: str


class Row(NamedTuple):
    """What `load` gives back: a row as the last `Put` left it."""

    kind: str
    key: str
    version: int
    blob: bytes


Change: TypeAlias = Put | Delete
"""One operation of a batch."""


class StaleFence(EdgermError):
    """Somebody else took the store over; nothing was changed, and this process must stop."""

    code = Code.CONFLICT


class Store(Protocol):
    """The ground of registry and journal. Synchronous: its owner calls it from one thread of its own."""

    def take_over(self) -> int:
        """Return a fence higher than all before; from now on `apply` refuses every older one."""

    def load(self) -> Iterator[Row]:
        """All rows, ordered by kind and key; to be read to the end before the next `apply`."""

    def apply(self, batch: Sequence[Change], fence: int) -> None:
        """Do the whole batch or none of it; durable on return. The last change of a row wins.

        Raises StaleFence; Invalid or TooLarge for a batch outside the bounds; Unavailable if the medium fails (full,
        read-only, broken): then only a new `load` tells whether the batch is there, so the caller must stop.
        """

    def close(self) -> None:
        """Let go of files and locks; idempotent."""


def size_bytes(change: Change) -> int:
    """What a change counts towards BATCH_BYTES_MAX: its kind, key and blob."""
    key = change.key
    names = len(change.kind) + (len(key) if key.isascii() else len(key.encode(errors="replace")))
    return names + len(change.blob) if isinstance(change, Put) else names


def split(changes: Iterable[Change]) -> Iterator[list[Change]]:
    """Cut changes, in order, into batches within the bounds.

    A group that is cut over several batches is not atomic: what must hold together has to fit one batch. A change
    that no batch admits raises TooLarge when it is reached; bytes of that size belong into a blob.
    """
    batch: list[Change] = []
    total_bytes = 0
    for change in changes:
        change_bytes = size_bytes(change)
        if change_bytes > BATCH_BYTES_MAX:
            raise _too_large(f"row {change.kind} {change.key!r}", change_bytes)
        if batch and (len(batch) == BATCH_OPERATIONS_MAX or total_bytes + change_bytes > BATCH_BYTES_MAX):
            yield batch
            batch, total_bytes = [], 0
        batch.append(change)
        total_bytes += change_bytes
    if batch:
        yield batch


def checked(batch: Sequence[Change]) -> dict[tuple[str, str], Change]:
    """The last change of each row, for implementations; Invalid or TooLarge if the batch breaks a bound."""
    if len(batch) > BATCH_OPERATIONS_MAX:
        raise TooLarge(f"batch has {len(batch)} operations, at most {BATCH_OPERATIONS_MAX} are allowed: split it")
    total_bytes = 0
    for change in batch:
        _check_names(change)
        total_bytes += size_bytes(change)
    if total_bytes > BATCH_BYTES_MAX:
        raise _too_large(f"batch of {len(batch)} operations", total_bytes)
    return {(change.kind, change.key): change for change in batch}


def _too_large(what: str, actual_bytes: int) -> TooLarge:
    return TooLarge(
        f"{what} has {actual_bytes} bytes, at most {BATCH_BYTES_MAX} are allowed: keep large bytes as blobs"
    )


def _check_names(change: Change) -> None:
    if len(change.kind) > KIND_CHARACTERS_MAX or not _KIND.fullmatch(change.kind):
        raise Invalid(f"kind {change.kind[:80]!r}: use 1 to {KIND_CHARACTERS_MAX} of a-z, 0-9 and _, a letter first")
    if not change.key or len(change.key) > KEY_BYTES_MAX or _UNFIT.search(change.key):
        raise Invalid(
            f"key {change.key[:80]!r} of kind {change.kind}: it is empty, too long or holds a control character"
        )
    if not change.key.isascii() and len(change.key.encode()) > KEY_BYTES_MAX:
        raise Invalid(f"key {change.key[:80]!r} of kind {change.kind}: at most {KEY_BYTES_MAX} bytes are allowed")
    if isinstance(change, Put) and not 0 <= change.version <= VERSION_MAX:
        raise Invalid(f"version {change.version} of {change.kind} {change.key!r}: use 0 to {VERSION_MAX}")

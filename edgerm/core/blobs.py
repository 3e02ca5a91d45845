"""Blobs: bytes named by their SHA-256, and which of them a full cache lets go.

What lives here: names and the decision. The bytes themselves are in `edgerm.store.blobs`.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import NewType

from edgerm.core.errors import Invalid

Digest = NewType("Digest", str)
"""The SHA-256 of a blob's bytes: 64 lower-case hexadecimal digits."""

_DIGEST = re.compile("[0-9a-f]{64}")


def check_digest(text: str) -> Digest:
    """`text` if it is a digest; raises `Invalid`. A digest is safe as the name of a file."""
    if not _DIGEST.fullmatch(text):
        raise Invalid(f"{text[:80]!r} is not a SHA-256: use 64 digits of 0-9 and a-f")
    return Digest(text)


def digest_of(data: bytes) -> Digest:
    """The name of these bytes."""
    return Digest(sha256(data).hexdigest())


@dataclass(frozen=True, slots=True)
class Held:
    """A blob in a cache; `used_s` is when it was last used, in UNIX time."""

    digest: Digest
    size_bytes: int
    used_s: float


def choose_evictions(
    blobs: Iterable[Held],
    referenced: Container[Digest],
    *,
    limit_bytes: int,
    now_s: float,
    young_s: float,
    old_s: float,
) -> list[Digest]:
    """The blobs to delete, in order: all unused for `old_s`, then the least recently used until the rest fits.

    Never one that is referenced, nor one used less than `young_s` ago: what refers to it may still be under way. So
    the rest may exceed `limit_bytes`. A use in the future tells that the clock went back: such a blob counts as the
    first to go for space, but not as old.
    """
    everything = list(blobs)
    left_bytes = sum(blob.size_bytes for blob in everything)
    free = [blob for blob in everything if blob.digest not in referenced and abs(now_s - blob.used_s) >= young_s]
    chosen = []
    for blob in sorted(free, key=lambda blob: (blob.used_s <= now_s, blob.used_s, blob.digest)):
        if left_bytes > limit_bytes or now_s - blob.used_s >= old_s:
            chosen.append(blob.digest)
            left_bytes -= blob.size_bytes
    return chosen

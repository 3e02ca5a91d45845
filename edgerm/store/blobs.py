"""Blobs on disk: files named by their SHA-256, in folders named by its first two digits.

What lives here: writing, resuming, reading and deleting. Which blobs go is decided in `edgerm.core.blobs`; what refers
to them, and when to fetch them, is the caller's business. One thread uses a `BlobStore` and its writers. Times are
UNIX times that the caller gives; they are kept as the files' modification times.

A blob is written to `partial/DIGEST`, checked, synced and renamed, so a file under its final name is whole. A partial
that its writer left stays, to be continued; it counts towards the limit and is evicted like a blob.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Container, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from edgerm.core.blobs import Digest, Held, check_digest, choose_evictions
from edgerm.core.errors import Conflict, Invalid, NotFound, TooLarge, Unavailable
from edgerm.store.datadir import explained, sync_directory

BLOB_BYTES_MAX: Final = 64 << 20
YOUNG_S: Final = 600.0
"""A blob used less long ago is never evicted: the call that refers to it may still be under way."""
OLD_S: Final = 7 * 86_400.0
"""A blob that nothing refers to is evicted after this time, also when there is room."""
_REMEDY: Final = "free some space or check the disk"
_READ_BYTES: Final = 1 << 20


class BlobStore:
    """The blobs in the folder `path` (made if missing), at most `limit_bytes` in all, partials included."""

    def __init__(self, path: Path, limit_bytes: int, blob_bytes_max: int = BLOB_BYTES_MAX) -> None:
        self._path = path
        self._partials_path = path / "partial"
        self._limit_bytes = limit_bytes
        self._blob_bytes_max = blob_bytes_max
        self._writing: set[Digest] = set()
        with explained(path, _REMEDY):
            self._partials_path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._partials = {held.digest: held for held in _scan(self._partials_path)}
            self._held = {held.digest: held for folder in path.glob("[0-9a-f][0-9a-f]") for held in _scan(folder)}
        self._total_bytes = sum(held.size_bytes for held in (*self._partials.values(), *self._held.values()))

    @property
    def total_bytes(self) -> int:
        """What blobs and partials take."""
        return self._total_bytes

    def has(self, digest: Digest) -> bool:
        """Whether the whole blob is here."""
        return digest in self._held

    def size(self, digest: Digest) -> int:
        """The blob's length in bytes; NotFound if it is not here."""
        return self._find(digest).size_bytes

    def path(self, digest: Digest) -> Path:
        """The blob's file, to be read only; NotFound if it is not here."""
        self._find(digest)
        return self._file(digest)

    def read(self, digest: Digest, offset_bytes: int, length_bytes: int) -> bytes:
        """Up to `length_bytes` from `offset_bytes` on, fewer only at the blob's end; NotFound if it is not here."""
        self._find(digest)
        if offset_bytes < 0 or length_bytes < 0:
            raise Invalid(f"blob {digest}: cannot read {length_bytes} bytes from {offset_bytes}")
        with explained(self._file(digest), _REMEDY), self._file(digest).open("rb") as file:
            file.seek(offset_bytes)
            return file.read(length_bytes)

    def touch(self, digest: Digest, now_s: float) -> None:
        """Note a use, which keeps the blob from eviction for a while; NotFound if it is not here."""
        held = self._find(digest)
        try:
            with explained(self._file(digest), _REMEDY):
                os.utime(self._file(digest), (now_s, now_s))
        except Unavailable:
            if self._file(digest).exists():
                raise
            self._drop(digest)  # somebody removed the file: whoever has the blob may write it anew
            raise NotFound(f"blob {digest} is not here any more") from None
        self._held[digest] = Held(digest, held.size_bytes, now_s)

    def partial_size(self, digest: Digest) -> int:
        """How many bytes an earlier writer left: where the next may continue."""
        partial = self._partials.get(digest)
        return partial.size_bytes if partial else 0

    def writer(self, digest: Digest, size_bytes: int | None = None, offset_bytes: int = 0) -> BlobWriter:
        """Begin a blob (`offset_bytes` 0) or continue a partial; `size_bytes` is the whole length, if it is known.

        Raises Conflict if the blob is here, is being written, or ends elsewhere than at the offset; TooLarge if it
        exceeds the bound of a blob; Unavailable if the store has no room left, which `evict` may make.
        """
        if digest in self._held:
            raise Conflict(f"blob {digest} is already here")
        if digest in self._writing:
            raise Conflict(f"blob {digest} is being written: wait until it is here")
        if offset_bytes not in (0, self.partial_size(digest)):
            raise Conflict(f"blob {digest} continues at {self.partial_size(digest)}, not at {offset_bytes}")
        self._check_size(digest, size_bytes or 0)
        if offset_bytes == 0:
            self._drop(digest)
        self._check_room((size_bytes or 0) - offset_bytes)
        return BlobWriter(self, digest, size_bytes)

    def evict(self, referenced: Container[Digest], now_s: float, room_bytes: int = 0) -> list[Digest]:
        """Delete what is not needed (see `choose_evictions`), so that `room_bytes` fit if possible; tell what went."""
        idle = [held for digest, held in self._partials.items() if digest not in self._writing]
        limit_bytes = self._limit_bytes - room_bytes - sum(self.partial_size(digest) for digest in self._writing)
        chosen = choose_evictions(
            [*self._held.values(), *idle],
            referenced,
            limit_bytes=limit_bytes,
            now_s=now_s,
            young_s=YOUNG_S,
            old_s=OLD_S,
        )
        for digest in chosen:
            self._drop(digest)
        return chosen

    def _find(self, digest: Digest) -> Held:
        if (held := self._held.get(digest)) is None:
            raise NotFound(f"blob {digest} is not here")
        return held

    def _file(self, digest: Digest) -> Path:
        return self._path / digest[:2] / digest

    def _partial_file(self, digest: Digest) -> Path:
        return self._partials_path / digest

    def _check_size(self, digest: Digest, size_bytes: int) -> None:
        if size_bytes > self._blob_bytes_max:
            raise TooLarge(f"blob {digest} has {size_bytes} bytes or more, at most {self._blob_bytes_max} are allowed")

    def _check_room(self, more_bytes: int) -> None:
        if self._total_bytes + more_bytes > self._limit_bytes:
            raise Unavailable(
                f"{self._path} has no room for {more_bytes} bytes: {self._total_bytes} of {self._limit_bytes} are taken"
            )

    def _grow(self, digest: Digest, more_bytes: int) -> None:
        """Account for bytes of a partial, whose time of use the file system keeps."""
        used_s = self._partial_file(digest).stat().st_mtime
        self._partials[digest] = Held(digest, self.partial_size(digest) + more_bytes, used_s)
        self._total_bytes += more_bytes

    def _adopt(self, digest: Digest, now_s: float) -> None:
        """Make a synced partial a blob."""
        folder = self._file(digest).parent
        if not folder.exists():
            folder.mkdir(mode=0o700)
            sync_directory(self._path)
        os.utime(self._partial_file(digest), (now_s, now_s))
        self._partial_file(digest).rename(self._file(digest))
        sync_directory(folder)
        self._held[digest] = Held(digest, self._partials.pop(digest).size_bytes, now_s)

    def _drop(self, digest: Digest) -> None:
        """Delete what there is of a blob."""
        held = self._held.pop(digest, None) or self._partials.pop(digest, None)
        with explained(self._path, _REMEDY):
            self._file(digest).unlink(missing_ok=True)
            self._partial_file(digest).unlink(missing_ok=True)
        self._total_bytes -= held.size_bytes if held else 0


class BlobWriter:
    """Takes a blob's bytes in order, in a `with` block; nothing is there under the blob's name before `commit`.

    Left without `commit`, it keeps what came as a partial. After TooLarge, Invalid or Unavailable nothing is kept.
    """

    def __init__(self, store: BlobStore, digest: Digest, size_bytes: int | None) -> None:
        self._store = store
        self._digest = digest
        self._size_bytes = size_bytes
        with explained(store._path, _REMEDY):
            self._file = store._partial_file(digest).open("a+b", buffering=0)
            self._hash = _hash_of(self._file.fileno())
        store._writing.add(digest)
        store._grow(digest, 0)

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._store._writing.discard(self._digest)

    def write(self, chunk: bytes) -> None:
        """Append bytes; TooLarge (before they are written) beyond the blob's bound or the announced size."""
        store, digest = self._store, self._digest
        size_bytes = store.partial_size(digest) + len(chunk)
        try:
            if self._size_bytes is not None and size_bytes > self._size_bytes:
                raise TooLarge(f"blob {digest} has {size_bytes} bytes or more, {self._size_bytes} were announced")
            store._check_size(digest, size_bytes)
            store._check_room(len(chunk))
            with explained(store._path, _REMEDY):
                self._append(chunk)
        except BaseException:
            self._discard()
            raise

    def commit(self, now_s: float) -> None:
        """Check length and hash and make the blob durable; on a mismatch Invalid, and nothing is kept."""
        store, digest = self._store, self._digest
        actual_bytes = store.partial_size(digest)
        try:
            if self._size_bytes not in (None, actual_bytes):
                raise Invalid(f"blob {digest} has {actual_bytes} bytes, {self._size_bytes} were announced")
            if (actual := self._hash.hexdigest()) != digest:
                raise Invalid(f"the bytes have the SHA-256 {actual}, not {digest}: send the right ones")
            with explained(store._path, _REMEDY):
                os.fsync(self._file.fileno())
                store._adopt(digest, now_s)
        except BaseException:
            self._discard()
            raise

    def _append(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._hash.update(chunk)
        self._store._grow(self._digest, len(chunk))

    def _discard(self) -> None:
        self._file.close()
        self._store._drop(self._digest)


def _hash_of(descriptor: int) -> hashlib._Hash:
    """The running SHA-256 of what an earlier writer left."""
    running, at = hashlib.sha256(), 0
    while chunk := os.pread(descriptor, _READ_BYTES, at):
        running.update(chunk)
        at += len(chunk)
    return running


def _scan(folder: Path) -> Iterator[Held]:
    """The blobs in a folder; files with other names are not ours and stay."""
    for entry in os.scandir(folder):
        try:
            digest = check_digest(entry.name)
        except Invalid:
            continue
        status = entry.stat()
        yield Held(digest, status.st_size, status.st_mtime)

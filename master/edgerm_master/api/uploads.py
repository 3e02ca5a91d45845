"""Messages that fit no datagram: put together from numbered chunks, or kept until they are fetched as blobs.

Pure and bounded; times are the steady clock's. Nothing here survives a restart: who sent it sends it again. What does
not live here: blobs that are kept (`api/blobs.py`), what the messages say.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from edgerm.core.blobs import Digest, digest_of
from edgerm.core.errors import Invalid, TooLarge, Unavailable
from edgerm.core.link import Chunk
from edgerm_master.api.link import REQUEST_BYTES_MAX

TOTAL_BYTES_MAX: Final = 8 << 20
CHUNK_BYTES_MIN: Final = 16
KEPT_S: Final = 120.0  # after the last use
IDLE_S: Final = 10.0  # what was not used for so long gives way when there is no room


class Upload:
    """One message whose chunks arrive in any order, some twice; `whole` once none is missing."""

    def __init__(self, size_bytes: int, chunk_bytes: int) -> None:
        self.shape = (size_bytes, chunk_bytes)
        self._bytes = bytearray(size_bytes)
        self._here = bytearray(-(-size_bytes // chunk_bytes))
        self._missing = len(self._here)

    @property
    def whole(self) -> bytes | None:
        """The message, if all of it is here."""
        return None if self._missing else bytes(self._bytes)

    def take(self, chunk: Chunk) -> None:
        """Put a chunk of this shape in its place."""
        if not self._here[chunk.number]:
            begin = chunk.number * chunk.chunk_bytes
            self._bytes[begin : begin + len(chunk.content)] = chunk.content
            self._here[chunk.number] = 1
            self._missing -= 1


class Uploads:
    """All of them, whole or not, by the digest of the whole; each counts as if it were whole."""

    def __init__(self, total_bytes_max: int = TOTAL_BYTES_MAX) -> None:
        self._total_bytes_max = total_bytes_max
        self._total_bytes = 0
        self._kept: OrderedDict[Digest, _Kept] = OrderedDict()  # the least recently used first

    @property
    def total_bytes(self) -> int:
        """What all of them take."""
        return self._total_bytes

    def get(self, digest: Digest, now_s: float) -> bytes | None:
        """The message of that name, if all of it is here."""
        kept = self._use(digest, now_s)
        return kept.content if kept is not None and isinstance(kept.content, bytes) else None

    def put(self, content: bytes, now_s: float) -> Digest:
        """Keep a message to be fetched; its name. Raises `Unavailable` if there is no room."""
        digest = digest_of(content)
        if self.get(digest, now_s) is None:
            self._begin(digest, content, len(content), now_s)
        return digest

    def add(self, chunk: Chunk, now_s: float) -> bool:
        """Take a chunk, which the codec has checked; whether the message is whole.

        Raises `Invalid` if its bytes have another name, and forgets them; `TooLarge`; `Unavailable` if there is no
        room. Chunks of another shape begin anew.
        """
        if chunk.size_bytes > REQUEST_BYTES_MAX:
            raise TooLarge(f"a message of {chunk.size_bytes} bytes; at most {REQUEST_BYTES_MAX} are taken")
        if chunk.chunk_bytes < CHUNK_BYTES_MIN:
            raise Invalid(f"chunks of {chunk.chunk_bytes} bytes; at least {CHUNK_BYTES_MIN} are expected")
        kept = self._use(chunk.digest, now_s)
        if kept is not None and isinstance(kept.content, bytes):
            return True
        shape = (chunk.size_bytes, chunk.chunk_bytes)
        if kept is None or not isinstance(kept.content, Upload) or kept.content.shape != shape:
            kept = self._begin(chunk.digest, Upload(*shape), chunk.size_bytes, now_s)
        return self._grow(chunk, kept)

    def _grow(self, chunk: Chunk, kept: _Kept) -> bool:
        assert isinstance(kept.content, Upload)
        kept.content.take(chunk)
        whole = kept.content.whole
        if whole is None:
            return False
        if (actual := digest_of(whole)) != chunk.digest:
            self._drop(chunk.digest)
            raise Invalid(f"the chunks make bytes with the SHA-256 {actual}, not {chunk.digest}: send the right ones")
        kept.content = whole
        return True

    def _use(self, digest: Digest, now_s: float) -> _Kept | None:
        self._make_room(0, now_s)
        kept = self._kept.get(digest)
        if kept is not None:
            kept.used_s = now_s
            self._kept.move_to_end(digest)
        return kept

    def _begin(self, digest: Digest, content: bytes | Upload, size_bytes: int, now_s: float) -> _Kept:
        if digest in self._kept:
            self._drop(digest)
        self._make_room(size_bytes, now_s)
        if self._total_bytes + size_bytes > self._total_bytes_max:
            raise Unavailable(
                f"no room for a message of {size_bytes} bytes: {self._total_bytes} of {self._total_bytes_max} "
                "are in use, try again later"
            )
        kept = self._kept[digest] = _Kept(content, size_bytes, now_s)
        self._total_bytes += size_bytes
        return kept

    def _make_room(self, size_bytes: int, now_s: float) -> None:
        while self._kept:
            digest, kept = next(iter(self._kept.items()))
            idle_s = now_s - kept.used_s
            short = self._total_bytes + size_bytes > self._total_bytes_max
            if idle_s < IDLE_S or (idle_s < KEPT_S and not short):
                return
            self._drop(digest)

    def _drop(self, digest: Digest) -> None:
        self._total_bytes -= self._kept.pop(digest).size_bytes


class _Kept:
    __slots__ = ("content", "size_bytes", "used_s")

    def __init__(self, content: bytes | Upload, size_bytes: int, used_s: float) -> None:
        self.content = content
        self.size_bytes = size_bytes
        self.used_s = used_s

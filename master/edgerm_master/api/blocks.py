"""Blobs by the block, for the link over CoAP: read from the disk in larger pieces, off the event loop.

What does not live here: keeping blobs (`api/blobs.py`), the wire.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from edgerm.core.blobs import Digest
from edgerm_master.api.blobs import Blobs

PIECE_BYTES: Final = 1 << 16  # a multiple of every block size
PIECES_MAX: Final = 64

Piece = tuple[bytes, int]
"""Bytes, and the length of the whole blob."""


class Blocks:
    """Reads blocks; the pieces that were used last are kept in memory."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._pieces: OrderedDict[tuple[Digest, int], asyncio.Task[Piece]] = OrderedDict()

    async def read(self, digest: Digest, offset_bytes: int, size_bytes: int) -> Piece:
        """A block that lies within one piece, fewer bytes only at the blob's end; raises `NotFound`."""
        number = offset_bytes // PIECE_BYTES
        key = (digest, number)
        reading = self._pieces.get(key)
        if reading is None:
            reading = asyncio.create_task(self._blobs.read(digest, number * PIECE_BYTES, PIECE_BYTES))
            reading.add_done_callback(lambda read: self._forget_failure(key, read))
            self._pieces[key] = reading
            if len(self._pieces) > PIECES_MAX:
                self._pieces.popitem(last=False)
        else:
            self._pieces.move_to_end(key)
        piece, whole_bytes = await asyncio.shield(reading)  # others may wait for the same
        begin = offset_bytes % PIECE_BYTES
        return piece[begin : begin + size_bytes], whole_bytes

    def _forget_failure(self, key: tuple[Digest, int], read: asyncio.Task[Piece]) -> None:
        if (read.cancelled() or read.exception() is not None) and self._pieces.get(key) is read:
            del self._pieces[key]

"""Blobs by the block."""

from __future__ import annotations

from pathlib import Path

from edgerm.core.blobs import digest_of
from edgerm.store.blobs import BlobStore
from edgerm_master.api.blobs import Blobs
from edgerm_master.api.blocks import PIECE_BYTES, PIECES_MAX, Blocks


async def test_what_is_kept_in_memory_is_bounded(tmp_path: Path) -> None:
    """Of a blob with more pieces than that each block is right, and the pieces that were used last are kept."""
    blobs = Blobs(BlobStore(tmp_path, 1 << 30), set)
    data = b"".join(number.to_bytes(4) * (PIECE_BYTES // 4) for number in range(PIECES_MAX + 5))
    digest = digest_of(data)
    await blobs.keep(digest, data)
    blocks = Blocks(blobs)
    for offset in (*range(0, len(data), PIECE_BYTES), 0):
        assert await blocks.read(digest, offset, 1024) == (data[offset : offset + 1024], len(data))
    assert len(blocks._pieces) == PIECES_MAX
    assert list(blocks._pieces)[-2:] == [(digest, PIECES_MAX + 4), (digest, 0)]
    blobs.close()

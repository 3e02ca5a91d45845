"""A task's output, poured into our own. Imported when it is used."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import BinaryIO

from edgerm.core.errors import Unavailable
from edgerm.sdk.operator import Name, Operator

RETRY_S = 1.0
TRIES_MAX = 5  # in a row, without a byte between


async def pour(
    operator: Operator, name: Name, *, stderr: bool, follow: bool, lives: Callable[[], bool] = lambda: False
) -> None:
    """Write one stream of a task here; after a cut it goes on where it stopped, always while the task `lives`.

    Raises `Unavailable` if the rest cannot be had, `BrokenPipeError` if nobody reads here any more.
    """
    sink: BinaryIO = sys.stderr.buffer if stderr else sys.stdout.buffer
    offset, tries = 0, 0
    while True:
        try:
            async for chunk in operator.read_log(name, stderr=stderr, follow=follow, offset=offset):
                if chunk.offset > offset:
                    _note_gap(name, chunk.offset - offset)
                await asyncio.to_thread(_write, sink, chunk.data)
                offset, tries = chunk.offset + len(chunk.data), 0
            return
        except Unavailable:
            tries = 0 if lives() else tries + 1
            if tries >= TRIES_MAX or not follow:
                raise
            await asyncio.sleep(RETRY_S)


def _note_gap(name: Name, lost_bytes: int) -> None:
    """The agent keeps the latest output only; whoever reads more slowly than the task writes should know."""
    sys.stderr.write(f"edgerm: {lost_bytes} bytes of {name.task_id}'s output are lost: its agent keeps the latest\n")
    sys.stderr.flush()


def _write(sink: BinaryIO, data: bytes) -> None:
    sink.write(data)
    sink.flush()

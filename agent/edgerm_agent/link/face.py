"""What a face of the link does for the agent; `master` is always the URL of a master that the face speaks to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from edgerm.core.errors import NotFound, Unavailable
from edgerm.core.link import Beat, BeatAnswer, Join, JoinAnswer
from edgerm.core.scheduler import BlobRef
from edgerm_agent.blobs import Body

ANSWER_BYTES_MAX = 4 << 20


class Moved(Unavailable):
    """The master sends us to another one; nothing else was said."""

    def __init__(self, url: str) -> None:
        super().__init__(f"another master is meant: {url}")
        self.url = url


class Face(Protocol):
    """Requests have time limits of their own. All methods are for the event loop."""

    async def join(self, master: str, join: Join) -> JoinAnswer:
        """The answer; raises `Moved`, `Unavailable`, or `Invalid` for an answer that cannot be read."""
        ...

    async def beat(self, master: str, beat: Beat) -> BeatAnswer:
        """The answer; raises `Unavailable`, or `Invalid` for an answer that cannot be read."""
        ...

    async def listen(self, master: str, session: int, silence_s: float, rang: Callable[[], None]) -> None:
        """Tell each ring, and once when connected, for what rang before was not heard.

        `silence_s`: so long without a word, where the master says something at every beat, and the line is dead.
        Returns when the session is not known there; raises `Unavailable` when the connection is lost.
        """
        ...

    def get_blob(self, master: str, ref: BlobRef, offset_bytes: int) -> AbstractAsyncContextManager[Body]:
        """See `blobs.Source`."""
        ...

    async def close(self) -> None:
        """End all connections."""
        ...


def no_blob(ref: BlobRef) -> NotFound:
    """The master lacks a blob."""
    return NotFound(
        f"the master has no blob {ref.digest}: put it there (PUT /artifacts/{ref.digest}), then launch again"
    )

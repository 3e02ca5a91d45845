"""Messages of the ephemeral lane in parts that frames hold: cut, queued whole or not at all, put together again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from edgerm.core.ids import TaskKey
from edgerm.core.link.messages import QUEUED_MESSAGES_BYTES_MAX, QUEUED_PARTS_MAX, Frame, MessagePart
from edgerm.core.link.sizes import key_bytes
from edgerm.core.scheduler import MESSAGE_BYTES_MAX

STREAM = 0  # of messages, which belong to no stream


class Letter(NamedTuple):
    """A whole message, and the task that it is for, or from."""

    key: TaskKey
    data: bytes


def cut(letter: Letter, data_bytes: int) -> Iterator[Frame]:
    """The message in frames with at most `data_bytes` each, the key included where there is room for both."""
    first = min(max(data_bytes - key_bytes(letter.key), 0), len(letter.data))
    yield Frame(STREAM, MessagePart(letter.key, letter.data[:first], first < len(letter.data)))
    for begin in range(first, len(letter.data), data_bytes):
        end = begin + data_bytes
        yield Frame(STREAM, MessagePart(None, letter.data[begin:end], end < len(letter.data)))


def queue_message(frames: deque[Frame], letter: Letter, data_bytes: int) -> bool:
    """Queue all of it; False when there is no room: it is dropped."""
    if not 0 < len(letter.data) <= MESSAGE_BYTES_MAX:
        return False
    waiting = [frame.body for frame in frames if isinstance(frame.body, MessagePart)]
    waiting_bytes = sum(len(part.data) for part in waiting)
    parts = list(cut(letter, data_bytes))
    too_many = len(waiting) + len(parts) > QUEUED_PARTS_MAX
    if too_many or (waiting and waiting_bytes + len(letter.data) > QUEUED_MESSAGES_BYTES_MAX):
        return False
    frames.extend(parts)
    return True


class Assembly:
    """Puts messages together, of one session. Parts come in order; what does not fit together is left out."""

    __slots__ = ("_begun", "_key")

    def __init__(self) -> None:
        self._key: TaskKey | None = None
        self._begun = bytearray()

    def take(self, frames: Iterable[Frame]) -> tuple[list[Letter], tuple[Frame, ...]]:
        """The messages that these frames complete, and the frames that are no parts of messages."""
        letters: list[Letter] = []
        others: list[Frame] = []
        for frame in frames:
            if not isinstance(frame.body, MessagePart):
                others.append(frame)
            elif (letter := self._add(frame.body)) is not None:
                letters.append(letter)
        return letters, tuple(others)

    def _add(self, part: MessagePart) -> Letter | None:
        if part.key is not None:
            self._key = part.key
            self._begun.clear()
        if self._key is None or len(self._begun) + len(part.data) > MESSAGE_BYTES_MAX:
            self._key = None
            self._begun.clear()
            return None
        self._begun += part.data
        if part.more:
            return None
        letter = Letter(self._key, bytes(self._begun))
        self._key = None
        self._begun.clear()
        return letter if letter.data else None

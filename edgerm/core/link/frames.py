"""Queues of frames, as both halves keep them: bounded, and cut to what a message has room for."""

from __future__ import annotations

from collections import deque

from edgerm.core.link.messages import QUEUED_FRAMES_MAX, REASON_BYTES_MAX, Close, Frame
from edgerm.core.link.sizes import fitting, frame_bytes
from edgerm.core.texts import cut


def fitting_frames(frames: deque[Frame], left_bytes: int, alone: bool) -> tuple[Frame, ...]:
    """The first that fit; `alone`, with nothing else in the message, one that is too big goes all the same."""
    if not frames:
        return ()
    count, _ = fitting(map(frame_bytes, frames), left_bytes, least=int(alone))
    return tuple(frames) if count == len(frames) else tuple(frames)[:count]


def queue(frames: deque[Frame], frame: Frame) -> bool:
    """Append it, a long reason cut; False when the queue is full."""
    if len(frames) >= QUEUED_FRAMES_MAX:
        return False
    if isinstance(frame.body, Close):
        frame = Frame(frame.stream, Close(cut(frame.body.reason, REASON_BYTES_MAX)))
    frames.append(frame)
    return True

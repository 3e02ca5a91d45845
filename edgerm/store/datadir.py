"""A program's data directory: made, proved usable, and locked against a second process.

What lives here: the directory and files in it that are written whole. What the files mean is the business of others.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgerm.core.errors import Conflict, EdgermError, Invalid, Unavailable

LOCK_NAME: Final = "lock"
FREE_BYTES_MIN: Final = 1 << 20
"""A data directory with less room than this is refused: the program could not keep its promises for long."""


class DataDir:
    """An open data directory; only one process has it at a time. `close`, or the end of the process, lets go."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, path: Path, what: str) -> DataDir:
        """Take the directory for `what` ("master", "agent"); made with mode 0700 if it is missing.

        Raises Conflict if another process has it, Unavailable if it is read-only, full or not ours to write, Invalid
        if something else has this name. Each says what to do.
        """
        remedy = f"choose another directory for the {what} with --data-dir"
        with explained(path, remedy):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with explained(path, remedy):
                if holder := lock_alone(lock):
                    raise Conflict(f"{path} is in use by {holder}: end it, or give this {what} its own --data-dir")
                _prove_room(path)
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(lock)
            raise
        return cls(path, lock)

    def close(self) -> None:
        """Let go; idempotent. The lock file stays: removing it would let two processes lock two files of one name."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable; without this a new file may be gone after a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explained(path: Path, remedy: str) -> Iterator[None]:
    """Turn what the kernel says about `path` into one of our errors."""
    try:
        yield
    except OSError as error:
        raise _explanation(path, remedy, error) from error


def _explanation(path: Path, remedy: str, error: OSError) -> EdgermError:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return Unavailable(f"{path}: no space left on the device: free some, or {remedy}")
        case errno.EROFS:
            return Unavailable(f"{path} is on a read-only file system: mount it writable, or {remedy}")
        case errno.EACCES | errno.EPERM:
            return Unavailable(f"{path} is not writable for uid {os.geteuid()}: change its owner or mode, or {remedy}")
        case errno.ENOTDIR | errno.EEXIST | errno.EISDIR:
            return Invalid(f"{path}: something else has this name ({error.strerror}): {remedy}")
        case _:
            return Unavailable(f"{path}: {error.strerror}: check disk and file system, or {remedy}")


def lock_alone(lock: int) -> str:
    """Lock this open lock file of a data directory; empty: done, else who has it, in words. Raises `OSError`."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(lock, 20, 0).decode(errors="replace").strip()
        return f"process {pid}" if pid else "another process"
    return ""


def _prove_room(path: Path) -> None:
    """Reserve room in a file and give it back, which a read-only or full file system refuses."""
    probe = path / ".probe"
    descriptor = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, FREE_BYTES_MIN)
    finally:
        os.close(descriptor)
        probe.unlink()

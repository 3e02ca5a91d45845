"""The door to the box's devices and files, and what plugins note: no plugin opens a file but through here.

What does not live here: what the files say (each plugin parses its own), recorded boards (`edgerm.testing.hostfs`).
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from edgerm.core.errors import TooLarge
from edgerm.store.datadir import sync_directory

READ_BYTES_MAX = 4 << 20  # of a file, and of a program's output
NOTE_BYTES_MAX = 64 << 10
RUN_S = 10.0
NAME_MAX = 100  # characters of a note's key that its file shows
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


class Host:
    """This box (`HostFiles`). `notes`: the directory of the plugin that has this door; made when it notes something.

    A program that `run` starts is killed after `run_s`.
    """

    def __init__(self, notes: Path, run_s: float = RUN_S) -> None:
        self.notes = FileNotes(notes)
        self._run_s = run_s

    def read(self, path: str) -> str:
        """Raises `OSError` also for more than 4 MiB."""
        with _named(path), open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a path is a text here
            data = bytearray()
            while chunk := file.read(1 << 16):
                data += chunk
                if len(data) > READ_BYTES_MAX:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        return data.decode(errors="replace")

    def write(self, path: str, text: str) -> None:
        """One write(2), because the kernel takes each as a whole setting."""
        data = text.encode()
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            with _named(path):
                if os.write(descriptor, data) < len(data):
                    raise OSError(errno.EIO, "only a part of it was taken", path)
        finally:
            os.close(descriptor)

    def names(self, path: str) -> tuple[str, ...]:
        return tuple(sorted(os.listdir(path)))  # noqa: PTH208 - a path is a text here

    def exists(self, path: str) -> bool:
        return os.path.exists(path)  # noqa: PTH110 - a path is a text here

    def link(self, path: str) -> str:
        return os.path.realpath(path, strict=True)

    async def run(self, *argv: str) -> str:
        """With an empty input, in the C locale."""
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=ENVIRONMENT,
            limit=READ_BYTES_MAX,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._run_s):
                output, errors = await process.communicate()
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, f"it took longer than {self._run_s:g} s", argv[0]) from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):  # with all that it started
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if process.returncode:
            raise OSError(errno.EIO, _last_words(errors, process.returncode), " ".join(argv)[:200])
        if len(output) > READ_BYTES_MAX:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), argv[0])
        return output.decode(errors="replace")


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Errors of a descriptor do not say whose it is."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or path
        raise


def _last_words(errors: bytes, status: int) -> str:
    lines = errors.decode(errors="replace").split("\n")
    words = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"{words[:300] or 'it said nothing'} (exit status {status})"


class FileNotes:
    """A plugin's `Notes`: a small file each, durable when `put` or `drop` returns."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, key: str) -> Mapping[str, object] | None:
        """Raises `OSError` for a file that somebody else wrote to."""
        try:
            return self._read(self._file(key))[1]
        except FileNotFoundError:
            return None

    def put(self, key: str, note: Mapping[str, object]) -> None:
        """Raises `TooLarge` for more than 64 KiB."""
        data = json.dumps({"key": key, "note": note}, sort_keys=True, indent=1).encode()
        if len(data) > NOTE_BYTES_MAX:
            raise TooLarge(f"a note of {len(data)} bytes for {key[:80]!r}: at most {NOTE_BYTES_MAX} are kept")
        self._make()
        file = self._file(key)
        fresh = file.with_suffix(".new")
        with fresh.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(file)
        sync_directory(self._directory)

    def drop(self, key: str) -> None:
        """Forget it."""
        with suppress(FileNotFoundError):
            self._file(key).unlink()
            sync_directory(self._directory)

    def keys(self) -> tuple[str, ...]:
        """In order."""
        if not self._directory.is_dir():
            return ()
        return tuple(sorted(self._read(file)[0] for file in self._directory.glob("*.json")))

    def _read(self, file: Path) -> tuple[str, Mapping[str, object]]:
        try:
            found = json.loads(file.read_bytes())
            return str(found["key"]), dict(found["note"])
        except (ValueError, KeyError, TypeError) as error:
            raise OSError(
                errno.EIO, "it is no note of ours: remove it once its devices are as they were", str(file)
            ) from error

    def _file(self, key: str) -> Path:
        """Told apart by a hash, because a key may be longer than a name."""
        return self._directory / f"{quote(key, safe=' ')[:NAME_MAX]}-{sha256(key.encode()).hexdigest()[:16]}.json"

    def _make(self) -> None:
        missing = [path for path in (self._directory, *self._directory.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir(mode=0o700, exist_ok=True)
            sync_directory(path.parent)


def problem_of_node(path: str) -> str:
    """Why `path` is no device node of this box, nor a directory of them; empty: it is."""
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        return _missing(path, error)
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISDIR(mode):
        return ""
    return f"{path} is no device node"


def problem_of_volume(path: str) -> str:
    """Why `path` cannot be mounted; empty: it can."""
    try:
        Path(path).stat()
    except OSError as error:
        return _missing(path, error)
    return ""


def _missing(path: str, error: OSError) -> str:
    return f"{path} is missing" if isinstance(error, FileNotFoundError) else f"{path}: {error.strerror}"


def doors(directory: Path) -> Callable[[str], Host]:
    """A plugin's door, by the plugin's name; each has a directory of its own for notes."""
    return lambda name: Host(directory / quote(name, safe=" "))

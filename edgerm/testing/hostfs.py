"""A recorded board as a host: `HostFiles` over a tree of files, for plugins of hardware that is not here.

The tree has the box's paths below its root (`ROOT/sys/class/net/…`), symbolic links included, absolute ones too. What
a program printed lies in `ROOT/programs/`, in a file named as the command (`lscpu -e -J`, with `%2F` for `/`). Writes
go to no disk: they are listed, and read back. What does not live here: what real kernels answer to a write.
"""

from __future__ import annotations

import errno
import json
import os
import posixpath
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

LINKS_MAX = 40  # as the kernel has it

Files = Mapping[str, str]


class MemoryNotes:
    """A plugin's `Notes`, for as long as this object is kept: a new plugin with it is one after a restart."""

    def __init__(self) -> None:
        self._notes: dict[str, str] = {}

    def get(self, key: str) -> Mapping[str, object] | None:
        """What was noted last."""
        text = self._notes.get(key)
        found: Mapping[str, object] | None = None if text is None else json.loads(text)
        return found

    def put(self, key: str, note: Mapping[str, object]) -> None:
        """As text, so that what is no JSON is found here."""
        self._notes[key] = json.dumps(note)

    def drop(self, key: str) -> None:
        """Forget it."""
        self._notes.pop(key, None)

    def keys(self) -> tuple[str, ...]:
        """In order."""
        return tuple(sorted(self._notes))


class RecordedHost:
    """The board recorded below `root`, if any, with `files` (path → text) and `links` (path → target) laid over it.

    `programs`: command line → output, over the recorded ones. `notes` may be those of an earlier life. Every path is
    absolute, as on the box.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        files: Files | None = None,
        links: Files | None = None,
        programs: Files | None = None,
        notes: MemoryNotes | None = None,
    ) -> None:
        self.notes = notes or MemoryNotes()
        self.written: list[tuple[str, str]] = []  # every write, as the plugin named it
        self.ran: list[tuple[str, ...]] = []  # every program
        self._root = root
        self._files: dict[str, str | None] = {}  # None: it is not there any more
        self._before: dict[str, str | None] = {}  # of files that were written to: what they had
        self._links = dict(links or {})
        self._programs = dict(programs or {})
        self._refused: dict[str, int] = {}
        for path, text in (files or {}).items():
            self.put(path, text)

    # --- what a test does to the board ---

    def put(self, path: str, text: str) -> None:
        """From now on the file has this text."""
        self._files[path] = self._before[path] = text

    def remove(self, path: str) -> None:
        """The file, or the directory with all in it, is not there any more."""
        self._links.pop(path, None)
        below = [each for each in self._files if each.startswith(f"{path}/")]
        for each in below:
            del self._files[each]
        self._files[path] = self._before[path] = None

    def refuse(self, path: str, code: int = errno.EPERM) -> None:
        """Writes to this file fail so from now on; 0: they do not."""
        self._refused[path] = code

    def changes(self) -> Mapping[str, object]:
        """What is not as it was recorded, laid over or put: text by path; and what is noted."""
        found: dict[str, object] = {path: text for path, text in self._files.items() if self._before.get(path) != text}
        return found | {f"note {key}": self.notes.get(key) for key in self.notes.keys()}  # noqa: SIM118 - no mapping

    # --- HostFiles ---

    def read(self, path: str) -> str:
        """Raises `OSError`, as all of them do."""
        found = self._resolve(path)
        if found in self._files:
            return self._files[found] or ""
        if self._is_directory(found):
            raise _error(errno.EISDIR, path)
        if self._root is None:
            raise _error(errno.ENOENT, path)
        return self._on_disk(found).read_text(errors="replace")

    def write(self, path: str, text: str) -> None:
        """Listed, and read back."""
        found = self._resolve(path)
        if self._is_directory(found):
            raise _error(errno.EISDIR, path)
        if code := self._refused.get(path) or self._refused.get(found):
            raise _error(code, path)
        if found not in self._before:
            self._before[found] = self.read(found)
        self.written.append((path, text))
        self._files[found] = text

    def names(self, path: str) -> tuple[str, ...]:
        """Of files, directories and links."""
        found = self._resolve(path)
        if not self._is_directory(found):
            raise _error(errno.ENOTDIR, path)
        prefix = found.rstrip("/") + "/"
        names = {each.name for each in self._on_disk(found).iterdir()} if self._is_recorded_directory(found) else set()
        overlaid = [each for each, text in self._files.items() if text is not None] + list(self._links)
        names |= {each[len(prefix) :].split("/")[0] for each in overlaid if each.startswith(prefix)}
        return tuple(sorted(name for name in names if self._files.get(prefix + name, "") is not None))

    def exists(self, path: str) -> bool:
        """Links are followed."""
        try:
            self._resolve(path)
        except OSError:
            return False
        return True

    def link(self, path: str) -> str:
        """Of any path: what it leads to at last."""
        return self._resolve(path)

    async def run(self, *argv: str) -> str:
        """What was recorded of exactly this command."""
        self.ran.append(argv)
        command = " ".join(argv)
        if command in self._programs:
            return self._programs[command]
        try:
            if self._root is not None:
                return (self._root / "programs" / quote(command, safe=" ")).read_text()
        except FileNotFoundError:
            pass
        raise _error(errno.ENOENT, command)

    # --- the tree ---

    def _resolve(self, path: str) -> str:
        """Without links. Raises `OSError` if nothing is there."""
        if not path.startswith("/"):
            raise _error(errno.EINVAL, path)
        done, left = "/", [part for part in path.split("/") if part]
        for _ in range(LINKS_MAX + len(left)):
            if not left:
                return done
            at = posixpath.normpath(posixpath.join(done, left.pop(0)))
            target = self._target(at)
            if target is not None:
                left = [part for part in target.split("/") if part] + left
                done = "/" if target.startswith("/") else done
            elif self._is_there(at):
                done = at
            else:
                raise _error(errno.ENOENT, path)
        raise _error(errno.ELOOP, path)

    def _target(self, path: str) -> str | None:
        if path in self._links:
            return self._links[path]
        if path in self._files or self._root is None or not self._on_disk(path).is_symlink():
            return None
        return os.readlink(self._on_disk(path))  # noqa: PTH115 - as it is written

    def _is_there(self, path: str) -> bool:
        parents = [posixpath.dirname(path)]
        while parents[-1] not in ("/", ""):
            parents.append(posixpath.dirname(parents[-1]))
        if path in self._files:
            return self._files[path] is not None or self._is_overlaid_directory(path)
        if any(self._files.get(parent, "") is None and not self._is_overlaid_directory(parent) for parent in parents):
            return False
        return self._is_directory(path) or (self._root is not None and self._on_disk(path).exists())

    def _is_directory(self, path: str) -> bool:
        return self._is_overlaid_directory(path) or self._is_recorded_directory(path)

    def _is_overlaid_directory(self, path: str) -> bool:
        prefix = path.rstrip("/") + "/"
        there = (each for each, text in self._files.items() if text is not None)
        return any(each.startswith(prefix) for each in (*there, *self._links))

    def _is_recorded_directory(self, path: str) -> bool:
        return self._root is not None and self._files.get(path, "") is not None and self._on_disk(path).is_dir()

    def _on_disk(self, path: str) -> Path:
        return (self._root or Path("/nonexistent")) / path.lstrip("/")


def _error(code: int, path: str) -> OSError:
    return OSError(code, os.strerror(code), path)

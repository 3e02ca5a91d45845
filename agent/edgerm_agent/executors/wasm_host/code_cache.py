"""Compiled modules on disk, named by the module's SHA-256 and the engine: each is compiled once, whoever asks.

What lives here: files, digests, and who waits for whom. Not here: the compiler, which is handed in. The engine maps
a file and jumps into it without a check, and flash does go bad: so each file's own checksum stands beside it and is
verified once per process. The folder must be the agent's own (0700): who may write here may run anything.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

MODULE_BYTES_MAX = 64 << 20
CACHE_BYTES_MAX = 256 << 20
COMPILERS = 2  # at the same time; each uses all cores by itself
DIGESTS_KEPT = 1024


class _Job:
    """One compilation in progress, and those who wait for it."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.path: Path | None = None
        self.error: Exception | None = None


class CodeCache:
    """Hands out files of machine code; safe to use from many threads."""

    def __init__(self, folder: Path, tag: str, compiler: Callable[[bytes], bytes]) -> None:
        self._folder = folder
        self._tag = tag
        self._compile = compiler
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}
        self._verified: dict[str, Path] = {}
        self._digests: dict[tuple[int, ...], str] = {}
        self._compilers = threading.BoundedSemaphore(COMPILERS)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def get(self, module: Path) -> Path:
        """The compiled code of `module`; blocks while it is compiled, here or in another thread.

        Raises what the compiler raises, `OSError`, and `ValueError` if the module is over 64 MiB.
        """
        digest = self._digest(module)
        return self._get(digest, lambda: _read_unchanged(module, digest))

    def get_bytes(self, wasm: bytes) -> Path:
        """As `get`, of a module in memory."""
        return self._get(sha256(wasm).hexdigest(), lambda: wasm)

    def _get(self, digest: str, read: Callable[[], bytes]) -> Path:
        with self._lock:
            path = self._verified.get(digest)
            if path is not None and path.exists():
                return path
            job = self._jobs.get(digest)
            leads = job is None
            if job is None:
                job = self._jobs[digest] = _Job()
        if leads:
            self._lead(digest, read, job)
        job.done.wait()
        if job.error is not None:
            raise job.error
        assert job.path is not None
        return job.path

    def _lead(self, digest: str, read: Callable[[], bytes], job: _Job) -> None:
        try:
            job.path = self._find(digest) or self._make(digest, read())
        except Exception as error:
            job.error = error
        with self._lock:
            if job.path is not None:
                self._verified[digest] = job.path
            del self._jobs[digest]
        job.done.set()

    def _digest(self, module: Path) -> str:
        stat = module.stat()
        if stat.st_size > MODULE_BYTES_MAX:
            raise ValueError(f"the module has {stat.st_size} bytes, at most {MODULE_BYTES_MAX} are allowed")
        identity = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        digest = self._digests.get(identity)
        if digest is None:
            digest = sha256(module.read_bytes()).hexdigest()
            if len(self._digests) >= DIGESTS_KEPT:
                self._digests.clear()
            self._digests[identity] = digest
        return digest

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.{self._tag}.cwasm"

    def _find(self, digest: str) -> Path | None:
        """A sound file of an earlier process."""
        path = self._path(digest)
        try:
            if sha256(path.read_bytes()).hexdigest() != _sum_of(path).read_text():
                return None
            os.utime(path)
        except OSError:
            return None
        return path

    def _make(self, digest: str, wasm: bytes) -> Path:
        with self._compilers:
            code = self._compile(wasm)
        path = self._path(digest)
        self._replace(path, code)
        self._replace(_sum_of(path), sha256(code).hexdigest().encode())
        self._evict(path)
        return path

    def _replace(self, path: Path, data: bytes) -> None:
        """Never write in place: other guests have the old file mapped."""
        fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        fresh.write_bytes(data)
        fresh.replace(path)

    def _evict(self, keep: Path) -> None:
        """The longest unused go until the rest fits; guests that have them mapped keep them."""
        with self._lock:
            files = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in self._folder.glob("*.cwasm"))
            surplus = sum(size for _, size, _ in files) - CACHE_BYTES_MAX
            for _, size, path in files:
                if surplus <= 0:
                    break
                if path != keep:
                    surplus -= size
                    for gone in (path, _sum_of(path)):
                        with suppress(FileNotFoundError):
                            gone.unlink()


def _read_unchanged(module: Path, digest: str) -> bytes:
    wasm = module.read_bytes()
    if sha256(wasm).hexdigest() != digest:
        raise ValueError(f"the module {module} changed while it was read")
    return wasm


def _sum_of(path: Path) -> Path:
    return path.with_suffix(".sum")

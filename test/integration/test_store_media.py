"""Stores on media that refuse: small and read-only file systems, a directory that another process has.

The file systems are mounted in a mount namespace of their own, which ends with the process in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgerm.core.errors import Conflict
from edgerm.store.datadir import DataDir

UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
MOUNT_AND_RUN = 'mount -t tmpfs -o size="$2" edgerm-test "$1" && cd "$1" && exec "$3" -c "$4"'
PREAMBLE = """
import os, sys
from pathlib import Path
from edgerm.core.blobs import digest_of
from edgerm.core.errors import Unavailable
from edgerm.store.api import Put
from edgerm.store.blobs import BlobStore
from edgerm.store.datadir import DataDir
from edgerm.store.sqlite import SqliteStore

here = Path.cwd()

def refused(call, *arguments):
    try:
        call(*arguments)
    except Unavailable as error:
        return str(error)
    return "not refused"

def fill():
    with open("filler", "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
"""


def run_on_tmpfs(tmp_path: Path, size: str, script: str) -> list[str]:
    """Run Python lines in a fresh file system of that size; return the lines that it printed."""
    probe = subprocess.run(
        [*UNSHARE, "mount", "-t", "tmpfs", "edgerm-test", tmp_path], capture_output=True, check=False
    )
    if probe.returncode != 0:
        pytest.skip(f"no mount namespace here, run as root or allow user namespaces: {probe.stderr.decode().strip()}")
    arguments = [str(tmp_path), size, sys.executable, PREAMBLE + script]
    done = subprocess.run(
        [*UNSHARE, "sh", "-c", MOUNT_AND_RUN, "sh", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    return done.stdout.splitlines()


def test_a_full_disk_is_refused_at_the_start(tmp_path: Path) -> None:
    """A data directory on a file system without room is refused with path and remedy, and leaves no probe."""
    script = """
print(refused(DataDir.open, here, "agent"))
print(sorted(os.listdir()))
"""
    error, left = run_on_tmpfs(tmp_path, "256k", script)
    assert error.startswith(f"{tmp_path}: no space left on the device: free some, or choose another directory")
    assert "--data-dir" in error
    assert left == "['lock']"


def test_a_disk_that_fills_up_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    """When the disk fills up, a batch is refused clearly; all before it is there, and with room the store goes on."""
    script = """
(here / "spare").write_bytes(bytes(1 << 20))
store = SqliteStore(here / "s.db")
fence, done = store.take_over(), 0
def batches():
    global done
    while True:
        store.apply([Put("task", f"{done}.{n}", 1, bytes(3000)) for n in range(10)], fence)
        done += 1
print(refused(batches))
print(done > 5, len(list(store.load())) == 10 * done)
store.close()
(here / "spare").unlink()
store = SqliteStore(here / "s.db")
print(len(list(store.load())) - 10 * done)
store.apply([Put("task", "next", 1, b"")], store.take_over())
store.close()
"""
    error, kept, more = run_on_tmpfs(tmp_path, "3m", script)
    assert error.startswith(f"{tmp_path}/s.db: no space left on the device")
    assert kept == "True True"
    assert more == "0"


def test_a_store_does_not_start_on_a_full_disk(tmp_path: Path) -> None:
    """SQLite on a full disk is refused with words about space, be the file new or there already."""
    script = """
store = SqliteStore(here / "old.db")
store.apply([Put("task", "a", 1, b"")], store.take_over())
store.close()
fill()
print(refused(SqliteStore, here / "new.db"))
print(refused(SqliteStore, here / "old.db"))
os.unlink("filler")
print([row.key for row in SqliteStore(here / "old.db").load()])
SqliteStore(here / "new.db").close()
"""
    new, old, rows = run_on_tmpfs(tmp_path, "1m", script)
    for error, name in ((new, "new.db"), (old, "old.db")):
        assert error.startswith(f"{tmp_path}/{name}"), error
        assert "space" in error
    assert rows == "['a']"


def test_a_blob_that_does_not_fit_the_disk_leaves_nothing(tmp_path: Path) -> None:
    """When the disk fills up under a blob, the writer says so, and its file is gone."""
    script = """
store = BlobStore(here, limit_bytes=1 << 30)
def write():
    with store.writer(digest_of(b"")) as writer:
        while True:
            writer.write(bytes(50_000))
print(refused(write))
print(store.total_bytes, os.listdir("partial"))
"""
    error, left = run_on_tmpfs(tmp_path, "1m", script)
    assert error.startswith(f"{tmp_path}: no space left on the device")
    assert left == "0 []"


def test_a_read_only_disk_is_refused(tmp_path: Path) -> None:
    """On a read-only file system directory, store and blob are refused with the path and words about it."""
    script = """
DataDir.open(here / "old", "agent").close()
SqliteStore(here / "s.db").close()
blobs = BlobStore(here / "blobs", 1000)
os.system("mount -o remount,ro edgerm-test .")
print(refused(DataDir.open, here / "old", "agent"))
print(refused(DataDir.open, here / "new", "agent"))
print(refused(blobs.writer, digest_of(b"")))
print(refused(BlobStore, here / "other", 1000))
print(refused(SqliteStore, here / "s.db"))
print(refused(SqliteStore, here / "new.db"))
"""
    *errors, old_store, new_store = run_on_tmpfs(tmp_path, "3m", script)
    assert len(errors) == 4
    for error in errors:
        assert error.startswith(str(tmp_path))
        assert "is on a read-only file system" in error
    assert old_store.startswith(f"{tmp_path}/s.db cannot be written")
    assert new_store.startswith(f"{tmp_path}/new.db cannot be written")


def test_two_processes_do_not_share_a_directory(tmp_path: Path) -> None:
    """A second process is told the pid of the first; when the first is killed, the directory is free at once."""
    script = "import sys; DataDir.open(here, 'agent'); print('ready', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", PREAMBLE + script]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        with pytest.raises(Conflict, match=rf"{tmp_path} is in use by process {holder.pid}: end it"):
            DataDir.open(tmp_path, "agent")
        holder.kill()
        holder.wait()
        DataDir.open(tmp_path, "agent").close()

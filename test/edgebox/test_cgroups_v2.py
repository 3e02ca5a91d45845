"""What only cgroup v2 has: delegation to an ordinary user, threaded groups, a task that dies whole at its limit.

The promises that v1 and v2 share are in test/integration/test_cgroups.py, which `make test-edgebox` runs here too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgerm.core.errors import Unavailable
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.plugin.executor import Limits
from edgerm_agent.cgroups import Cgroups, TaskGroup, open_cgroups

pytestmark = [
    pytest.mark.edgebox,
    pytest.mark.skipif(os.environ.get("EDGEBOX") != "1", reason="needs cgroup v2 as root: make test-edgebox runs it"),
]

ROOT = Path("/sys/fs/cgroup")
KEY = TaskKey(FrameworkId("f-1"), TaskId("t"), LaunchId("l-1"))
NOBODY = 65534
JOIN_AND_TELL = """
import sys
for path in sys.argv[1:]:
    open(path, "w").write("0")
print(open("/proc/thread-self/cgroup").read())
"""
HOG_BESIDE_A_CHILD = (
    "import os\nif os.fork():\n    held = bytearray(300 << 20)\nelse:\n    os.execlp('sleep', 'sleep', '1000')"
)


@pytest.fixture
def cgroups() -> Iterator[Cgroups]:
    found = open_cgroups("v2")
    yield found
    for group in found.orphans([]):
        assert group.kill()
        group.remove()
    for threads in found.orphan_threads([]):
        threads.remove()
    found.discard()


@pytest.fixture
def unit() -> Iterator[Callable[[str], Path]]:
    """Makes a group as systemd does for a unit with `User=nobody` and `Delegate=CONTROLLERS`."""
    folder = ROOT / "unit"

    def delegate(controllers: str) -> Path:
        for controller in controllers.split():
            (ROOT / "cgroup.subtree_control").write_text(f"+{controller}")
        folder.mkdir()
        for path in (folder, *(folder / f"cgroup.{name}" for name in ("procs", "subtree_control", "threads"))):
            os.chown(path, NOBODY, NOBODY)
        return folder

    yield delegate
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
    folder.rmdir()
    for controller in (ROOT / "cgroup.subtree_control").read_text().split():
        (ROOT / "cgroup.subtree_control").write_text(f"-{controller}")


def as_nobody(folder: Path, body: Callable[[], object]) -> object:
    """What `body` returns to an ordinary user inside `folder`. (Forked: that user may not read our Python.)"""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            (folder / "cgroup.procs").write_text("0")
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(writer, json.dumps(body()).encode())
        except BaseException as error:
            os.write(writer, json.dumps(repr(error)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as file:
        return json.load(file)


def test_root_has_everything(cgroups: Cgroups) -> None:
    """Root on a plain v2 machine limits CPU and memory, and a host has a place for its threads."""
    assert cgroups.version == "v2"
    assert cgroups.enforced() == {"cpus": "cgroup-v2", "mem": "cgroup-v2"}
    assert cgroups.host_paths == (str(ROOT / "edgerm/v2/threads/cgroup.procs"),)


def test_limits_stand_in_the_kernel(cgroups: Cgroups) -> None:
    """Each limit is what the kernel says it is, swap is off and the number of processes is bounded."""
    group = cgroups.task_group(KEY, Limits(cpus_milli=1500, memory_bytes=64 << 20))
    assert group is not None
    folder = Path(group.paths[0]).parent
    names = ("cpu.max", "cpu.weight", "memory.max", "memory.oom.group", "pids.max")
    assert [(folder / name).read_text().strip() for name in names] == ["150000 100000", "150", "67108864", "1", "4096"]
    assert (folder / "memory.swap.max").read_text() == "0\n"


def test_a_task_at_its_memory_limit_dies_whole(cgroups: Cgroups) -> None:
    """Not only the process that asked for too much memory is killed, but the task."""
    group = cgroups.task_group(KEY, Limits(memory_bytes=64 << 20))
    assert group is not None
    join = ["sh", "-c", f'echo 0 >{group.paths[0]}; exec "$@"', "sh", sys.executable, "-c", HOG_BESIDE_A_CHILD]
    done = subprocess.run(join, stdout=subprocess.PIPE, check=False)  # ends when the child's copy of the pipe is closed
    assert done.returncode == -9
    assert group.oom_kills() >= 1


def test_a_kernel_without_cgroup_kill_is_served(cgroups: Cgroups) -> None:
    """The way of killing that v1 needs empties a v2 group too."""
    group = cgroups.task_group(KEY, Limits())
    assert group is not None
    command = ["sh", "-c", f"echo 0 >{group.paths[0]}; sleep 1000 & sleep 1000 & echo up; wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert len(group.pids()) == 3
        assert TaskGroup.kill(group)
        assert child.stdout.read() == b""
    assert group.pids() == set()


def test_a_user_with_a_delegated_unit_has_everything(unit: Callable[[str], Path]) -> None:
    """In a unit with Delegate=yes an ordinary user limits, kills and removes, its own process moved aside."""
    folder = unit("cpu memory pids")

    def body() -> object:
        found = open_cgroups("user")
        group = found.task_group(KEY, Limits(cpus_milli=500, memory_bytes=64 << 20))
        assert group is not None
        command = ["sh", "-c", f"echo 0 >{group.paths[0]}; echo up; exec sleep 1000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            held, killed, usage = group.pids() == {child.pid}, group.kill(), group.usage() is not None
        own = Path("/proc/self/cgroup").read_text()
        group.remove()
        found.discard()
        return [found.enforced(), held, killed, usage, child.returncode, own]

    everything = {"cpus": "cgroup-v2", "mem": "cgroup-v2"}
    assert as_nobody(folder, body) == [everything, True, True, True, -9, "0::/unit/edgerm-self\n"]
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["edgerm-self"]


def test_a_unit_with_cpu_only_can_run_tasks(unit: Callable[[str], Path]) -> None:
    """CPU handed down from a unit that holds the agent itself does not leave groups that no task can join."""

    def body() -> object:
        found = open_cgroups("user")
        group = found.task_group(KEY, Limits(cpus_milli=500, memory_bytes=64 << 20))
        assert group is not None
        code = subprocess.run(["sh", "-c", f"echo 0 >{group.paths[0]}"], check=False).returncode
        group.remove()
        found.discard()
        return [found.enforced(), code]

    assert as_nobody(unit("cpu"), body) == [{"cpus": "cgroup-v2", "mem": "rlimit"}, 0]


def test_what_was_not_delegated_is_not_claimed(unit: Callable[[str], Path]) -> None:
    """Where systemd hands down memory only, CPU is said to be not enforced and threads get no group."""

    def body() -> object:
        found = open_cgroups("user")
        group = found.task_group(KEY, Limits(cpus_milli=500, memory_bytes=64 << 20))
        assert group is not None
        limit = (Path(group.paths[0]).parent / "memory.max").read_text()
        thread = found.thread_group(KEY, Limits(cpus_milli=500))
        group.remove()
        found.discard()
        return [found.enforced(), limit, thread]

    told = [{"cpus": "none", "mem": "cgroup-v2"}, "67108864\n", None]
    assert as_nobody(unit("memory"), body) == told


def test_a_thread_joins_by_itself_from_a_host(cgroups: Cgroups) -> None:
    """A thread of a process in `host_paths` joins by writing 0; one of another process is refused in one line."""
    group = cgroups.thread_group(KEY, Limits(cpus_milli=300))
    assert group is not None
    with pytest.raises(Unavailable, match="Operation not supported"):
        group.join_thread(threading.get_native_id())
    command = [sys.executable, "-c", JOIN_AND_TELL, *cgroups.host_paths, *group.paths]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert told.strip() == f"0::{Path(group.paths[0]).parent.relative_to(ROOT.parent).as_posix()[len('cgroup') :]}"

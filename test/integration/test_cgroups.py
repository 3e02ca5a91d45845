"""Promises of task and thread groups, on whatever cgroups this machine has: v1 or v2 (`make test-edgebox` runs v2)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from edgerm.core.errors import Conflict, Unavailable
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.plugin.executor import Limits
from edgerm_agent.cgroups import Cgroups, TaskGroup, open_cgroups
from edgerm_agent.cgroups.formats import parse_keyed

MIB = 1 << 20
FREE = Limits()
JOIN = 'for file in $PATHS; do echo 0 >"$file"; done; exec "$@"'  # as the keeper does it before it execs
HOP = "import os\nprint('up', flush=True)\nwhile True:\n    if os.fork():\n        os._exit(0)"
BURN = "import time\nwhile time.process_time() < {seconds}: pass"
HOG = "held = bytearray(300 << 20)"
TREE = "for i in 1 2 3; do sh -c 'echo up; sh -c \"echo up; exec sleep 1000\"; echo end' & done; wait"
HOST = """
import sys, threading, time
for path in sys.argv[1:]:
    open(path, "w").write("0")
def work():
    print(threading.get_native_id(), flush=True)
    sys.stdin.readline()
    start = time.thread_time()
    while time.thread_time() - start < 0.3:
        pass
    print("burnt", flush=True)
    sys.stdin.readline()
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def key(task: str) -> TaskKey:
    return TaskKey(FrameworkId("f-1"), TaskId(task), LaunchId("l-1"))


class Box:
    """The agent's side of a test: its groups, and children that end with the test."""

    def __init__(self, cgroups: Cgroups, stack: ExitStack) -> None:
        self.cgroups = cgroups
        self._stack = stack

    def group(self, task: str = "t", limits: Limits = FREE) -> TaskGroup:
        group = self.cgroups.task_group(key(task), limits)
        assert group is not None
        return group

    def start(self, paths: tuple[str, ...], *command: str) -> subprocess.Popen[str]:
        child = self._stack.enter_context(
            subprocess.Popen(
                ["sh", "-c", JOIN, "sh", *command],
                env={**os.environ, "PATHS": " ".join(paths)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        self._stack.callback(child.kill)
        return child

    def python(self, group: TaskGroup, code: str) -> subprocess.Popen[str]:
        return self.start(group.paths, sys.executable, "-c", code)


@pytest.fixture
def box() -> Iterator[Box]:
    cgroups = open_cgroups(f"test-{uuid4().hex[:8]}")
    if cgroups.version == "none":
        pytest.skip("this user can make no cgroup here: run as root, or in a delegated systemd unit")
    with ExitStack() as stack:
        stack.callback(cgroups.discard)

        def clean() -> None:
            for group in cgroups.orphans([]):
                assert group.kill()
                group.remove()
            for threads in cgroups.orphan_threads([]):
                threads.remove()

        stack.callback(clean)
        yield Box(cgroups, stack)


def up(child: subprocess.Popen[str], lines: int) -> None:
    assert child.stdout is not None
    assert [child.stdout.readline() for _ in range(lines)] == ["up\n"] * lines


def folder(path: str) -> Path:
    return Path(path).parent


def memory_limit(group: TaskGroup) -> int:
    files = [folder(path) / name for path in group.paths for name in ("memory.limit_in_bytes", "memory.max")]
    return next(int(file.read_text()) for file in files if file.exists())


def throttled(paths: tuple[str, ...]) -> int:
    return parse_keyed((folder(paths[0]) / "cpu.stat").read_text())["nr_throttled"]


def test_what_is_enforced_is_said(box: Box) -> None:
    """With groups for CPU and memory, both are named with their version."""
    ours = f"cgroup-{box.cgroups.version}"
    assert box.cgroups.enforced() == {"cpus": ours, "mem": ours}


def test_a_tree_of_processes_dies_whole(box: Box) -> None:
    """After kill no process is left that could hold the output open, and none ran on because its child had died."""
    group = box.group()
    child = box.start(group.paths, "sh", "-c", TREE)
    up(child, 6)
    assert len(group.pids()) == 7
    assert group.kill()
    assert child.stdout is not None and child.stdout.read() == ""
    assert group.pids() == set()
    assert child.wait() == -9


def test_a_task_that_forks_away_is_caught(box: Box) -> None:
    """A process that forks and exits without end cannot escape kill."""
    group = box.group()
    child = box.python(group, HOP)
    up(child, 1)
    assert group.kill()
    assert child.stdout is not None and child.stdout.read() == ""
    assert group.pids() == set()


def test_a_group_left_frozen_by_a_dead_agent_dies(box: Box) -> None:
    """Where an agent died in the middle of a kill, the next one's kill ends the task."""
    group = box.group()
    child = box.start(group.paths, "sh", "-c", "echo up; exec sleep 1000")
    up(child, 1)
    group._freeze()
    assert group.kill()
    assert child.wait() == -9


def test_kill_of_an_empty_and_of_a_removed_group(box: Box) -> None:
    """Kill and remove may be repeated, and a group that is gone counts as empty."""
    group = box.group()
    for _ in range(2):
        assert group.kill()
        group.remove()
    assert not group.exists()
    assert group.usage() is None
    assert group.oom_kills() == 0


def test_a_memory_hog_is_killed_and_counted(box: Box) -> None:
    """A task above its memory limit dies of SIGKILL and the group tells that it was the limit."""
    group = box.group(limits=Limits(memory_bytes=64 * MIB))
    assert memory_limit(group) == 64 * MIB
    assert box.python(group, "pass").wait() == 0
    assert group.oom_kills() == 0
    assert box.python(group, HOG).wait() == -9
    assert group.oom_kills() >= 1


def test_a_neighbour_of_a_memory_hog_lives(box: Box) -> None:
    """The limit of one task kills nothing in another."""
    neighbour = box.start(box.group("neighbour").paths, "sh", "-c", "echo up; read word; echo $word")
    up(neighbour, 1)
    assert box.python(box.group("hog", Limits(memory_bytes=64 * MIB)), HOG).wait() == -9
    assert neighbour.communicate("right\n")[0] == "right\n"


def test_a_cpu_limit_throttles_and_use_is_counted(box: Box) -> None:
    """A busy task is throttled at its quota, and its CPU time and memory are told."""
    group = box.group(limits=Limits(cpus_milli=500))
    assert box.python(group, BURN.format(seconds=0.4)).wait() == 0
    assert throttled(group.paths) > 0
    usage = group.usage()
    assert usage is not None
    assert usage.cpu_s >= 0.35
    assert usage.memory_bytes >= 0


def test_limits_may_change(box: Box) -> None:
    """The same task's group may be asked for again with a lower and a higher limit."""
    for mib in (64, 32, 128):
        assert memory_limit(box.group(limits=Limits(cpus_milli=5 * mib, memory_bytes=mib * MIB))) == mib * MIB
    assert len(box.cgroups.orphans([])) == 1


def test_a_group_that_was_killed_can_be_used_again(box: Box) -> None:
    """Nothing that kill did to stop forks stays once the group is asked for again."""
    assert box.group().kill()
    assert box.start(box.group().paths, "sh", "-c", "(exit 3); exit $?").wait() == 3


def test_a_group_with_processes_is_not_removed(box: Box) -> None:
    """Removing a group that still runs something is refused, and names the process."""
    group = box.group()
    child = box.start(group.paths, "sh", "-c", "echo up; exec sleep 1000")
    up(child, 1)
    with pytest.raises(Conflict, match=rf"\({child.pid}\)"):
        group.remove()
    assert child.poll() is None


def test_groups_made_inside_a_task_go_too(box: Box) -> None:
    """A task that runs as root and makes groups of its own is killed and removed with them."""
    group = box.group()
    inner = [folder(path) / "inner" for path in group.paths]
    for path in inner:
        path.mkdir()
    child = box.start(tuple(f"{path}/cgroup.procs" for path in inner), "sh", "-c", "echo up; exec sleep 1000")
    up(child, 1)
    assert group.pids() == {child.pid}
    assert group.kill()
    assert child.wait() == -9
    group.remove()
    assert not group.exists()


def test_orphans_are_groups_of_unknown_tasks(box: Box) -> None:
    """An agent finds the groups whose tasks it does not know, and not those of another agent."""
    known, unknown = box.group("known"), box.group("unknown, long: " + "ü" * 100)
    again = open_cgroups("another-agent")
    try:
        assert [group.name for group in box.cgroups.orphans([key("known")])] == [unknown.name]
        assert again.orphans([]) == []
    finally:
        again.discard()
    found = box.cgroups.find(key("known"))
    assert found is not None and found.paths == known.paths
    assert box.cgroups.find(key("never")) is None


def test_a_thread_has_a_cpu_limit_of_its_own(box: Box) -> None:
    """A thread of a host is throttled by its group, and runs on when the group is removed."""
    group = box.cgroups.thread_group(key("t"), Limits(cpus_milli=300))
    assert group is not None
    host = box.start((), sys.executable, "-c", HOST, *box.cgroups.host_paths)
    assert host.stdin is not None and host.stdout is not None
    group.join_thread(int(host.stdout.readline()))
    host.stdin.write("go\n")
    host.stdin.flush()
    assert host.stdout.readline() == "burnt\n"
    assert throttled(group.paths) > 0
    assert (group.cpu_s() or 0) >= 0.25
    assert [stray.name for stray in box.cgroups.orphan_threads([])] == [group.name]
    group.remove()
    assert not group.exists()
    assert host.communicate("end\n")[0] == ""
    assert host.returncode == 0


def test_a_thread_that_ended_cannot_join(box: Box) -> None:
    """Joining with the id of a thread that is gone is refused in one line."""
    group = box.cgroups.thread_group(key("t"), Limits(cpus_milli=300))
    ended = box.start((), "true")
    ended.wait()
    assert group is not None
    with pytest.raises(Unavailable, match=f"thread {ended.pid} cannot join"):
        group.join_thread(ended.pid)


def test_without_rights_nothing_is_made(box: Box) -> None:
    """A user who may not make groups gets version none, no group and no exception."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            found = open_cgroups("nobody")
            code = 0 if (found.version, found.task_group(key("t"), Limits(cpus_milli=1))) == ("none", None) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

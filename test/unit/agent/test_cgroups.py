"""Promises of the cgroup numbers and parsers, and of how v1 and v2 are found, on small fixture trees.

What the real kernel does is in test/integration/test_cgroups.py and, for v2, test/edgebox/.
"""

from __future__ import annotations

import errno
import shutil
from fractions import Fraction
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.errors import Invalid, Unavailable
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.plugin.executor import Limits
from edgerm_agent.cgroups import Cgroups, open_cgroups
from edgerm_agent.cgroups.formats import (
    Mount,
    cpu_quota,
    cpu_shares,
    cpu_weight,
    parse_keyed,
    parse_mounts,
    parse_number,
    parse_own_path,
    parse_pids,
    v1_settings,
    v2_bases,
    v2_settings,
)
from edgerm_agent.cgroups.groups import Files, group_name

NAMES = st.text(st.characters(categories=["Ll", "Lu"], include_characters="_."), min_size=1, max_size=20)
TEXTS = st.text(max_size=300) | st.lists(st.sampled_from(["0::/", "a b", "1", " - cgroup ", "\n", "\\040"])).map(
    "".join
)

MOUNTINFO = """\
23 1 0:20 / / rw,relatime - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 /docker/7f /sys/fs/cgroup/my\\040memory ro,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""


def key(task: str = "t", framework: str = "f-1", launch: str = "l-1") -> TaskKey:
    return TaskKey(FrameworkId(framework), TaskId(task), LaunchId(launch))


# ---- numbers


@given(st.integers(1, 10_000_000))
def test_a_quota_is_exactly_the_share(cpus_milli: int) -> None:
    """Quota and period are what the kernel takes, and their quotient is the limit to the thousandth."""
    quota_us, period_us = cpu_quota(cpus_milli)
    assert Fraction(quota_us, period_us) == Fraction(cpus_milli, 1000)
    assert quota_us >= 1_000
    assert 1_000 <= period_us <= 1_000_000


@given(st.integers(1, 10_000_000), st.integers(0, 1000))
def test_weights_grow_with_the_share_within_the_kernels_range(cpus_milli: int, more: int) -> None:
    """A task with more CPU never weighs less, and no weight is one that the kernel refuses."""
    assert 2 <= cpu_shares(cpus_milli) <= cpu_shares(cpus_milli + more) <= 262_144
    assert 1 <= cpu_weight(cpus_milli) <= cpu_weight(cpus_milli + more) <= 10_000


def test_one_cpu_weighs_as_much_as_the_kernels_default() -> None:
    """A task with one CPU has the weight of a group that nobody configured."""
    assert (cpu_shares(1000), cpu_weight(1000)) == (1024, 100)


@pytest.mark.parametrize("limits", [Limits(cpus_milli=0), Limits(cpus_milli=-5), Limits(memory_bytes=0)])
def test_a_limit_below_its_unit_is_refused(limits: Limits) -> None:
    """No CPU or no memory at all is an error, never an unlimited task."""
    with pytest.raises(Invalid, match="too small"):
        v1_settings(limits)
    with pytest.raises(Invalid, match="too small"):
        v2_settings(limits)


def test_no_limit_still_bounds_processes() -> None:
    """A task without limits may not fill the box with processes, and a group left frozen by a crash runs again."""
    assert [(s.file, s.value) for s in v1_settings(Limits())] == [("pids.max", "4096"), ("freezer.state", "THAWED")]
    assert [(s.file, s.value) for s in v2_settings(Limits())] == [("pids.max", "4096"), ("cgroup.freeze", "0")]


def test_v1_lifts_memory_and_swap_before_it_lowers_memory() -> None:
    """The order of writes is one that the kernel takes for a higher and for a lower limit."""
    files = [(s.file.removeprefix("memory."), s.value) for s in v1_settings(Limits(memory_bytes=7))[2:]]
    assert files == [("memsw.limit_in_bytes", "-1"), ("limit_in_bytes", "7"), ("memsw.limit_in_bytes", "7")]


# ---- parsers


@given(st.dictionaries(NAMES, st.integers(0, 2**64 - 1), max_size=20))
def test_keyed_files_round_trip(values: dict[str, int]) -> None:
    """Every name and number of a flat keyed file is found."""
    assert parse_keyed("".join(f"{name} {value}\n" for name, value in values.items())) == values


def test_real_keyed_files() -> None:
    """memory.oom_control of v1 and memory.events of v2 are read as the kernel writes them."""
    assert parse_keyed("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")["oom_kill"] == 3
    assert parse_keyed("low 0\nhigh 0\nmax 12\noom 1\noom_kill 2\noom_group_kill 1\n")["oom_kill"] == 2


@given(st.lists(st.integers(0, 4_194_304)))
def test_pids_are_a_set_without_zero(pids: list[int]) -> None:
    """Repeated ids count once, and a process of another PID namespace (0) is never signalled."""
    assert parse_pids("".join(f"{pid}\n" for pid in pids)) == set(pids) - {0}


@given(st.integers(0, 2**64 - 1))
def test_a_number_is_read(number: int) -> None:
    """A file with one number gives it; "max" and nothing give None."""
    assert parse_number(f"{number}\n") == number
    assert parse_number("max\n") is parse_number("") is None


@given(TEXTS)
def test_no_parser_trips_over_strange_text(text: str) -> None:
    """Whatever stands in a file, parsers answer and do not raise."""
    assert all(value >= 0 for value in parse_keyed(text).values())
    assert 0 not in parse_pids(text)
    assert (parse_number(text) or 0) >= 0
    assert (parse_own_path(text) or "/").startswith("/")
    assert all(mount.unified or "rw" not in mount.controllers for mount in parse_mounts(text))


def test_mounts_are_read_with_their_controllers() -> None:
    """mountinfo gives each hierarchy's place, root and controllers, with escapes undone and others left out."""
    base = "/sys/fs/cgroup"
    assert parse_mounts(MOUNTINFO) == [
        Mount(f"{base}/cpu,cpuacct", "/", False, frozenset({"cpu", "cpuacct"})),
        Mount(f"{base}/my memory", "/docker/7f", False, frozenset({"memory"})),
        Mount(f"{base}/systemd", "/", False, frozenset({"name=systemd"})),
        Mount(f"{base}/unified", "/", True, frozenset()),
    ]


def test_own_path_is_that_of_v2() -> None:
    """In a hybrid list the line of hierarchy 0 counts; without one there is no v2."""
    assert parse_own_path("4:memory:/a\n0::/user.slice/b:c\n") == "/user.slice/b:c"
    assert parse_own_path("4:memory:/a\n") is None


@pytest.mark.parametrize(
    ("root", "own", "bases"),
    [
        ("/", "/", ["/c"]),
        ("/", "/a/b", ["/c", "/c/a", "/c/a/b"]),
        ("/docker/7f", "/docker/7f/x", ["/c", "/c/x"]),
        ("/docker/7f", "/other", ["/c"]),
        ("/", "/../../x", ["/c"]),
    ],
)
def test_bases_lead_from_the_mount_to_the_own_group(root: str, own: str, bases: list[str]) -> None:
    """Candidates are the process's ancestors that this mount shows, the highest first."""
    assert v2_bases(Mount("/c", root, True, frozenset()), own) == [PurePosixPath(base) for base in bases]


@given(st.tuples(*[st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)] * 3))
def test_a_groups_name_is_one_component_and_no_kernel_file(parts: tuple[str, str, str]) -> None:
    """Whatever the ids are, the folder's name is short, plain, and not one that the kernel uses."""
    name = group_name(key(parts[1], parts[0], parts[2]))
    assert len(name.encode()) <= 255
    assert "/" not in name and ("%" in name or name.startswith("+"))


# ---- finding what this user can make


class Tree(Files):
    """A folder as a cgroup file system: made groups get the kernel's files, `refused` ones cannot be written."""

    def __init__(self, refused: str = "") -> None:
        self.refused = refused
        self.moved: list[str] = []

    def make(self, folder: Path) -> None:
        if folder.exists():
            return
        self.make(folder.parent)
        folder.mkdir()
        handed_down = self.read(folder.parent / "cgroup.subtree_control")
        if handed_down is not None:
            populate(folder, handed_down)

    def write(self, path: Path, text: str) -> None:
        if self.refused and self.refused in f"{path} {text}":
            raise OSError(errno.EINVAL, "Invalid argument", str(path))
        if path.name == "cgroup.subtree_control":
            text = f"{path.read_text()} {text[1:]}".strip()
            for child in self.below(path.parent):
                (child / "cgroup.controllers").write_text(text)
        if path.name == "cgroup.procs":
            self.moved.append(text)
        path.write_text(text)

    def remove(self, folder: Path) -> None:
        if any(path.is_dir() for path in folder.iterdir()):
            raise OSError(errno.EBUSY, "Device or resource busy", str(folder))
        shutil.rmtree(folder)


def populate(folder: Path, controllers: str, procs: str = "", true_root: bool = False) -> None:
    """The files of a v2 group."""
    (folder / "cgroup.controllers").write_text(controllers)
    (folder / "cgroup.subtree_control").write_text("")
    (folder / "cgroup.procs").write_text(procs)
    if not true_root:
        (folder / "cgroup.type").write_text("domain")


def box(tmp_path: Path, mounts: dict[str, str], own: str = "/") -> Path:
    """A /proc with these mounts: {folder: v1 controllers, or "cgroup2"}."""
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    lines = []
    for name, controllers in mounts.items():
        kind = "cgroup2 cgroup2 rw" if controllers == "cgroup2" else f"cgroup cgroup rw,{controllers}"
        lines.append(f"31 23 0:28 / {tmp_path / name} rw,relatime - {kind}\n")
        (tmp_path / name).mkdir()
    (proc / "self/mountinfo").write_text("".join(lines))
    (proc / "self/cgroup").write_text(f"1:cpu:/\n0::{own}\n")
    return proc


def settings(cgroups: Cgroups, limits: Limits) -> dict[str, str]:
    group = cgroups.task_group(key(), limits)
    assert group is not None
    folders = [Path(path).parent for path in group.paths]
    return {path.name: path.read_text() for folder in folders for path in folder.iterdir() if path.is_file()}


def test_a_box_without_cgroups_has_none(tmp_path: Path) -> None:
    """Without a mounted hierarchy nothing is enforced but memory by rlimit, and every question has an answer."""
    found = open_cgroups("a", proc=box(tmp_path, {}))
    assert (found.version, found.enforced()) == ("none", {"cpus": "none", "mem": "rlimit"})
    assert found.task_group(key(), Limits(cpus_milli=1)) is None
    assert found.thread_group(key(), Limits(cpus_milli=1)) is None
    assert found.find(key()) is None
    assert found.orphans([]) == []
    assert found.orphan_threads([]) == []
    assert found.host_paths == ()
    found.discard()


def test_an_unreadable_proc_means_none(tmp_path: Path) -> None:
    """Where /proc is not mounted the agent runs without groups."""
    assert open_cgroups("a", proc=tmp_path / "no").version == "none"


def test_v1_hierarchies_count_each_for_itself(tmp_path: Path) -> None:
    """Where only the memory hierarchy is there, memory is enforced and CPU is not."""
    found = open_cgroups("a", proc=box(tmp_path, {"memory": "memory", "blkio": "blkio"}), files=Tree())
    assert found.enforced() == {"cpus": "none", "mem": "cgroup-v1"}
    assert settings(found, Limits(cpus_milli=100, memory_bytes=7)) == {"memory.limit_in_bytes": "7"}
    assert not (tmp_path / "blkio/edgerm").exists()


def test_v1_hierarchies_that_are_mounted_together_are_one_folder(tmp_path: Path) -> None:
    """A child joins cpu and cpuacct by one file where they are one hierarchy."""
    found = open_cgroups("a/b", proc=box(tmp_path, {"cpu": "cpu,cpuacct"}), files=Tree())
    group = found.task_group(key(), Limits(cpus_milli=1500))
    assert group is not None
    assert group.paths == (f"{tmp_path}/cpu/edgerm/a%2Fb/processes/f-1%2Ft%2Fl-1/cgroup.procs",)
    assert settings(found, Limits(cpus_milli=1500)) == {
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "150000",
        "cpu.shares": "1536",
    }


def test_v2_is_preferred_where_it_has_controllers(tmp_path: Path) -> None:
    """On a v2 box limits are written to one folder per task below the root, and swap is left out where it is off."""
    proc = box(tmp_path, {"unified": "cgroup2", "cpu": "cpu"})
    populate(tmp_path / "unified", "cpuset cpu memory pids", "1", true_root=True)
    files = Tree()
    found = open_cgroups("a", proc=proc, files=files)
    assert found.enforced() == {"cpus": "cgroup-v2", "mem": "cgroup-v2"}
    told = settings(found, Limits(cpus_milli=250, memory_bytes=7))
    assert (told["cpu.max"], told["cpu.weight"], told["memory.max"]) == ("25000 100000", "25", "7")
    assert "memory.swap.max" not in told
    assert files.moved == []


def test_a_hybrid_box_whose_v2_has_no_controllers_is_v1(tmp_path: Path) -> None:
    """A v2 mount beside v1 without cpu and memory is left alone."""
    proc = box(tmp_path, {"unified": "cgroup2", "cpu": "cpu", "memory": "memory"})
    populate(tmp_path / "unified", "hugetlb", true_root=True)
    assert open_cgroups("a", proc=proc, files=Tree()).version == "v1"
    assert not (tmp_path / "unified/edgerm").exists()


def test_processes_of_a_delegated_unit_move_aside(tmp_path: Path) -> None:
    """In the agent's own unit all processes go to a leaf before controllers are handed down."""
    proc = box(tmp_path, {"unified": "cgroup2"}, own="/unit")
    populate(tmp_path / "unified", "", true_root=True)
    (tmp_path / "unified/unit").mkdir()
    populate(tmp_path / "unified/unit", "cpu memory pids", "11\n12\n")
    files = Tree()
    found = open_cgroups("a", proc=proc, files=files)
    assert found.enforced() == {"cpus": "cgroup-v2", "mem": "cgroup-v2"}
    assert sorted(files.moved) == ["11", "12"]
    assert (tmp_path / "unified/unit/edgerm-self/cgroup.procs").exists()


def test_a_controller_that_the_kernel_refuses_costs_no_other(tmp_path: Path) -> None:
    """Where `+cpu` fails, as it does beside real-time tasks, memory is still enforced."""
    proc = box(tmp_path, {"unified": "cgroup2"})
    populate(tmp_path / "unified", "cpu memory pids", true_root=True)
    found = open_cgroups("a", proc=proc, files=Tree(refused="+cpu"))
    assert found.enforced() == {"cpus": "none", "mem": "cgroup-v2"}
    assert found.thread_group(key(), Limits(cpus_milli=100)) is None


def test_a_v2_that_hands_nothing_down_falls_back(tmp_path: Path) -> None:
    """If neither CPU nor memory can be enabled in v2, its folders are removed and v1 is tried."""
    proc = box(tmp_path, {"unified": "cgroup2", "memory": "memory"})
    populate(tmp_path / "unified", "cpu memory", true_root=True)
    assert open_cgroups("a", proc=proc, files=Tree(refused="unified/cgroup.subtree_control")).version == "v1"
    assert not (tmp_path / "unified/edgerm").exists()


def test_a_refused_limit_leaves_no_group(tmp_path: Path) -> None:
    """If the kernel refuses one value, the error names the file and no half-limited group stays behind."""
    proc = box(tmp_path, {"cpu": "cpu", "memory": "memory"})
    found = open_cgroups("a", proc=proc, files=Tree(refused="memory.limit_in_bytes"))
    with pytest.raises(Unavailable, match=r"memory\.limit_in_bytes: Invalid argument"):
        found.task_group(key(), Limits(cpus_milli=100, memory_bytes=7))
    assert found.find(key()) is None
    assert found.orphans([]) == []


def test_discard_leaves_what_is_not_empty(tmp_path: Path) -> None:
    """An agent removes its own empty folders, and `edgerm` only when no other agent is below it."""
    proc = box(tmp_path, {"cpu": "cpu"})
    first, second = (open_cgroups(scope, proc=proc, files=Tree()) for scope in ("a", "b"))
    group = first.task_group(key(), Limits(cpus_milli=100))
    assert group is not None
    first.discard()
    second.discard()
    assert group.exists()
    assert not (tmp_path / "cpu/edgerm/b").exists()
    group.remove()
    first.discard()
    assert not (tmp_path / "cpu/edgerm").exists()

"""A container's use, from files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

from edgerm_agent.cgroups import containers


def write(folder: Path, **files: str) -> None:
    """Files with a dot for each double underscore."""
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_the_unified_hierarchy(tmp_path: Path) -> None:
    """CPU time, and memory without cache, of a group below system.slice."""
    group = tmp_path / "system.slice/docker-abc.scope"
    write(
        group,
        cpu__stat="usage_usec 1500000\nuser_usec 1\n",
        memory__current="1000\n",
        memory__stat="anon 1\ninactive_file 400\n",
    )
    assert containers.find_group("abc", tmp_path) == group
    usage = containers.read_group(group, tmp_path)
    assert usage is not None
    assert (usage.cpu_s, usage.memory_bytes) == (1.5, 600)


def test_the_older_hierarchies(tmp_path: Path) -> None:
    """CPU time and memory lie in two groups of the same name."""
    write(tmp_path / "cpuacct/docker/abc", cpuacct__usage="2500000000\n")
    write(
        tmp_path / "memory/docker/abc", memory__usage_in_bytes="1000\n", memory__stat="cache 9\ntotal_inactive_file 1\n"
    )
    group = containers.find_group("abc", tmp_path)
    assert group == tmp_path / "cpuacct/docker/abc"
    usage = containers.read_group(group, tmp_path)
    assert usage is not None
    assert (usage.cpu_s, usage.memory_bytes) == (2.5, 999)


def test_what_is_not_there(tmp_path: Path) -> None:
    """No group, or one that is just going, is no measure."""
    assert containers.find_group("abc", tmp_path) is None
    write(tmp_path / "cpuacct/docker/abc", cpuacct__usage="1")
    assert containers.read_group(tmp_path / "cpuacct/docker/abc", tmp_path) is None

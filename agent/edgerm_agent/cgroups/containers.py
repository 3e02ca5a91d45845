"""What a container uses, read from its cgroup: the engine takes a second for each answer. Blocks, for microseconds."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from edgerm.plugin.executor import Usage

ROOT = Path("/sys/fs/cgroup")
# cgroupfs driver: /docker/ID, or any other parent; systemd driver: /system.slice/docker-ID.scope
NAMES = ("*/{}", "*/docker-{}.scope")


def find_group(container_id: str, root: Path = ROOT) -> Path | None:
    """The container's group in the unified hierarchy, or that of its CPU time in the older one; None: not found."""
    for name in NAMES:
        for base in (root, root / "cpuacct", root / "cpu,cpuacct"):
            for path in base.glob(name.format(container_id)):
                if (path / "cpu.stat").exists() or (path / "cpuacct.usage").exists():
                    return path
    return None


def read_group(group: Path, root: Path = ROOT) -> Usage | None:
    """CPU time, and memory without the page cache that the kernel would give back first, as `docker stats` counts."""
    with suppress(OSError, ValueError, LookupError):
        if (group / "memory.current").exists():
            cpu_s = _table(group / "cpu.stat")["usage_usec"] / 1e6
            used, cache = _number(group / "memory.current"), _table(group / "memory.stat")["inactive_file"]
        else:
            cpu_s = _number(group / "cpuacct.usage") / 1e9
            memory = root / "memory" / group.relative_to(root).relative_to(group.relative_to(root).parts[0])
            used, cache = (
                _number(memory / "memory.usage_in_bytes"),
                _table(memory / "memory.stat")["total_inactive_file"],
            )
        return Usage(cpu_s, max(used - cache, 0))
    return None


def _number(path: Path) -> int:
    return int(path.read_text())


def _table(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in path.read_text().splitlines())
    return {name: int(value) for name, value in pairs}

"""What comes from Debian: packages, fetched with `apt-get download` and unpacked in the cache. Nothing is installed.

Each folder of the cache is a layer: the guest sees it over the host's files (`vm.boot`).
"""

from __future__ import annotations

import fcntl
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

# Metapackages of the kernel by flavour, the first that apt knows.
KERNELS = {
    "amd64": ("linux-image-6.12-amd64", "linux-image-amd64"),
    "rt-amd64": ("linux-image-6.12-rt-amd64", "linux-image-rt-amd64"),
}
# Ours even where the host has them: QEMU, the shell of the boot, what loads the guest's modules, and ethtool.
TOOLS = ("qemu-system-x86", "busybox-static", "kmod", "ethtool")
UNPACK = 'dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink -C "$2"'


class Missing(Exception):
    """This machine lacks something that the runner needs; one line."""


def output_of(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-500:]
        hint = "; try apt-get update first" if command[0] == "apt-get" else ""
        raise Missing(f"{shlex.join(command)} exited {done.returncode}: {said}{hint}")
    return done.stdout


def cached(cache: Path, name: str, make: Callable[[Path], None]) -> Path:
    """`cache`/`name`, made once: beside its place, renamed when complete, by one process at a time."""
    final = cache / name
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not final.exists():
            part = cache / f".{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            make(part)
            part.rename(final)
    return final


def download(packages: Iterable[str], folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    output_of("apt-get", "-q", "download", *packages, cwd=folder)
    return sorted(folder.glob("*.deb"))


def unpack(packages: Iterable[str], folder: Path) -> None:
    """The packages' files in `folder`, where `/bin` and the like are links into `/usr` as on every Debian."""
    for name in ("bin", "sbin", "lib", "lib64"):
        (folder / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            (folder / name).symlink_to(f"usr/{name}")
    debs = folder / "debs"
    for deb in download(packages, debs):
        output_of("bash", "-o", "pipefail", "-c", UNPACK, "unpack", str(deb), str(folder))
    shutil.rmtree(debs)


def lacking(*packages: str, reinstall: bool = False) -> list[str]:
    """What apt would install here for the packages: they (with `reinstall` in any case) and what they need."""
    flags = ["--no-install-recommends", *(["--reinstall"] if reinstall else [])]
    plan = output_of("apt-get", "-s", "-q", *flags, "install", *packages)
    return re.findall(r"^Inst (\S+)", plan, re.MULTILINE)


def tools(cache: Path) -> Path:
    """QEMU, busybox, kmod, ethtool and the libraries that this machine lacks for them."""
    return cached(cache, "tools-2", lambda folder: unpack(lacking(*TOOLS, reinstall=True), folder))


def package_layer(cache: Path, package: str) -> Path | None:
    """The package with what it needs; None where this machine has it all."""
    names = lacking(package)
    return cached(cache, f"with-{package}", lambda folder: unpack(names, folder)) if names else None


def kernel(cache: Path, flavour: str) -> Path:
    """Debian's kernel with its modules and their index."""

    def make(folder: Path) -> None:
        for meta in KERNELS[flavour]:
            known = subprocess.run(["apt-cache", "depends", meta], capture_output=True, text=True, check=False).stdout
            if found := re.search(r"Depends: (linux-image-\d\S+)", known):
                unpack([found[1]], folder)
                return depmod(tool_folder, folder)
        raise Missing(f"apt knows none of {', '.join(KERNELS[flavour])}: run apt-get update")

    tool_folder = tools(cache)
    return cached(cache, f"kernel-{flavour}", make)


def release_of(kernel_folder: Path) -> str:
    """What `uname -r` says in the guest."""
    return next((kernel_folder / "lib/modules").iterdir()).name


def depmod(tool_folder: Path, kernel_folder: Path) -> None:
    """Index the modules, for modprobe in the guest."""
    argv = ["depmod", "-b", str(kernel_folder), release_of(kernel_folder)]
    env = {"LD_LIBRARY_PATH": library_path(tool_folder), "PATH": "/usr/sbin:/usr/bin"}
    done = subprocess.run(
        argv, executable=tool_folder / "usr/bin/kmod", env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Missing(f"{shlex.join(argv)} exited {done.returncode}: {' '.join(done.stderr.split())[-500:]}")


def library_path(tool_folder: Path) -> str:
    """LD_LIBRARY_PATH for a program of `tools` on this machine."""
    return ":".join(sorted({str(path.parent) for path in tool_folder.glob("usr/lib/x86_64-linux-gnu/**/*.so*")}))

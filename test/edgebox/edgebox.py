#!/usr/bin/env python3
"""Run a command on a throw-away machine: QEMU, Debian's own kernel, cgroup v2.

    edgebox.py [--time-limit S] [--console] -- COMMAND [ARG...]

The guest sees this machine's root filesystem, read-only underneath; what it writes goes to its memory and vanishes.
COMMAND runs as root in the current folder with EDGEBOX=1; its output (both streams as one) and exit status are
returned. Kernel and QEMU come from `apt-get download` into a cache (EDGEBOX_CACHE, else ~/.cache/edgerm-edgebox);
nothing is installed, nothing of this machine is changed. The CPU is emulated: no KVM is needed, and times mean nothing.

Exit status: COMMAND's (128+N for a signal); 2 something is missing here; 124 time limit; 125 the machine failed.
Needs: x86-64 Debian, root, apt-get, dpkg-deb, Python 3.11.
"""

from __future__ import annotations

import argparse
import fcntl
import lzma
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

KERNELS = ("linux-image-6.12-amd64", "linux-image-amd64")  # metapackages, the first that apt knows
BOOT_MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")
PORT_OUTPUT, PORT_STATUS = "output", "status"

# In the initramfs: a small system whose root is an overlay of guest memory over the host's files.
INIT = r"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module || echo "edgebox: insmod $module failed"; done
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=524288,cache=loose root /low || reboot -f
mount -t tmpfs -o size=75% tmpfs /up
mkdir /up/files /up/work
mount -t overlay -o lowerdir=/low,upperdir=/up/files,workdir=/up/work overlay /new || reboot -f
for dir in proc sys dev; do mount --move /$dir /new/$dir; done
mount -t tmpfs -o mode=755 tmpfs /new/run
cp /bin/busybox /job /new/run/
exec switch_root /new /run/busybox sh /run/job
"""

# On the overlay: what the host's own tools expect, then the command. There is no udev and no init system.
JOB = r"""PATH=/usr/sbin:/usr/bin:/sbin:/bin
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
ln -sf /proc/self/fd /dev/fd
mount -t cgroup2 cgroup2 /sys/fs/cgroup
/run/busybox ip link set lo up
/run/busybox hostname edgebox
for port in /sys/class/virtio-ports/*; do read -r name <$port/name; ln -s /dev/${port##*/} /run/$name; done
cd CWD 2>/run/output && env -i ENVIRONMENT /run/busybox setsid COMMAND </dev/null >/run/output 2>&1
echo $? >/run/status
/run/busybox reboot -f
"""


class Missing(Exception):
    """This machine lacks something that the runner needs; one line."""


class Failed(Exception):
    """The machine did not come up, or ended before the command did."""


def output_of(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-500:]
        hint = "; try apt-get update first" if command[0] == "apt-get" else ""
        raise Missing(f"{shlex.join(command)} exited {done.returncode}: {said}{hint}")
    return done.stdout


# ---- what comes from Debian, kept in the cache


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


def unpack(packages: list[str], folder: Path) -> None:
    output_of("apt-get", "-q", "download", *packages, cwd=folder)
    for deb in sorted(folder.glob("*.deb")):
        output_of("dpkg-deb", "-x", str(deb), str(folder))
        deb.unlink()


def make_tools(folder: Path) -> None:
    """QEMU and a static busybox, with the libraries that this machine lacks."""
    wanted = ("qemu-system-x86", "busybox-static")
    plan = output_of("apt-get", "-s", "-q", "--no-install-recommends", "--reinstall", "install", *wanted)
    unpack(re.findall(r"^Inst (\S+)", plan, re.MULTILINE), folder)


def make_kernel(folder: Path) -> None:
    for meta in KERNELS:
        known = subprocess.run(["apt-cache", "depends", meta], capture_output=True, text=True, check=False).stdout
        if found := re.search(r"Depends: (linux-image-\d\S+)", known):
            return unpack([found[1]], folder)
    raise Missing(f"apt knows none of {', '.join(KERNELS)}: run apt-get update")


# ---- the initramfs


def modules_in_order(kernel: Path) -> Iterator[tuple[str, bytes]]:
    """The boot modules and what they need, each after its needs. A module says itself what it needs."""
    paths = {path.name.split(".ko")[0].replace("-", "_"): path for path in kernel.glob("**/*.ko*")}
    done: set[str] = set()

    def visit(name: str) -> Iterator[tuple[str, bytes]]:
        if name in done or name not in paths:  # a name without file is built into the kernel
            return
        done.add(name)
        data = paths[name].read_bytes()
        data = lzma.decompress(data) if paths[name].suffix == ".xz" else data
        needs = re.search(rb"\0depends=([^\0]*)\0", data)
        for need in needs[1].decode().split(",") if needs else ():
            yield from visit(need)
        yield f"{name}.ko", data

    for module in BOOT_MODULES:
        yield from visit(module)


def cpio(entries: list[tuple[str, int, bytes]]) -> bytes:
    """An archive in the "newc" format (kernel: early-userspace/buffer-format) of (path, mode, content)."""
    out = bytearray()
    for number, (path, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        name = path.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
        for part in (b"070701" + b"".join(b"%08X" % field for field in fields) + name, data):
            out += part
            out += b"\0" * (-len(out) % 4)
    return bytes(out)


def initramfs(tools: Path, kernel: Path, command: list[str]) -> bytes:
    environment = {"EDGEBOX": "1", "HOME": "/root", "LANG": "C.UTF-8", "PATH": os.environ["PATH"], "TERM": "dumb"}
    job = JOB.replace("CWD", shlex.quote(str(Path.cwd())), 1).replace("COMMAND", shlex.join(command), 1)
    job = job.replace("ENVIRONMENT", shlex.join(f"{name}={value}" for name, value in environment.items()), 1)
    busybox = next(path for path in tools.glob("**/bin/busybox"))
    modules = list(modules_in_order(kernel))
    folders = ("bin", "dev", "low", "modules", "new", "proc", "sys", "up")
    return cpio(
        [(folder, 0o40755, b"") for folder in folders]
        + [("bin/busybox", 0o100755, busybox.read_bytes()), ("init", 0o100755, INIT.encode())]
        + [("job", 0o100644, job.encode())]
        + [(f"modules/{name}", 0o100644, data) for name, data in modules]
        + [("modules/order", 0o100644, "".join(f"{name}\n" for name, _ in modules).encode())]
    )


# ---- the machine


def qemu_command(tools: Path, kernel: Path, scratch: Path) -> list[str]:
    words = "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nokaslr random.trust_cpu=on nowatchdog"
    command = [str(tools / "usr/bin/qemu-system-x86_64")]
    for data in ("share/qemu", "share/seabios", "lib/ipxe/qemu"):
        command += ["-L", str(tools / "usr" / data)]
    command += ["-accel", "tcg,thread=multi", "-cpu", "max,la57=off", "-M", "q35", "-smp", "2", "-m", "2048"]
    command += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    command += ["-kernel", str(next(kernel.glob("boot/vmlinuz-*"))), "-initrd", str(scratch / "initrd")]
    command += ["-append", f"{words} rcupdate.rcu_cpu_stall_suppress=1 net.ifnames=0"]
    command += ["-chardev", f"file,id=console,path={scratch / 'console'}", "-serial", "chardev:console"]
    command += ["-device", "virtio-serial-pci", "-chardev", f"stdio,id={PORT_OUTPUT},signal=off"]
    command += ["-chardev", f"file,id={PORT_STATUS},path={scratch / 'status'}"]
    for port in (PORT_OUTPUT, PORT_STATUS):
        command += ["-device", f"virtserialport,chardev={port},name={port}"]
    command += ["-fsdev", "local,id=root,path=/,security_model=none,multidevs=remap,readonly=on"]
    return [*command, "-device", "virtio-9p-pci,fsdev=root,mount_tag=root"]


def run(command: list[str], cache: Path, time_limit_s: float, console: bool) -> int:
    """The command's exit status; its output has gone to our stdout. Raises `Failed`, `subprocess.TimeoutExpired`."""
    tools, kernel = cached(cache, "tools", make_tools), cached(cache, "kernel", make_kernel)
    libraries = sorted({str(path.parent) for path in tools.glob("**/*.so*")})
    with tempfile.TemporaryDirectory(prefix="edgebox.") as folder:
        scratch = Path(folder)
        (scratch / "initrd").write_bytes(initramfs(tools, kernel, command))
        # QEMU's stdin stays open and empty: at its end the guest's port would count as unplugged.
        with subprocess.Popen(
            qemu_command(tools, kernel, scratch),
            env={**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)},
            stdin=subprocess.PIPE,
        ) as qemu:
            try:
                qemu.wait(time_limit_s)
            finally:
                qemu.kill()
                said = (scratch / "console").read_text(errors="replace") if (scratch / "console").exists() else ""
                if console:
                    print(said, file=sys.stderr)
        status = (scratch / "status").read_text().split() if (scratch / "status").exists() else []
        if not status:
            raise Failed(f"the machine ended before the command did\n{said[-3000:]}")
        return int(status[0])


def check_host() -> None:
    if platform.machine() != "x86_64":
        raise Missing(f"this machine is {platform.machine()}, the guest's kernel is for x86_64")
    if os.geteuid() != 0:
        raise Missing("needs root, so that the guest may read all files: run it with sudo")
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Missing(f"needs {tool} to fetch QEMU and a kernel: run it on Debian")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time-limit", type=float, default=300, metavar="S", help="seconds (default %(default)s)")
    parser.add_argument("--console", action="store_true", help="print the kernel's console on stderr at the end")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = Path(os.environ.get("EDGEBOX_CACHE") or home / "edgerm-edgebox").absolute()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that QEMU is ended, too
    try:
        check_host()
        return run(options.command, cache, options.time_limit, options.console)
    except Missing as error:
        print(f"edgebox: {error}", file=sys.stderr)
        return 2
    except subprocess.TimeoutExpired:
        print(f"edgebox: time limit of {options.time_limit:g} s passed", file=sys.stderr)
        return 124
    except Failed as error:
        print(f"edgebox: {error}", file=sys.stderr)
        return 125


if __name__ == "__main__":
    sys.exit(main())

"""What the guest does before the command: an initramfs, two scripts, and kernel modules in the order of their needs."""

from __future__ import annotations

import lzma
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")  # to reach the host's files
SHARE = "trans=virtio,version=9p2000.L,msize=524288"

# In the initramfs: a small system whose root is an overlay of guest memory over the layers over the host's files. The
# layers come by a share of their own, since an overlay takes no two folders of which one lies in the other.
INIT = r"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module || echo "edgebox: insmod $module failed"; done
mount -t 9p -o ro,cache=loose,SHARE root /low || reboot -f
mount -t 9p -o ro,cache=loose,SHARE cache /cache || reboot -f
mount -t tmpfs -o size=75% tmpfs /up
mkdir /up/files /up/work
mount -t overlay -o lowerdir=LAYERS:/low,upperdir=/up/files,workdir=/up/work overlay /new || reboot -f
for dir in proc sys dev; do mount --move /$dir /new/$dir; done
mount -t tmpfs -o mode=755,size=75% tmpfs /new/run
cp /bin/busybox /job /new/run/
exec switch_root /new /run/busybox sh /run/job
"""

# On the overlay: what the host's own tools expect, then the command. There is no udev and no init system.
JOB = r"""PATH=/usr/sbin:/usr/bin:/sbin:/bin
mkdir -p /dev/pts /dev/shm /run/lock
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
for dir in debug:debugfs config:configfs; do mount -t ${dir#*:} ${dir#*:} /sys/kernel/${dir%:*} 2>/dev/null; done
ln -sf /proc/self/fd /dev/fd
mount -t cgroup2 cgroup2 /sys/fs/cgroup
/run/busybox ip link set lo up
/run/busybox hostname edgebox
for port in /sys/class/virtio-ports/*; do read -r name <$port/name; ln -s /dev/${port##*/} /run/$name; done
SHARES
tries=50 # a card's driver may still be looking for it
while set -- /sys/class/net/*/device; [ $# -lt NICS ] && [ $tries -gt 0 ]; do
  /run/busybox sleep 0.1; tries=$((tries - 1)); done
exec 3>/run/status; echo begun >&3
cd CWD 2>/run/output && /usr/bin/env -i ENVIRONMENT /usr/bin/setsid COMMAND </dev/null >/run/output 2>&1 3>&-
echo $? >&3
/run/busybox reboot -f
"""


@dataclass(frozen=True, slots=True)
class Guest:
    """What is to happen in the guest."""

    command: Sequence[str]
    cwd: Path
    environment: Sequence[str]  # NAME=VALUE
    modules: Sequence[str]
    layers: Sequence[str]  # names in the cache, the uppermost first
    writable: Sequence[Path]
    nics: int


def initramfs(busybox: Path, module_folders: Sequence[Path], guest: Guest) -> bytes:
    """The archive to boot from."""
    init = INIT.replace("SHARE", SHARE).replace("LAYERS", ":".join(f"/cache/{name}" for name in guest.layers), 1)
    modules = list(in_order([*MODULES, *guest.modules], module_folders))
    folders = ("bin", "cache", "dev", "low", "modules", "new", "proc", "sys", "up")
    return cpio(
        [(folder, 0o40755, b"") for folder in folders]
        + [("bin/busybox", 0o100755, busybox.read_bytes()), ("init", 0o100755, init.encode())]
        + [("job", 0o100644, job(guest).encode())]
        + [(f"modules/{name}", 0o100644, data) for name, data in modules]
        + [("modules/order", 0o100644, "".join(f"{name}\n" for name, _ in modules).encode())]
    )


def job(guest: Guest) -> str:
    shares = "\n".join(
        f"mount -t 9p -o rw,cache=none,access=any,{SHARE} rw{number} {shlex.quote(str(path))}"
        for number, path in enumerate(guest.writable)
    )
    values = {
        "SHARES": shares,
        "NICS": str(guest.nics),
        "CWD": shlex.quote(str(guest.cwd)),
        "ENVIRONMENT": shlex.join(guest.environment),
        "COMMAND": shlex.join(guest.command),
    }
    return re.sub(rf"\b({'|'.join(values)})\b", lambda found: values[found[1]], JOB)


def in_order(wanted: Sequence[str], folders: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """The modules and what they need, each after its needs. A module says itself what it needs."""
    found = (path for folder in folders for path in folder.glob("**/*.ko*"))
    paths = {path.name.split(".ko")[0].replace("-", "_"): path for path in found}
    done: set[str] = set()

    def visit(name: str) -> Iterator[tuple[str, bytes]]:
        name = name.replace("-", "_")
        if name in done or name not in paths:  # a name without file is built into the kernel
            return
        done.add(name)
        data = paths[name].read_bytes()
        data = lzma.decompress(data) if paths[name].suffix == ".xz" else data
        needs = re.search(rb"\0depends=([^\0]*)\0", data)
        for need in needs[1].decode().split(",") if needs else ():
            yield from visit(need)
        yield f"{name}.ko", data

    for name in wanted:
        yield from visit(name)


def cpio(entries: Sequence[tuple[str, int, bytes]]) -> bytes:
    """An archive in the "newc" format (kernel: early-userspace/buffer-format) of (path, mode, content)."""
    out = bytearray()
    for number, (path, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        name = path.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
        for part in (b"070701" + b"".join(b"%08X" % field for field in fields) + name, data):
            out += part
            out += b"\0" * (-len(out) % 4)
    return bytes(out)

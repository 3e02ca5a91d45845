#!/usr/bin/env python3
"""Run a command on a throw-away machine: QEMU, Debian's own kernel, cgroup v2; with --rt the PREEMPT_RT kernel.

    edgebox.py [options] -- COMMAND [ARG...]

The guest sees this machine's root filesystem, read-only underneath; what it writes goes to its memory and vanishes
(--rw DIR: stays). COMMAND runs as root in the current folder with EDGEBOX=1; its output (both streams as one) and exit
status are returned. Kernel, QEMU and the like come from `apt-get download` into a cache (EDGEBOX_CACHE, else
~/.cache/edgerm-edgebox); nothing is installed, nothing of this machine is changed. The CPU is emulated: no KVM is
needed, and times mean nothing. There is no udev: drivers are loaded at the boot (--nic, --modules, --modprobe) or by
modprobe in the guest.

Exit status: COMMAND's (128+N for a signal); 2 something is missing here; 124 time limit; 125 the machine failed.
Needs: x86-64 Debian, root, apt-get, dpkg-deb, Python 3.11; for --modules gcc and make.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from edgebox.vm import boot, debian, machine, modules
from edgebox.vm.debian import Missing


def check_host() -> None:
    if platform.machine() != "x86_64":
        raise Missing(f"this machine is {platform.machine()}, the guest's kernel is for x86_64")
    if os.geteuid() != 0:
        raise Missing("needs root, so that the guest may read all files: run it with sudo")
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Missing(f"needs {tool} to fetch QEMU and a kernel: run it on Debian")


def options_of(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rt", action="store_true", help="the PREEMPT_RT kernel")
    add("--smp", default="2", metavar="N", help='CPUs, as QEMU says it: "4", "8,cores=4,threads=2" (default 2)')
    add("--memory", type=int, default=2048, metavar="MIB", help="default %(default)s")
    add("--isolate", metavar="CPUS", help="keep a list of CPUs free: isolcpus=, nohz_full=, rcu_nocbs=")
    add("--append", action="append", default=[], metavar="WORDS", help="more of the kernel's command line")
    add("--nic", action="append", default=[], choices=list(machine.NICS), help="a card (eth0, eth1...), all on one hub")
    add("--modules", action="store_true", help="gpio-sim, netdevsim, ptp_mock; the first time they are compiled")
    add("--modprobe", action="append", default=[], metavar="NAME", help="load a module of the kernel")
    add("--usb", action="store_true", help="a USB controller; /run/monitor speaks QMP, to plug things in and out")
    add("--with", dest="packages", action="append", default=[], metavar="PACKAGE", help="of Debian, unless it is here")
    add("--rw", action="append", default=[], type=Path, metavar="DIR", help="what is written there stays")
    add("--time-limit", type=float, default=300, metavar="S", help="seconds (default %(default)s)")
    add("--console", action="store_true", help="print the kernel's console on stderr at the end")
    add("command", nargs="+")
    return parser.parse_args(argv)


def run(options: argparse.Namespace, cache: Path) -> int:
    """Fetch what is wanted, boot, and answer the command's exit status."""
    if strange := [str(path) for path in options.rw if not path.is_dir()]:
        raise Missing(f"--rw {strange[0]}: no such folder")
    writable = [path.resolve() for path in options.rw]
    tools, kernel = debian.tools(cache), debian.kernel(cache, "rt-amd64" if options.rt else "amd64")
    extra = [layer for package in options.packages if (layer := debian.package_layer(cache, package))]
    drivers = [machine.NICS[nic] for nic in options.nic] + options.modprobe
    folders = [kernel]
    if options.modules:
        folders.append(modules.simulators(cache, kernel))
        drivers += modules.NAMES
    guest = boot.Guest(
        command=options.command,
        cwd=Path.cwd(),
        environment=environment(),
        modules=drivers,
        layers=[layer.name for layer in (tools, kernel, *extra)],
        writable=writable,
        nics=len(options.nic),
    )
    isolate = [f"{word}={options.isolate}" for word in ("isolcpus", "nohz_full", "rcu_nocbs") if options.isolate]
    words = [*isolate, *options.append]
    box = machine.Machine(options.smp, options.memory, words, options.nic, options.usb, writable)
    with tempfile.TemporaryDirectory(prefix="edgebox.") as folder:
        scratch = Path(folder)
        (scratch / "initrd").write_bytes(boot.initramfs(tools / "usr/bin/busybox", folders, guest))
        command = machine.qemu_command(box, tools, cache, kernel, scratch)
        return machine.run(command, tools, scratch, options.time_limit, options.console)


def environment() -> list[str]:
    kept = {name: os.environ[name] for name in ("CI", "PATH") if name in os.environ}
    values = {"EDGEBOX": "1", "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb", **kept}
    return [f"{name}={value}" for name, value in values.items()]


def main() -> int:
    options = options_of(sys.argv[1:])
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = Path(os.environ.get("EDGEBOX_CACHE") or home / "edgerm-edgebox").absolute()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that QEMU is ended, too
    try:
        check_host()
        return run(options, cache)
    except Missing as error:
        print(f"edgebox: {error}", file=sys.stderr)
        return 2
    except subprocess.TimeoutExpired:
        print(f"edgebox: time limit of {options.time_limit:g} s passed", file=sys.stderr)
        return 124
    except machine.Failed as error:
        print(f"edgebox: {error}", file=sys.stderr)
        return 125


if __name__ == "__main__":
    sys.exit(main())

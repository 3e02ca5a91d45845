"""The machine: QEMU's command line, and one run of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgebox.vm.debian import library_path

WORDS = (
    "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nokaslr random.trust_cpu=on nowatchdog"
    " rcupdate.rcu_cpu_stall_suppress=1 net.ifnames=0"
)
NICS = {"e1000e": "e1000e", "virtio-net-pci": "virtio_net"}  # QEMU's name: the driver's
PORT_OUTPUT, PORT_STATUS, PORT_MONITOR = "output", "status", "monitor"
BOOTS = 3


class Failed(Exception):
    """The machine did not come up, or ended before the command did."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What QEMU is to be."""

    cpus: str  # as its -smp says: "4", "8,cores=4,threads=2"
    memory_mib: int
    words: Sequence[str]  # for the kernel
    nics: Sequence[str]
    usb: bool
    writable: Sequence[Path]


def qemu_command(machine: Machine, tools: Path, cache: Path, kernel: Path, scratch: Path) -> list[str]:
    command = [str(tools / "usr/bin/qemu-system-x86_64")]
    for data in ("share/qemu", "share/seabios", "lib/ipxe/qemu"):
        command += ["-L", str(tools / "usr" / data)]
    # One thread for all CPUs: with a thread each, one trips over code that another one patches ("invalid opcode" in a
    # static branch; seen with QEMU 7.2 on a busy box), and it was hardly faster.
    command += ["-accel", "tcg,thread=single", "-cpu", "max,la57=off", "-M", "q35"]
    command += ["-smp", machine.cpus, "-m", str(machine.memory_mib)]
    command += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    command += ["-kernel", str(next(kernel.glob("boot/vmlinuz-*"))), "-initrd", str(scratch / "initrd")]
    command += ["-append", " ".join([WORDS, *machine.words])]
    command += ["-chardev", f"file,id=console,path={scratch / 'console'}", "-serial", "chardev:console"]
    command += ["-device", "virtio-serial-pci", "-chardev", f"stdio,id={PORT_OUTPUT},signal=off"]
    command += ["-chardev", f"file,id={PORT_STATUS},path={scratch / 'status'}"]
    ports = [PORT_OUTPUT, PORT_STATUS]
    if machine.usb:
        # QEMU is its own monitor's other end: what the guest writes to the port are commands to QEMU (QMP, JSON lines).
        socket = f"path={scratch / 'monitor'}"
        command += ["-chardev", f"socket,id=commands,{socket},server=on,wait=off", "-mon", "commands,mode=control"]
        command += ["-chardev", f"socket,id={PORT_MONITOR},{socket}", "-device", "qemu-xhci"]
        ports.append(PORT_MONITOR)
    for port in ports:
        command += ["-device", f"virtserialport,chardev={port},name={port}"]
    shares = [("root", Path("/"), ",readonly=on"), ("cache", cache, ",readonly=on")]
    shares += [(f"rw{number}", path, "") for number, path in enumerate(machine.writable)]
    for tag, path, flags in shares:
        command += ["-fsdev", f"local,id={tag},path={path},security_model=none,multidevs=remap{flags}"]
        command += ["-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    for number, nic in enumerate(machine.nics):  # all on one hub, which nothing leaves
        command += ["-netdev", f"hubport,id=net{number},hubid=0"]
        command += ["-device", f"{nic},netdev=net{number},mac=52:54:00:00:00:{number + 1:02x},romfile="]
    return command


def run(command: list[str], tools: Path, scratch: Path, time_limit_s: float, console: bool) -> int:
    """The command's exit status; its output has gone to our stdout. Raises `Failed`, `subprocess.TimeoutExpired`.

    A machine that dies before the command began is started again: emulation is not perfect (see `qemu_command`).
    """
    for left in reversed(range(BOOTS)):
        said = boot(command, tools, scratch, time_limit_s)
        if console:
            print(said, file=sys.stderr)
        told = what_was_said(scratch / "status").split()
        if told[1:]:
            return int(told[1])
        if told or not left:
            break
        print(f"edgebox: the machine died while it started, once more: {last_words(said)}", file=sys.stderr)
    raise Failed(f"the machine ended before the command did\n{said[-3000:]}")


def boot(command: list[str], tools: Path, scratch: Path, time_limit_s: float) -> str:
    """One life of the machine; what QEMU and the kernel said."""
    environment = {**os.environ, "LD_LIBRARY_PATH": library_path(tools)}
    # QEMU's stdin stays open and empty: at its end the guest's port would count as unplugged.
    with (
        (scratch / "qemu").open("w") as stderr,
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stderr=stderr) as qemu,
    ):
        try:
            qemu.wait(time_limit_s)
        finally:
            qemu.kill()
    return what_was_said(scratch / "qemu") + what_was_said(scratch / "console")


def what_was_said(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def last_words(said: str) -> str:
    """The line that says why, or the last one."""
    lines = [line for line in said.splitlines() if line.strip()] or ["nothing was said"]
    return next((line for line in reversed(lines) if "panic" in line), lines[-1])

"""Simulated hardware that Debian does not build: gpio-sim (lines), netdevsim (network cards), ptp_mock (their clocks).

Compiled from Debian's linux-source against the headers of the very kernel that the guest boots.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from edgebox.vm.debian import Missing, cached, download, output_of, release_of, unpack

NAMES = ("gpio_sim", "netdevsim")  # they bring irq_sim and ptp_mock
SOURCES = (
    "drivers/gpio/gpio-sim.c",
    "kernel/irq/irq_sim.c",
    "drivers/ptp/ptp_mock.c",
    "drivers/net/netdevsim",
)
# Debian leaves these options out, so the headers would hide their functions. netdevsim has a Makefile of its own.
KBUILD = """\
ccflags-y += -DCONFIG_PTP_1588_CLOCK_MOCK_MODULE=1
subdir-ccflags-y += -DCONFIG_PTP_1588_CLOCK_MOCK_MODULE=1
obj-m += irq_sim.o gpio-sim.o ptp_mock.o netdevsim/
"""
EXTRACT = 'dpkg-deb --fsys-tarfile "$1" | tar -xO "./usr/src/$2.tar.xz" | tar -xJ -C "$3" "${@:4}"'


def simulators(cache: Path, kernel: Path) -> Path:
    """A folder of the .ko files for this kernel; compiled at the first call, half a minute and 170 MB of downloads."""
    release = release_of(kernel)
    return cached(cache, f"modules-{release}", lambda folder: make(folder, release))


def make(folder: Path, release: str) -> None:
    for tool in ("gcc", "make"):
        if shutil.which(tool) is None:
            raise Missing(f"--modules compiles them and needs {tool}: apt install gcc make")
    series = release.rpartition(".")[0]  # "6.12" of 6.12.117+deb12-rt-amd64
    if tuple(map(int, series.split("."))) < (6, 12):
        raise Missing(f"--modules needs kernel 6.12, apt has {release}")
    work = folder / "work"
    work.mkdir()
    build, out = fetch_headers(release, work), work / "out"
    out.mkdir()
    fetch_sources(release, series, work)
    for name in SOURCES:
        shutil.move(work / f"linux-source-{series}" / name, out / Path(name).name)
    patch_irq_sim(out / "irq_sim.c")
    (out / "Kbuild").write_text(KBUILD)
    jobs = f"-j{os.cpu_count() or 1}"
    output_of("make", jobs, "-C", str(build), f"M={out}", "CONFIG_NETDEVSIM=m", "modules")
    for module in out.glob("**/*.ko"):
        shutil.copy(module, folder)
    shutil.rmtree(work)


def fetch_headers(release: str, work: Path) -> Path:
    """The folder to build in. Debian's headers name each other by absolute paths, which become ours."""
    name = f"linux-headers-{release}"
    needs = re.findall(r"Depends: <?(linux-(?:headers|kbuild)-[^\s>]+)", output_of("apt-cache", "depends", name))
    unpack([name, *needs], work)
    build = work / "usr/src" / name
    makefile = build / "Makefile"
    makefile.write_text(makefile.read_text().replace("/usr/src/", f"{work}/usr/src/"))
    (build / "vmlinux").unlink(missing_ok=True)  # with it the build would want pahole, for debug information
    return build


def fetch_sources(release: str, series: str, work: Path) -> None:
    shown = output_of("apt-cache", "show", f"linux-headers-{release}")
    version = re.search(r"^Version: (\S+)", shown, re.MULTILINE)
    if version is None:
        raise Missing(f"apt does not say the version of linux-headers-{release}")
    source = f"linux-source-{series}"
    (deb,) = download([f"{source}={version[1]}"], work / "source")
    wanted = [f"{source}/{name}" for name in SOURCES]
    output_of("bash", "-o", "pipefail", "-c", EXTRACT, "extract", str(deb), source, str(work), *wanted)


def patch_irq_sim(path: Path) -> None:
    """Make a module of what the kernel has built in or not at all: one function is not there for modules."""
    text = re.sub(r"irq_to_desc\((\w+)\)", r"irq_data_to_desc(irq_get_irq_data(\1))", path.read_text())
    path.write_text(f'{text}\n#include <linux/module.h>\nMODULE_LICENSE("GPL");\n')

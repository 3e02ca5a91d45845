"""Chips of the kernel's GPIO simulator (gpio-sim), made and unplugged; the edgebox has its module."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

CONFIGFS = Path("/sys/kernel/config")
DEADLINE_S = 60
START, MOTOR, STOP, LED, SPARE = range(5)


class Bank:
    """A simulated chip: lines with names, one of which the kernel keeps."""

    def __init__(self, folder: Path) -> None:
        folder.joinpath("bank0").mkdir(parents=True)
        self._folder = folder
        self._bank = folder / "bank0"
        (self._bank / "label").write_text("plc-io")
        (self._bank / "num_lines").write_text("8")
        for offset, name in ((START, "START"), (MOTOR, "MOTOR"), (STOP, "STOP"), (LED, "LED")):
            (self._bank / f"line{offset}").mkdir()
            (self._bank / f"line{offset}/name").write_text(name)
        hog = self._bank / f"line{LED}/hog"
        hog.mkdir()
        (hog / "name").write_text("led-driver")
        (hog / "direction").write_text("output-low")
        (folder / "live").write_text("1")
        self.name = (self._bank / "chip_name").read_text().strip()
        device = (folder / "dev_name").read_text().strip()
        self._lines = Path("/sys/devices/platform") / device / self.name
        self.path = f"/dev/{self.name}"

    def pull(self, offset: int, way: str) -> None:
        """`up` or `down`: where a line goes that nobody drives."""
        (self._lines / f"sim_gpio{offset}/pull").write_text(f"pull-{way}")

    def level(self, offset: int) -> int:
        """What a meter shows."""
        return int((self._lines / f"sim_gpio{offset}/value").read_text())

    async def until(self, offset: int, level: int) -> None:
        """The simulator tells nobody of a new level, so look again and again."""
        async with asyncio.timeout(DEADLINE_S):
            while self.level(offset) != level:
                await asyncio.sleep(0.05)

    def remove(self) -> None:
        """Unplug it."""
        (self._folder / "live").write_text("0")
        for folder in (*self._bank.glob("*/hog"), *self._bank.glob("line*"), self._bank, self._folder):
            folder.rmdir()


def plug_in() -> Bank:
    """A chip; there is one at a time."""
    if not (CONFIGFS / "gpio-sim").is_dir():
        subprocess.run(["mount", "-t", "configfs", "none", str(CONFIGFS)], check=True)
    return Bank(CONFIGFS / "gpio-sim/edgerm")

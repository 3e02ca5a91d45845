"""When the kernel says that something came or went; the one place that names pyudev.

Its netlink messages come with or without udevd. What does not live here: what came (`sysfs` looks for itself).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from edgerm import logs

SUBSYSTEMS = frozenset({"tty", "usb", "usb-serial", "video4linux"})

log = logs.get("agent.devices")


@contextmanager
def events(changed: asyncio.Event) -> Iterator[bool]:
    """While open, `changed` is set at each event of interest; False: the kernel cannot be heard here, look yourself.

    In the running event loop.
    """
    try:
        from pyudev import Context, Monitor  # noqa: PLC0415 - optional, and few boxes have such devices

        monitor = Monitor.from_netlink(Context(), source="kernel")
        monitor.start()
    except (ImportError, OSError) as error:
        log.info("no events of the kernel, devices are looked for every few seconds instead", error=str(error))
        yield False
        return

    def read() -> None:
        """All that waits; also if some were lost, which is an error of the socket, it is time to look."""
        try:
            while (device := monitor.poll(timeout=0)) is not None:
                if device.subsystem in SUBSYSTEMS:
                    changed.set()
        except OSError:
            changed.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(monitor.fileno(), read)
    try:
        yield True
    finally:
        loop.remove_reader(monitor.fileno())

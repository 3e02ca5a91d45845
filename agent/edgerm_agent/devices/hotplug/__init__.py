"""Serial ports, USB devices and cameras, known by what stays the same of them when they are plugged in again.

`identity` says which of the things that are here is the one that the operator means, `sysfs` what is here, `kernel`
when to look again. What does not live here: what a task does whose device is lost (the agent's core).
"""

from __future__ import annotations

from edgerm_agent.devices.hotplug.plugin import Hotplug, create

__all__ = ["Hotplug", "create"]

"""GPIO chips: `parts` reads settings and claims, `safety` drives lines that no task does, `plugin` leads."""

from edgerm_agent.devices.gpio.plugin import create

__all__ = ["create"]

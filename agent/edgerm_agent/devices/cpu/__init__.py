"""Isolated cores, `siemens.com/isolated_core`.

`box`: what the kernel says of the CPUs; `cores`: which of them tasks may have; `metadata`: what is told of a core;
`tuning`: the kernel's threads on it; `plugin`: all of it together.
"""

from edgerm_agent.devices.cpu.plugin import create

__all__ = ["create"]

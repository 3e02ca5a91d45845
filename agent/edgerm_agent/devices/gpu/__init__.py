"""GPUs of NVIDIA: `nvml` asks the driver, `parts` makes devices and setups of its answers, `plugin` does the rest."""

from edgerm_agent.devices.gpu.plugin import create

__all__ = ["create"]

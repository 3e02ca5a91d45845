"""Network interfaces (`siemens.com/network`): what a claim may ask (`asking`), names, columns and the way in and home
(`plan`), what /sys tells of an interface (`card`), IRQs and threads (`tuning`), what is remembered (`memory`), netlink
(`links`), undoing it all (`homing`), and the plugin (`plugin`).
"""

from edgerm_agent.devices.nic.plugin import create

__all__ = ["create"]

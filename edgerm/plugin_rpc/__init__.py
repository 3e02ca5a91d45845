"""Device plugins in processes of their own: the plugin serves itself, the agent has a proxy of it.

A plugin's author writes a `DevicePlugin` and calls `serve`; its operator puts the socket into `devices.sockets`.
What does not live here: what a plugin is (`edgerm.plugin.device`), the kubelet's own API (`edgerm_agent.devices`).
"""

from edgerm.plugin_rpc.client import RemotePlugin
from edgerm.plugin_rpc.server import serve, serving

__all__ = ["RemotePlugin", "serve", "serving"]

"""Device plugins in processes of their own: ours at the sockets that the operator names, Kubernetes' that register.

gRPC takes 29 MiB, so what needs it is imported only if one of both is configured.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial

from edgerm.core.errors import Conflict, Unavailable
from edgerm.plugin.device import DevicePlugin
from edgerm_agent.config import Devices as Settings
from edgerm_agent.devices.inventories import Inventories

NO_PACKAGE = "device plugins in processes of their own need gRPC: pip install 'edgerm[plugins]'"


async def listen(settings: Settings, devices: Inventories, stack: AsyncExitStack) -> None:
    """From now on such plugins are among `devices`, until the stack is left.

    Raises `Conflict` if a living kubelet has the directory, `Unavailable` where gRPC or the directory is missing.
    """
    connect(settings, devices)
    if settings.kubelet_dir:
        try:
            from edgerm_agent.devices.kubelet import Kubelet  # noqa: PLC0415
        except ImportError:
            raise Unavailable(NO_PACKAGE) from None
        kubelet = await Kubelet.listen(settings.kubelet_dir, partial(_add, devices))
        stack.push_async_callback(kubelet.close)


def connect(settings: Settings, devices: Inventories) -> None:
    """From now on the plugins at the operator's sockets are among `devices`. Raises `Unavailable` without gRPC."""
    if not settings.sockets:
        return
    try:
        from edgerm.plugin_rpc import RemotePlugin  # noqa: PLC0415
    except ImportError:
        raise Unavailable(NO_PACKAGE) from None
    for path in settings.sockets:
        devices.add(RemotePlugin(path, path))


def _add(devices: Inventories, plugin: DevicePlugin) -> None:
    """A plugin that registers carries what it is called. Raises `Conflict` if another one carries that."""
    if (other := devices.carrier_of(plugin.name)) not in ("", plugin.name):
        raise Conflict(f"{plugin.name} is carried by device plugin {other} of this agent already")
    devices.add(plugin, (plugin.name,))

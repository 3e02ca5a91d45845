"""Device plugins in processes of their own: ours at the sockets that the operator names, Kubernetes' that register.

gRPC takes 29 MiB, so what needs it is imported only if one of both is configured.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

from edgerm.core.errors import Unavailable
from edgerm_agent.config import Devices as Settings
from edgerm_agent.devices.inventories import Inventories

NO_PACKAGE = "device plugins in processes of their own need gRPC: pip install 'edgerm[plugins]'"


async def listen(settings: Settings, devices: Inventories, stack: AsyncExitStack) -> None:
    """From now on such plugins are among `devices`, until the stack is left.

    Raises `Conflict` if a living kubelet has the directory, `Unavailable` where gRPC or the directory is missing.
    """
    if not settings.sockets and not settings.kubelet_dir:
        return
    try:
        from edgerm.plugin_rpc import RemotePlugin  # noqa: PLC0415
        from edgerm_agent.devices.kubelet import Kubelet  # noqa: PLC0415
    except ImportError:
        raise Unavailable(NO_PACKAGE) from None
    for path in settings.sockets:
        devices.add(RemotePlugin(path, path))
    if settings.kubelet_dir:
        kubelet = await Kubelet.listen(settings.kubelet_dir, devices.add)
        stack.push_async_callback(kubelet.close)

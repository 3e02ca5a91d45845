"""Where plugins written for Kubernetes register: the kubelet's device-plugin API v1beta1, as the kubelet serves it.

A plugin registers at kubelet.sock by itself, and is asked from then on: all its devices by ListAndWatch, what a task
gets by Allocate (and PreStartContainer), which devices go together by GetPreferredAllocation. It is never told that a
task has ended: the API has no such call. Source: kubernetes/kubelet, pkg/apis/deviceplugin/v1beta1.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
import stat
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress

from edgerm import logs
from edgerm.core.devices import Device, DeviceClass, Inventory
from edgerm.core.errors import Conflict, EdgermError, Invalid, Unavailable
from edgerm.plugin.checking import name_fits
from edgerm.plugin.device import DeviceNode, Grant, Mount, Setup
from edgerm.transport.grpc_unix import SOCKET_BYTES_MAX, GrpcClient, GrpcServer, Unary, check_free
from edgerm.wire.v1 import kubelet_pb2 as pb
from edgerm_agent.devices.hostfs import problem_of_node

VERSION = "v1beta1"
SOCKET = "kubelet.sock"
REGISTRATION, PLUGIN = "v1beta1.Registration", "v1beta1.DevicePlugin"
HEALTHY = "Healthy"
CALL_S = 60.0
OPTIONS_S = 10.0
PROBE_S = 2.0  # for what may be no plugin at all
SOCKETS_MAX = PLUGINS_MAX = 256

log = logs.get("agent.devices.kubelet")


class Kubelet:
    """Takes registrations at DIR/kubelet.sock, for as long as it is not closed."""

    def __init__(self, server: GrpcServer) -> None:
        self._server = server

    @classmethod
    async def listen(cls, folder: str, add: Callable[[KubeletPlugin], None]) -> Kubelet:
        """Make kubelet.sock anew, and remove plugins' own: by either they notice, and register again.

        `add` gets each plugin that registers; what it raises is told to the plugin. Raises `Conflict` if a living
        process serves kubelet.sock.
        """

        known: set[str] = set()

        async def register(request: pb.RegisterRequest) -> pb.Empty:
            check(request)
            if len(known | {request.resource_name}) > PLUGINS_MAX:
                raise Conflict(f"{PLUGINS_MAX} resources are registered here, and there may be no more")
            path = posixpath.join(folder, request.endpoint)
            if len(path.encode()) > SOCKET_BYTES_MAX:
                raise Invalid(f"endpoint {request.endpoint[:80]!r}: its path has more than {SOCKET_BYTES_MAX} bytes")
            add(KubeletPlugin(request.resource_name, path))
            known.add(request.resource_name)
            log.info("a device plugin has registered", name=request.resource_name, endpoint=request.endpoint)
            return pb.Empty()

        path = posixpath.join(folder, SOCKET)
        await check_free(path)
        await _forget(folder)
        return cls(await GrpcServer.listen(path, REGISTRATION, {"Register": Unary(pb.RegisterRequest, register)}))

    async def close(self) -> None:
        """Take no more registrations."""
        await self._server.close()


async def _forget(folder: str) -> None:
    """Remove the sockets of plugins that live: many watch but their own to notice that there is another kubelet.

    The kubelet empties its whole directory. Here only what answers as a device plugin goes, in case that the directory
    is another one.
    """
    with suppress(OSError):
        names = [entry.name for entry in os.scandir(folder) if stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)]
        await asyncio.gather(*(_forget_one(posixpath.join(folder, name)) for name in names[:SOCKETS_MAX]))


async def _forget_one(path: str) -> None:
    try:
        await GrpcClient(path, PLUGIN).call("GetDevicePluginOptions", pb.Empty(), pb.DevicePluginOptions, PROBE_S)
        os.unlink(path)  # noqa: PTH108
    except (EdgermError, OSError):
        log.debug("no device plugin answers at a socket", path=path)


def check(request: pb.RegisterRequest) -> None:
    """Raises `Invalid` for what cannot be registered, in words that a plugin's log shows its author."""
    if request.version != VERSION:
        raise Invalid(f"version {request.version[:40]!r} of the device-plugin API is not spoken here: use {VERSION}")
    if not request.endpoint or request.endpoint in (".", "..", SOCKET) or "/" in request.endpoint:
        raise Invalid(f"endpoint {request.endpoint[:80]!r}: name a socket in the directory of {SOCKET}, without a path")
    if not name_fits(request.resource_name) or "/" not in request.resource_name:
        raise Invalid(f"resource name {request.resource_name[:80]!r}: write one such as vendor.example/camera")


class KubeletPlugin:
    """The plugin of one resource: its class, exclusive and without configuration. Raises `Unavailable` once gone."""

    def __init__(self, resource: str, path: str) -> None:
        self.name = resource
        self._client = GrpcClient(path, PLUGIN)
        self._options = pb.DevicePluginOptions()

    async def watch(self) -> AsyncGenerator[Inventory, None]:
        """The plugin's list, whenever it sends one."""
        self._options = await self._client.call("GetDevicePluginOptions", pb.Empty(), pb.DevicePluginOptions, OPTIONS_S)
        its = DeviceClass(self.name, chooses=self._options.get_preferred_allocation_available)
        async with aclosing(self._client.stream("ListAndWatch", pb.Empty(), pb.ListAndWatchResponse)) as lists:
            async for listed in lists:
                yield Inventory((its,), devices_of(self.name, listed.devices))
        raise Unavailable("it ended its list")

    async def prepare(self, grant: Grant) -> Setup:
        """Allocate, for all claims of the task together as for one container; PreStartContainer if that is wanted."""
        ids = [device.id for device in grant.devices]
        request = pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=ids)])
        answer = await self._client.call("Allocate", request, pb.AllocateResponse, CALL_S)
        if len(answer.container_responses) != 1:
            raise Unavailable(f"the plugin of {self.name} gave {len(answer.container_responses)} answers for one task")
        if self._options.pre_start_required:
            before = pb.PreStartContainerRequest(devices_ids=ids)
            await self._client.call("PreStartContainer", before, pb.PreStartContainerResponse, CALL_S)
        setup = setup_of(answer.container_responses[0])
        for node in setup.nodes:
            if wrong := problem_of_node(node.host_path):
                raise Conflict(f"{self.name}: what its plugin gives cannot be: {wrong}")
        return setup

    async def release(self, grant: Grant) -> None:
        """Nothing: the plugin is not told."""

    async def choose(self, name: str, free: tuple[str, ...], count: int) -> tuple[str, ...]:
        """What the plugin prefers."""
        wanted = pb.ContainerPreferredAllocationRequest(available_deviceIDs=free, allocation_size=count)
        request = pb.PreferredAllocationRequest(container_requests=[wanted])
        answer = await self._client.call("GetPreferredAllocation", request, pb.PreferredAllocationResponse, CALL_S)
        return tuple(answer.container_responses[0].deviceIDs) if answer.container_responses else ()


def devices_of(name: str, listed: Sequence[pb.Device]) -> tuple[Device, ...]:
    """The devices of a plugin's list."""
    return tuple(
        Device(
            name,
            each.ID,
            problem="" if each.health == HEALTHY else f"its plugin says {each.health[:40] or 'nothing'}",
            numa_nodes=tuple(node.ID for node in each.topology.nodes),
        )
        for each in listed
    )


def setup_of(answer: pb.ContainerAllocateResponse) -> Setup:
    """What the plugin wants its container to have."""
    return Setup(
        env=tuple(sorted(answer.envs.items())),
        mounts=tuple(Mount(each.container_path, each.host_path, each.read_only, False) for each in answer.mounts),
        nodes=tuple(
            DeviceNode(each.host_path, each.container_path or each.host_path, each.permissions or "rwm")
            for each in answer.devices
        ),
        annotations=tuple(sorted(answer.annotations.items())),
        cdi_names=tuple(each.name for each in answer.cdi_devices),
    )

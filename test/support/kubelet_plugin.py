"""A device plugin as people write them for Kubernetes: it knows the kubelet's API and nothing of edgerm.

    kubelet_plugin.py DIR RESOURCE ENDPOINT [--prefers] [--pre-start]

It registers at DIR/kubelet.sock, again whenever that socket is made anew, and reads commands, a line each: `ill ID`,
`well ID`. What it is asked is printed, a line each. Plain grpc, so that nothing of ours vouches for itself.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from edgerm.wire.v1 import kubelet_pb2 as pb

IDS = ("one", "two", "three")


class Plugin:
    def __init__(self, options: pb.DevicePluginOptions) -> None:
        self.options = options
        self.ill: set[str] = set()
        self.changed = asyncio.Condition()

    async def get_options(self, request: pb.Empty, context: Any) -> pb.DevicePluginOptions:
        return self.options

    async def list_and_watch(self, request: pb.Empty, context: Any) -> AsyncIterator[pb.ListAndWatchResponse]:
        async with self.changed:
            while True:
                yield pb.ListAndWatchResponse(devices=[self.device(number, each) for number, each in enumerate(IDS)])
                await self.changed.wait()

    def device(self, number: int, device_id: str) -> pb.Device:
        health = "Unhealthy" if device_id in self.ill else "Healthy"
        return pb.Device(ID=device_id, health=health, topology=pb.TopologyInfo(nodes=[pb.NUMANode(ID=number % 2)]))

    async def prefer(self, request: pb.PreferredAllocationRequest, context: Any) -> pb.PreferredAllocationResponse:
        (asked,) = request.container_requests
        say("prefer", *sorted(asked.available_deviceIDs), asked.allocation_size)
        best = sorted(asked.available_deviceIDs, key=lambda each: -IDS.index(each))[: asked.allocation_size]
        return pb.PreferredAllocationResponse(
            container_responses=[pb.ContainerPreferredAllocationResponse(deviceIDs=best)]
        )

    async def allocate(self, request: pb.AllocateRequest, context: Any) -> pb.AllocateResponse:
        (asked,) = request.container_requests
        ids = ",".join(asked.devices_ids)
        say("allocate", ids)
        answer = pb.ContainerAllocateResponse(
            envs={"BOARDS": ids},
            mounts=[pb.Mount(container_path="/opt/boards", host_path="/usr/share", read_only=True)],
            devices=[pb.DeviceSpec(container_path="/dev/board", host_path="/dev/null", permissions="rw")],
            annotations={"vendor.example/boards": ids},
            cdi_devices=[pb.CDIDevice(name=f"vendor.example/board={each}") for each in asked.devices_ids],
        )
        return pb.AllocateResponse(container_responses=[answer])

    async def pre_start(self, request: pb.PreStartContainerRequest, context: Any) -> pb.PreStartContainerResponse:
        say("pre-start", ",".join(request.devices_ids))
        return pb.PreStartContainerResponse()

    async def obey(self, command: str, device_id: str) -> None:
        async with self.changed:
            (self.ill.add if command == "ill" else self.ill.discard)(device_id)
            self.changed.notify_all()


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def encode(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def handlers(plugin: Plugin) -> grpc.GenericRpcHandler:
    unary = grpc.unary_unary_rpc_method_handler
    return grpc.method_handlers_generic_handler(
        "v1beta1.DevicePlugin",
        {
            "GetDevicePluginOptions": unary(plugin.get_options, pb.Empty.FromString, encode),
            "ListAndWatch": grpc.unary_stream_rpc_method_handler(plugin.list_and_watch, pb.Empty.FromString, encode),
            "GetPreferredAllocation": unary(plugin.prefer, pb.PreferredAllocationRequest.FromString, encode),
            "Allocate": unary(plugin.allocate, pb.AllocateRequest.FromString, encode),
            "PreStartContainer": unary(plugin.pre_start, pb.PreStartContainerRequest.FromString, encode),
        },
    )


async def register(folder: str, resource: str, endpoint: str, options: pb.DevicePluginOptions) -> None:
    """Register now, and whenever kubelet.sock is another one."""
    socket = Path(folder, "kubelet.sock")
    known: tuple[int, int] | None = None
    while True:
        try:
            found = socket.stat()
        except FileNotFoundError:
            found = None
        its = (found.st_ino, found.st_ctime_ns) if found else None
        if its is not None and its != known:
            request = pb.RegisterRequest(version="v1beta1", endpoint=endpoint, resource_name=resource, options=options)
            async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
                asked = channel.unary_unary("/v1beta1.Registration/Register", encode, pb.Empty.FromString)
                try:
                    await asked(request)
                    known = its
                    say("registered")
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
        await asyncio.sleep(0.05)  # as plugins do that have no inotify


async def main(folder: str, resource: str, endpoint: str, *flags: str) -> None:
    options = pb.DevicePluginOptions(
        pre_start_required="--pre-start" in flags, get_preferred_allocation_available="--prefers" in flags
    )
    plugin = Plugin(options)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handlers(plugin),))
    server.add_insecure_port(f"unix:{os.path.join(folder, endpoint)}")  # noqa: PTH118
    await server.start()
    registering = asyncio.create_task(register(folder, resource, endpoint, options))
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().split():
        await plugin.obey(*line)
    registering.cancel()
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""A device plugin as people write them for Kubernetes: it knows the kubelet's API and nothing of edgerm.

    kubelet_plugin.py DIR RESOURCE ENDPOINT [--prefers] [--pre-start] [--plain] [--without-cdi]
        [--watches-own]

It registers at DIR/kubelet.sock, again whenever that socket is made anew (`--watches-own`: whenever its own is gone,
which is the other way that plugins have), and reads commands, a line each: `ill ID`, `well ID`. `--plain`: no more than
variables, `--without-cdi`: all but CDI names, which few engines know. What it is asked is printed, a line each. Plain
grpc, so that nothing of ours vouches for itself.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from edgerm.wire.v1 import kubelet_pb2 as pb

IDS = ("one", "two", "three")
BOARD = "vendor.example/board"


class Plugin:
    def __init__(self, options: pb.DevicePluginOptions, *, plain: bool, without_cdi: bool) -> None:
        self.options = options
        self.plain, self.without_cdi = plain, without_cdi
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
        if self.plain:
            plain = pb.ContainerAllocateResponse(envs={"BOARDS": ids})
            return pb.AllocateResponse(container_responses=[plain])
        answer = pb.ContainerAllocateResponse(
            envs={"BOARDS": ids},
            mounts=[pb.Mount(container_path="/opt/boards", host_path="/usr/share", read_only=True)],
            devices=[pb.DeviceSpec(container_path="/dev/board", host_path="/dev/null", permissions="rw")],
            annotations={"vendor.example/boards": ids},
            cdi_devices=[pb.CDIDevice(name=f"{BOARD}={each}") for each in asked.devices_ids if not self.without_cdi],
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


async def register(socket: Path, resource: str, endpoint: str, options: pb.DevicePluginOptions) -> bool:
    """Whether a kubelet is there that has taken it."""
    request = pb.RegisterRequest(version="v1beta1", endpoint=endpoint, resource_name=resource, options=options)
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        asked = channel.unary_unary("/v1beta1.Registration/Register", encode, pb.Empty.FromString)
        try:
            await asked(request)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                say("refused", error.details())
                raise
            return False
    say("registered")
    return True


async def serve(plugin: Plugin, path: Path) -> grpc.aio.Server:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handlers(plugin),))
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    return server


async def keep(plugin: Plugin, folder: Path, resource: str, endpoint: str, *, watches_own: bool) -> None:
    """Serve and register, both anew whenever there is another kubelet."""
    socket, own = folder / "kubelet.sock", folder / endpoint
    server: grpc.aio.Server | None = None
    known: tuple[int, int] | None = None
    while True:
        its = identity(socket)
        if its is not None and (known is None or not own.exists() or (its != known and not watches_own)):
            if server is not None:
                await server.stop(0)
            server = await serve(plugin, own)
            known = its if await register(socket, resource, endpoint, plugin.options) else None
        await asyncio.sleep(0.05)  # as plugins do that have no inotify


def identity(socket: Path) -> tuple[int, int] | None:
    try:
        found = socket.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_ctime_ns


async def main(folder: str, resource: str, endpoint: str, *flags: str) -> None:
    options = pb.DevicePluginOptions(
        pre_start_required="--pre-start" in flags, get_preferred_allocation_available="--prefers" in flags
    )
    plugin = Plugin(options, plain="--plain" in flags, without_cdi="--without-cdi" in flags)
    keeping = asyncio.create_task(keep(plugin, Path(folder), resource, endpoint, watches_own="--watches-own" in flags))
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().split():
        await plugin.obey(*line)
    keeping.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""The plugin's side: serve a `DevicePlugin` at a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edgerm.core.errors import NotImplementedCall
from edgerm.plugin.device import Chooses, DevicePlugin, NotClean
from edgerm.plugin_rpc.codec import SERVICE, grant_of, setup_to_message
from edgerm.transport.grpc_unix import GrpcServer, Stream, Unary
from edgerm.wire.codec.devices import classes_to_messages, devices_to_messages
from edgerm.wire.v1 import infos_pb2, plugin_pb2


async def serve(plugin: DevicePlugin, path: str) -> None:
    """Serve the plugin at `path` until this is cancelled. Raises `Conflict` if another process serves there."""
    async with serving(plugin, path) as server:
        await server.wait()


@asynccontextmanager
async def serving(plugin: DevicePlugin, path: str) -> AsyncIterator[GrpcServer]:
    """The same for as long as the block lasts."""
    face = _Face(plugin)
    calls: dict[str, Unary | Stream] = {
        "Describe": Unary(plugin_pb2.DescribeRequest, face.describe),
        "Watch": Stream(plugin_pb2.WatchRequest, face.watch),
        "Prepare": Unary(plugin_pb2.Grant, face.prepare),
        "Release": Unary(plugin_pb2.Grant, face.release),
        "Choose": Unary(plugin_pb2.ChooseRequest, face.choose),
    }
    server = await GrpcServer.listen(path, SERVICE, calls)
    try:
        yield server
    finally:
        await server.close()


class _Face:
    def __init__(self, plugin: DevicePlugin) -> None:
        self._plugin = plugin

    async def describe(self, request: plugin_pb2.DescribeRequest) -> plugin_pb2.DescribeResponse:
        return plugin_pb2.DescribeResponse(name=self._plugin.name)

    async def watch(self, request: plugin_pb2.WatchRequest) -> AsyncIterator[infos_pb2.Inventory]:
        async for found in self._plugin.watch():
            yield infos_pb2.Inventory(
                classes=classes_to_messages(found.classes), devices=devices_to_messages(found.devices)
            )

    async def prepare(self, request: plugin_pb2.Grant) -> plugin_pb2.Setup:
        return setup_to_message(await self._plugin.prepare(grant_of(request)))

    async def release(self, request: plugin_pb2.Grant) -> plugin_pb2.ReleaseResponse:
        try:
            await self._plugin.release(grant_of(request))
        except NotClean as error:
            return plugin_pb2.ReleaseResponse(evidence=str(error) or "it is not clean")
        return plugin_pb2.ReleaseResponse()

    async def choose(self, request: plugin_pb2.ChooseRequest) -> plugin_pb2.ChooseResponse:
        if not isinstance(self._plugin, Chooses):
            raise NotImplementedCall(f"plugin {self._plugin.name} has no preferences")
        return plugin_pb2.ChooseResponse(
            ids=await self._plugin.choose(request.name, tuple(request.free), request.count)
        )

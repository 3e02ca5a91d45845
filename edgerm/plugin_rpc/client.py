"""The agent's side: a plugin that stands for one in another process."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from edgerm.core.devices import Inventory
from edgerm.plugin.device import Grant, NotClean, Setup
from edgerm.plugin_rpc.codec import SERVICE, grant_to_message, setup_of
from edgerm.transport.grpc_unix import GrpcClient
from edgerm.wire.codec.devices import inventory_of
from edgerm.wire.v1 import infos_pb2, plugin_pb2

CALL_S = 60.0  # the agent's own bounds are shorter
DESCRIBE_S = 5.0


class RemotePlugin:
    """The plugin served at `path`; `name` is what the agent calls it. Raises `Unavailable` while nobody serves it."""

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self._client = GrpcClient(path, SERVICE)

    async def watch(self) -> AsyncGenerator[Inventory, None]:
        """As the plugin's; raises when it is gone."""
        await self._client.call("Describe", plugin_pb2.DescribeRequest(), plugin_pb2.DescribeResponse, DESCRIBE_S)
        async with aclosing(self._client.stream("Watch", plugin_pb2.WatchRequest(), infos_pb2.Inventory)) as messages:
            async for message in messages:
                yield inventory_of(message.classes, message.devices)

    async def prepare(self, grant: Grant) -> Setup:
        """As the plugin's."""
        return setup_of(await self._client.call("Prepare", grant_to_message(grant), plugin_pb2.Setup, CALL_S))

    async def release(self, grant: Grant) -> None:
        """As the plugin's."""
        message = grant_to_message(grant)
        answer = await self._client.call("Release", message, plugin_pb2.ReleaseResponse, CALL_S)
        if answer.evidence:
            raise NotClean(answer.evidence)

    async def choose(self, name: str, free: tuple[str, ...], count: int) -> tuple[str, ...]:
        """As the plugin's, for classes that choose."""
        request = plugin_pb2.ChooseRequest(name=name, free=free, count=count)
        return tuple((await self._client.call("Choose", request, plugin_pb2.ChooseResponse, CALL_S)).ids)

"""Grants and setups as messages, and back."""

from __future__ import annotations

import json

from edgerm.core.errors import Invalid
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.plugin.device import DeviceNode, Given, GpioChip, Grant, Mount, Setup
from edgerm.wire.codec.devices import devices_to_messages, inventory_of
from edgerm.wire.v1 import plugin_pb2 as pb

SERVICE = "edgerm.v1.plugin.DevicePlugin"


def grant_to_message(grant: Grant) -> pb.Grant:
    """What a plugin is told of a task's devices."""
    message = pb.Grant(
        framework_id=grant.task.framework_id,
        task_id=grant.task.task_id,
        launch_id=grant.task.launch_id,
        name=grant.name,
        executor=grant.executor,
        app=grant.app,
        cpus=grant.cpus,
        network=grant.network,
    )
    for given in grant.given:
        config = json.dumps(given.config) if given.config else ""
        message.given.add(claim=given.claim, config=config, devices=devices_to_messages(given.devices))
    return message


def grant_of(message: pb.Grant) -> Grant:
    """The same as a value; raises `Invalid` for a config that is no JSON object."""
    return Grant(
        task=TaskKey(FrameworkId(message.framework_id), TaskId(message.task_id), LaunchId(message.launch_id)),
        name=message.name,
        given=tuple(_given(given) for given in message.given),
        executor=message.executor,
        app=message.app,
        cpus=tuple(message.cpus),
        network=message.network,
    )


def _given(message: pb.Given) -> Given:
    try:
        config = json.loads(message.config) if message.config else {}
    except (ValueError, RecursionError) as error:
        raise Invalid(f"claim {message.claim!r}: its config is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise Invalid(f"claim {message.claim!r}: its config is no object")
    return Given(message.claim, config, inventory_of((), message.devices).devices)


def setup_to_message(setup: Setup) -> pb.Setup:
    """What a task gets."""
    return pb.Setup(
        env=dict(setup.env),
        mounts=[
            pb.Mount(container_path=each.container_path, source=each.source, read_only=each.read_only, named=each.named)
            for each in setup.mounts
        ],
        nodes=[
            pb.DeviceNode(host_path=each.host_path, container_path=each.container_path, permissions=each.permissions)
            for each in setup.nodes
        ],
        cpus=setup.cpus,
        network=setup.network,
        chips=[pb.GpioChip(id=each.id, path=each.path) for each in setup.chips],
        annotations=dict(setup.annotations),
        cdi_names=setup.cdi_names,
        runtime=setup.runtime,
    )


def setup_of(message: pb.Setup) -> Setup:
    """The same as a value; variables and annotations in the order of their names."""
    return Setup(
        env=tuple(sorted(message.env.items())),
        mounts=tuple(Mount(each.container_path, each.source, each.read_only, each.named) for each in message.mounts),
        nodes=tuple(DeviceNode(each.host_path, each.container_path, each.permissions) for each in message.nodes),
        cpus=tuple(message.cpus),
        network=message.network,
        chips=tuple(GpioChip(each.id, each.path) for each in message.chips),
        annotations=tuple(sorted(message.annotations.items())),
        cdi_names=tuple(message.cdi_names),
        runtime=message.runtime,
    )

"""The suite that every device plugin passes (`edgerm.plugin.device.DevicePlugin`).

It needs no hardware where the plugin runs on a recorded board (`edgerm.testing.hostfs`), and no root.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import jsonschema
import pytest

from edgerm.core.devices import Device, Inventory
from edgerm.core.errors import Conflict, Invalid
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.metadata import read
from edgerm.plugin.checking import check_config, checked
from edgerm.plugin.device import DevicePlugin, Given, Grant, HostFiles, Setup
from edgerm.testing.cutting import CutHost, PowerCut
from edgerm.testing.hostfs import RecordedHost

DEADLINE_S = 30
STEPS_MAX = 200  # of one prepare or release, at which the power is cut
NOT_THERE = "edgerm-no-such-device"


class DevicePluginSuite:
    """Subclass it as `TestMyPlugin`: say how to make the plugin, and on what host.

    A plugin with several classes has a subclass for each, with its `class_name`.
    """

    class_name: ClassVar[str] = ""  # empty: of the first device that can be had
    executor: ClassVar[str] = "docker"  # of the tasks
    config: ClassVar[Mapping[str, object]] = {}  # of a claim, as the class knows it
    wrong_configs: ClassVar[tuple[Mapping[str, object], ...]] = ()  # each with keys of the class, and something wrong

    def make_host(self, path: Path) -> HostFiles:
        """A box; `path` is empty and for its files."""
        return RecordedHost()

    def make_plugin(self, host: HostFiles) -> DevicePlugin:
        """A plugin of that box. A second one with the same host is the plugin after a restart of the agent."""
        raise NotImplementedError

    def look(self, host: HostFiles) -> object:
        """All that preparing may change on the box, for a comparison."""
        assert isinstance(host, RecordedHost), "say what preparing changes on your host: override `look`"
        return host.changes()

    def adapt(self, grant: Grant) -> Grant:
        """The grant with what the plugin relies on beside the devices: `cpus`, `network`, `app`."""
        return grant

    @pytest.fixture
    def host(self, tmp_path: Path) -> HostFiles:
        """One box."""
        return self.make_host(tmp_path)

    # --- what is here ---

    async def test_an_inventory_is_whole_at_once(self, host: HostFiles) -> None:
        """The first inventory comes without a change on the box, and keeps to names, ids and bounds."""
        inventory = await first(self.make_plugin(host))
        assert inventory.classes, "a plugin has its classes even without a device"
        checked(inventory)

    async def test_devices_stay_the_same(self, host: HostFiles) -> None:
        """After a restart of the agent every device has the id that it had, in the same order."""
        found = [await first(self.make_plugin(host)) for _ in range(2)]
        assert _ids(found[0]) == _ids(found[1])

    async def test_metadata_keep_to_their_schema(self, host: HostFiles) -> None:
        """A class that has a schema has one that is a JSON Schema, and its devices' metadata keep to it."""
        inventory = await first(self.make_plugin(host))
        schemas = {each.name: json.loads(each.schema) for each in inventory.classes if each.schema}
        for schema in schemas.values():
            jsonschema.validators.validator_for(schema).check_schema(schema)
        for device in inventory.devices:
            if device.name in schemas:
                jsonschema.validate(cast(Any, read(device.metadata)), schemas[device.name])

    # --- prepared, and given back ---

    async def test_a_setup_is_plain(self, host: HostFiles) -> None:
        """Paths are absolute, CPUs ascend, and no variable is the agent's own."""
        plugin = self.make_plugin(host)
        setup = await prepared(plugin, await self.grant(plugin))
        assert all(mount.container_path.startswith("/") for mount in setup.mounts)
        assert all(mount.named or mount.source.startswith("/") for mount in setup.mounts)
        assert all(node.host_path.startswith("/") and node.container_path.startswith("/") for node in setup.nodes)
        assert list(setup.cpus) == sorted({*setup.cpus})
        assert not [name for name, _ in setup.env if not name or "=" in name or name.startswith("EDGERM_")]

    async def test_a_released_device_is_clean(self, host: HostFiles) -> None:
        """After the release the box is as it was, and the device can be prepared once more, with the same setup."""
        plugin = self.make_plugin(host)
        grant, before = await self.grant(plugin), self.look(host)
        setups = []
        for _ in range(2):
            setups.append(await prepared(plugin, grant))
            await released(plugin, grant)
            assert self.look(host) == before
        assert setups[0] == setups[1]

    async def test_prepare_may_be_repeated(self, host: HostFiles) -> None:
        """A second prepare of a grant, by the plugin or by its next life, answers the same and changes nothing."""
        plugin = self.make_plugin(host)
        grant = await self.grant(plugin)
        setup, after = await prepared(plugin, grant), self.look(host)
        again = self.make_plugin(host)
        await first(again)
        for each in (plugin, again):
            assert await prepared(each, grant) == setup
            assert self.look(host) == after

    async def test_release_may_be_repeated(self, host: HostFiles) -> None:
        """A grant is released by the next life of the plugin as well, and a second release changes nothing."""
        plugin = self.make_plugin(host)
        grant, before = await self.grant(plugin), self.look(host)
        await prepared(plugin, grant)
        again = self.make_plugin(host)
        for _ in range(2):
            await released(again, _bare(grant))
            assert self.look(host) == before

    async def test_an_unknown_grant_is_released(self, host: HostFiles) -> None:
        """A grant that was never prepared is released already, also before the first inventory."""
        grant, before = await self.grant(self.make_plugin(host)), self.look(host)
        await released(self.make_plugin(host), _bare(grant))
        assert self.look(host) == before

    async def test_tasks_do_not_meet(self, host: HostFiles) -> None:
        """The release of one task's device leaves another task's device as it was prepared."""
        plugin = self.make_plugin(host)
        devices = await self.offered(plugin)
        if len(devices) < 2:
            pytest.skip("needs a host with two devices of the class")
        one, two = self.make_grant("one", devices[0]), self.make_grant("two", devices[1])
        setup, alone = await prepared(plugin, two), self.look(host)
        await prepared(plugin, one)
        await released(plugin, one)
        assert self.look(host) == alone
        assert await prepared(plugin, two) == setup

    # --- what goes wrong ---

    async def test_a_wrong_config_leaves_nothing(self, host: HostFiles) -> None:
        """A config of the class is taken; a value that is wrong is refused as `Invalid`, and leaves nothing."""
        plugin = self.make_plugin(host)
        grant, before = await self.grant(plugin), self.look(host)
        inventory = await first(plugin)
        its = next(each for each in inventory.classes if each.name == grant.name)
        for config in (self.config, *self.wrong_configs):
            check_config(its, "claim", config)
        for config in self.wrong_configs:
            wrong = replace(grant, given=tuple(replace(each, config=config) for each in grant.given))
            with pytest.raises(Invalid):
                await prepared(plugin, wrong)
            await released(plugin, wrong)
            assert self.look(host) == before, config

    async def test_a_device_that_is_not_there(self, host: HostFiles) -> None:
        """A device that the plugin does not have is refused, and leaves nothing."""
        plugin = self.make_plugin(host)
        [device, *_] = await self.offered(plugin)
        before = self.look(host)
        grant = self.make_grant("one", Device(device.name, NOT_THERE, device.shared))
        with pytest.raises((Conflict, Invalid, OSError)):
            await prepared(plugin, grant)
        await released(plugin, grant)
        assert self.look(host) == before

    @pytest.mark.parametrize("repeats", [False, True], ids=["the task is gone", "the start is repeated"])
    async def test_a_power_cut_at_every_step_of_prepare(self, host: HostFiles, repeats: bool) -> None:
        """Wherever a prepare was cut off, the next life prepares as if nothing was, and its release leaves nothing."""
        grant, before = await self.grant(self.make_plugin(host)), self.look(host)
        setup = None
        for steps in range(STEPS_MAX):
            whole, found = await self.cut(host, steps, grant, prepares=True)
            again = self.make_plugin(host)
            await first(again)
            if repeats:
                setup = await prepared(again, grant)
            await released(again, _bare(grant))
            assert self.look(host) == before, f"cut at step {steps}"
            if whole:
                assert setup in (None, found)
                return
        raise AssertionError(f"prepare takes more than {STEPS_MAX} steps")

    async def test_a_power_cut_at_every_step_of_release(self, host: HostFiles) -> None:
        """Wherever a release was cut off, the next life's release leaves the box as it was."""
        grant, before = await self.grant(self.make_plugin(host)), self.look(host)
        for steps in range(STEPS_MAX):
            plugin = self.make_plugin(host)
            await first(plugin)
            await prepared(plugin, grant)
            whole, _ = await self.cut(host, steps, _bare(grant), prepares=False)
            await released(self.make_plugin(host), _bare(grant))
            assert self.look(host) == before, f"cut at step {steps}"
            if whole:
                return
        raise AssertionError(f"release takes more than {STEPS_MAX} steps")

    # --- how it is done ---

    async def cut(self, host: HostFiles, steps: int, grant: Grant, prepares: bool) -> tuple[bool, Setup | None]:
        """Prepare or release in a life that ends after so many steps: whether it came to its end, and the setup."""
        cut = CutHost(host, steps)
        try:
            plugin = self.make_plugin(cut)
            await first(plugin)
            found = await prepared(plugin, grant) if prepares else None
            if not prepares:
                await released(plugin, grant)
        except PowerCut:
            return False, None
        return not cut.cut, found

    async def offered(self, plugin: DevicePlugin) -> list[Device]:
        """The devices of the class that can be had."""
        found = [device for device in (await first(plugin)).devices if device.offered]
        name = self.class_name or (found[0].name if found else "")
        of_class = [device for device in found if device.name == name]
        assert of_class, "the suite needs a host with a device that can be had"
        return of_class

    async def grant(self, plugin: DevicePlugin) -> Grant:
        """One device, for one task."""
        return self.make_grant("one", (await self.offered(plugin))[0])

    def make_grant(self, task_id: str, *devices: Device) -> Grant:
        """These devices, by one claim of the task."""
        key = TaskKey(FrameworkId("framework-1"), TaskId(task_id), LaunchId("launch-1"))
        given = (Given("claim", dict(self.config), devices),)
        return self.adapt(Grant(key, devices[0].name, given, self.executor, app="app"))


def _bare(grant: Grant) -> Grant:
    """As a release has it: after a crash nobody knows more."""
    return replace(grant, cpus=(), network="")


def _ids(inventory: Inventory) -> list[tuple[str, str, bool]]:
    return [(device.name, device.id, device.shared) for device in inventory.devices]


async def first(plugin: DevicePlugin) -> Inventory:
    """The first inventory of one that watches from now on."""
    async with asyncio.timeout(DEADLINE_S), aclosing(cast(Any, plugin.watch())) as inventories:
        async for inventory in inventories:
            return cast(Inventory, inventory)
    raise AssertionError("watch ended; it never does")


async def prepared(plugin: DevicePlugin, grant: Grant) -> Setup:
    """With a deadline."""
    async with asyncio.timeout(DEADLINE_S):
        return await plugin.prepare(grant)


async def released(plugin: DevicePlugin, grant: Grant) -> None:
    """With a deadline."""
    async with asyncio.timeout(DEADLINE_S):
        await plugin.release(grant)

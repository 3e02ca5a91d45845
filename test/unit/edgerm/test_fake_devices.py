"""The fake device plugin passes the suite of plugins, and no plugin with a bug does."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from edgerm.core.devices import Device, DeviceClass, Inventory
from edgerm.core.errors import Conflict, Invalid
from edgerm.plugin.device import DevicePlugin, Grant, HostFiles, Setup
from edgerm.testing.conformance.device import DevicePluginSuite, first
from edgerm.testing.devices import NAME, FakeDevices, create, fakes
from edgerm.testing.hostfs import RecordedHost

OWNER = "/sys/class/fake/{}/owner"
SCHEMA = json.dumps({"type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"]})


class TestFakeDevices(DevicePluginSuite):
    """The fake as its entry point makes it."""

    def make_plugin(self, host: HostFiles) -> DevicePlugin:
        return create({"ids": ["one", "two"]}, host)


@dataclass
class Owned(FakeDevices):
    """A fake that writes who owns a device into a file of the box: it has something to undo."""

    async def prepare(self, grant: Grant) -> Setup:
        for given in grant.given:
            if given.config.get("mode", "rw") not in ("ro", "rw"):
                raise Invalid(f"claim {given.claim!r}: mode is ro or rw")
        setup = await super().prepare(grant)
        for device in grant.devices:
            self.host.write(OWNER.format(device.id), grant.task.task_id)
        return setup

    async def release(self, grant: Grant) -> None:
        for device_id in self.held.get(f"{grant.task} {grant.name}", ()):
            self.host.write(OWNER.format(device_id), "")
        await super().release(grant)


def owned(host: HostFiles) -> Owned:
    devices = fakes("one", "two", metadata='{"size":1}')
    return Owned(Inventory((DeviceClass(NAME, config_keys=("mode",), schema=SCHEMA),), devices), host)


class OwnedSuite(DevicePluginSuite):
    """On a box with two files."""

    config: ClassVar[Mapping[str, object]] = {"mode": "ro"}
    wrong_configs: ClassVar[tuple[Mapping[str, object], ...]] = ({"mode": "wr"}, {"mode": 3})
    plugin: ClassVar[Callable[[HostFiles], DevicePlugin]] = staticmethod(owned)

    def make_host(self, path: Path) -> HostFiles:
        return RecordedHost(files={OWNER.format("one"): "", OWNER.format("two"): ""})

    def make_plugin(self, host: HostFiles) -> DevicePlugin:
        return type(self).plugin(host)


class TestOwned(OwnedSuite):
    """With all of it right."""


# --- what a plugin may do wrong: what it does, and the test that finds it -----------------------------------------


class Buggy(Owned):
    """One that is right, to be made wrong."""

    def __init__(self, host: HostFiles) -> None:
        right = owned(host)
        super().__init__(right.inventory, host)


class NoClasses(Buggy):
    async def watch(self) -> AsyncIterator[Inventory]:
        yield Inventory()


class Ends(Buggy):
    async def watch(self) -> AsyncIterator[Inventory]:
        if not self.inventory.devices:
            yield self.inventory


class BadId(Buggy):
    async def watch(self) -> AsyncIterator[Inventory]:
        yield replace(self.inventory, devices=(*self.inventory.devices, Device(NAME, "a b", metadata='{"size":1}')))


class OtherIds(Buggy):
    lives = 0

    async def watch(self) -> AsyncIterator[Inventory]:
        OtherIds.lives += 1
        yield replace(self.inventory, devices=fakes(f"dev{self.lives}", "two", metadata='{"size":1}'))


class NoSchema(Buggy):
    async def watch(self) -> AsyncIterator[Inventory]:
        yield replace(self.inventory, devices=fakes("one", "two", metadata='{"size":"big"}'))


class Relative(Buggy):
    async def prepare(self, grant: Grant) -> Setup:
        return replace(await super().prepare(grant), cpus=(3, 1))


class Counts(Buggy):
    """A second prepare is not the first."""

    async def prepare(self, grant: Grant) -> Setup:
        setup = await super().prepare(grant)
        return replace(setup, env=(*setup.env, ("NUMBER", str(len(self.calls)))))


class RefusesTwice(Buggy):
    """Takes its own note of before for somebody else's."""

    async def prepare(self, grant: Grant) -> Setup:
        if self.held:
            raise Conflict("taken")
        return await super().prepare(grant)


class Forgets(Buggy):
    """Knows in memory only what it prepared."""

    async def release(self, grant: Grant) -> None:
        if any(call[0] == "prepare" for call in self.calls):
            await super().release(grant)


class Leaves(Buggy):
    async def release(self, grant: Grant) -> None:
        self.host.notes.drop(f"{grant.task} {grant.name}")


class Unknown(Buggy):
    async def release(self, grant: Grant) -> None:
        if f"{grant.task} {grant.name}" not in self.held:
            raise KeyError(grant.name)
        await super().release(grant)


class Sweeps(Buggy):
    """Releases what others have."""

    async def release(self, grant: Grant) -> None:
        await super().release(grant)
        for device in self.inventory.devices:
            self.host.write(OWNER.format(device.id), "")


class TakesAnything(Buggy):
    """Looks at no value of a config."""

    async def prepare(self, grant: Grant) -> Setup:
        return await super().prepare(replace(grant, given=tuple(replace(each, config={}) for each in grant.given)))


class TooLate(Buggy):
    """Does it, then notes it: what a power cut between the two leaves behind."""

    async def prepare(self, grant: Grant) -> Setup:
        for device in grant.devices:
            if device not in self.inventory.devices:
                raise Conflict("not there")
            self.host.write(OWNER.format(device.id), grant.task.task_id)
        return await super().prepare(grant)


class TooEarly(Buggy):
    """Forgets its note, then undoes it."""

    async def release(self, grant: Grant) -> None:
        ids = self.held.get(f"{grant.task} {grant.name}", ())
        await FakeDevices.release(self, grant)
        for device_id in ids:
            self.host.write(OWNER.format(device_id), "")


class GivesAnything(Buggy):
    """Prepares what it does not have."""

    async def prepare(self, grant: Grant) -> Setup:
        self.inventory = replace(self.inventory, devices=(*self.inventory.devices, *grant.devices))
        return await super().prepare(grant)


BUGS = [
    (NoClasses, "test_an_inventory_is_whole_at_once"),
    (Ends, "test_an_inventory_is_whole_at_once"),
    (BadId, "test_an_inventory_is_whole_at_once"),
    (OtherIds, "test_devices_stay_the_same"),
    (NoSchema, "test_metadata_keep_to_their_schema"),
    (Relative, "test_a_setup_is_plain"),
    (Counts, "test_prepare_may_be_repeated"),
    (RefusesTwice, "test_prepare_may_be_repeated"),
    (Forgets, "test_release_may_be_repeated"),
    (Leaves, "test_a_released_device_is_clean"),
    (Unknown, "test_an_unknown_grant_is_released"),
    (Sweeps, "test_tasks_do_not_meet"),
    (TakesAnything, "test_a_wrong_config_leaves_nothing"),
    (GivesAnything, "test_a_device_that_is_not_there"),
    (TooLate, "test_a_power_cut_at_every_step_of_prepare"),
    (TooEarly, "test_a_power_cut_at_every_step_of_release"),
]


async def failing(suite: DevicePluginSuite, path: Path) -> set[str]:
    """The tests of the suite that this one does not pass."""
    found = set()
    for name, test in inspect.getmembers(suite, inspect.iscoroutinefunction):
        if not name.startswith("test_"):
            continue
        for more in (
            ({"repeats": False}, {"repeats": True}) if "repeats" in inspect.signature(test).parameters else ({},)
        ):
            try:
                await test(suite.make_host(path), **more)
            except (Exception, pytest.fail.Exception):
                found.add(name)
    return found


@pytest.mark.parametrize(("bug", "finder"), BUGS, ids=[bug.__name__ for bug, _ in BUGS])
async def test_a_bug_is_found(bug: Callable[[HostFiles], DevicePlugin], finder: str, tmp_path: Path) -> None:
    """A plugin that breaks one promise fails the test of that promise."""
    suite = type("Suite", (OwnedSuite,), {"plugin": staticmethod(bug)})()
    assert finder in await failing(suite, tmp_path)


async def test_every_promise_is_broken_by_some_bug(tmp_path: Path) -> None:
    """No test of the suite is one that nothing fails, and the right plugin fails none."""
    tests = {name for name, _ in inspect.getmembers(DevicePluginSuite, inspect.isfunction) if name.startswith("test_")}
    assert {finder for _, finder in BUGS} == tests
    assert await failing(OwnedSuite(), tmp_path) == set()


async def test_the_fake_does_as_it_is_told(tmp_path: Path) -> None:
    """It says that it is a fake, keeps a ledger, tells of changes, and fails when it is told to."""
    plugin = create({}, RecordedHost())
    found = await first(plugin)
    assert all(device.fake for device in found.devices)
    grant = TestFakeDevices().make_grant("t", found.devices[1])
    assert (await plugin.prepare(grant)).env == (("FAKE_DEVICES", "two"),)
    assert list(plugin.held.values()) == [("two",)]
    plugin.failures.release = RuntimeError("stuck")
    with pytest.raises(RuntimeError):
        await plugin.release(grant)
    assert [call[0] for call in plugin.calls] == ["prepare", "release"]
    inventories = plugin.watch()
    assert await anext(inventories) == found
    plugin.set_problem("one", "ill")
    assert [device.problem for device in (await anext(inventories)).devices] == ["ill", ""]
    plugin.fail(OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        await anext(inventories)
    with pytest.raises(Invalid, match="write a list of texts"):
        create({"ids": 3}, RecordedHost())

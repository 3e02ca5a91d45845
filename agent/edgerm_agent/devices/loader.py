"""Which device plugins this agent has: the built-in ones that are of use here, and installed ones.

An installed plugin is an entry point of the group `edgerm.devices`: `create(config, host)`, with `config` from
`[devices.plugins.NAME]`; `enabled = false` there leaves it out. What does not live here: plugins in processes of their
own, and what plugins do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, cast

from edgerm import logs
from edgerm.core.devices import DeviceClass, Inventory
from edgerm.core.errors import Conflict, Invalid
from edgerm.plugin.checking import gone
from edgerm.plugin.device import DevicePlugin, HostFiles
from edgerm_agent import config
from edgerm_agent.devices.manager import CORES, NETWORKS, Devices

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "edgerm.devices"
EXTRA = "its library is not installed: pip install 'edgerm[{}]'"

log = logs.get("agent.devices")


class WrongSettings(Invalid):
    """The operator asks a plugin for what cannot be."""


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A plugin of ours: `create(settings, host)` of its module, where `settings` is `[devices.NAME]`."""

    name: str  # in the settings, and its module's
    classes: tuple[str, ...]
    useful: Callable[[config.Devices, HostFiles], bool]  # whether there is anything for it; else it is not imported
    tunes: bool = False  # create has `dynamic_tuning: bool` too, from `[devices]`
    extra: str = ""  # of pyproject.toml, with the library that it needs

    def wanted(self, settings: config.Devices, host: HostFiles) -> bool:
        """Also if it has something left to undo that it noted in an earlier life of the agent."""
        enabled = getattr(getattr(settings, self.name), "enabled", True)
        return enabled and (self.useful(settings, host) or _has_notes(host))

    def create(self, settings: config.Devices, host: HostFiles) -> DevicePlugin:
        """Raises whatever keeps it from working."""
        its = getattr(settings, self.name)
        more = {"dynamic_tuning": settings.dynamic_tuning} if self.tunes else {}
        return cast(DevicePlugin, import_module(f"{__package__}.{self.name}").create(its, host, **more))


def _has_notes(host: HostFiles) -> bool:
    """Also if they cannot be read: then that is told where they are needed."""
    try:
        return bool(host.notes.keys())
    except OSError:
        return True


def _isolated(settings: config.Devices, host: HostFiles) -> bool:
    if settings.cpu.isolated or settings.cpu.fake:
        return True
    try:
        return bool(host.read("/sys/devices/system/cpu/isolated").strip())
    except OSError:
        return False


def _has_gpu(settings: config.Devices, host: HostFiles) -> bool:
    return bool(settings.gpu.fake) or host.exists("/proc/driver/nvidia/version") or host.exists("/dev/nvidiactl")


BUILT_IN = (
    BuiltIn("declared", (), lambda its, host: bool(its.declared)),
    BuiltIn("cpu", (CORES,), _isolated, tunes=True),
    BuiltIn("nic", (NETWORKS,), lambda its, host: bool(its.nic.interfaces), True, "net"),
    BuiltIn("gpu", ("nvidia.com/gpu",), _has_gpu, extra="gpu"),
    BuiltIn(
        "shm",
        ("siemens.com/shared_memory",),
        lambda its, host: bool(its.shm.memories),
    ),
    BuiltIn("gpio", ("siemens.com/gpio",), lambda its, host: bool(its.gpio.chips), extra="gpio"),
    BuiltIn(
        "hotplug",
        ("edgerm.io/serial", "edgerm.io/usb", "edgerm.io/camera"),
        lambda its, host: bool(its.hotplug.devices),
        extra="hotplug",
    ),
)
"""In this order they may be asked first for what two of them carry."""


@dataclass(frozen=True, slots=True)
class Made:
    """A plugin that these settings want: it, or why it cannot be made. `classes`: as far as that is known already."""

    name: str
    classes: tuple[str, ...] = ()
    plugin: DevicePlugin | None = None
    problem: str = ""


def make(settings: config.Devices, host_of: Callable[[str], HostFiles]) -> Iterator[Made]:
    """All plugins that these settings want; `host_of`: a plugin's door to the box, by its name.

    Raises `WrongSettings` for settings that are the reason why one cannot be made.
    """
    for each in BUILT_IN:
        host = host_of(each.name)
        if each.wanted(settings, host):
            yield _made(each.name, each.classes, each.extra, partial(each.create, settings, host))
    installed = _installed(host_of(GROUP))
    _check_names(settings.plugins, installed)
    for name, entry in sorted(installed.items()):
        its = dict(settings.plugins.get(name, {}))
        if its.pop("enabled", True):
            yield _made(name, (), "", partial(_create, entry, its, host_of))


def load(settings: config.Devices, host_of: Callable[[str], HostFiles], devices: Devices) -> None:
    """Make all plugins that these settings want, and add them. Raises `WrongSettings`.

    One that cannot be made is told in the log, and its classes have that problem.
    """
    for made in make(settings, host_of):
        _add(devices, made)


def load_shm(settings: config.Devices, host_of: Callable[[str], HostFiles], devices: Devices) -> None:
    """Make the plugin of shared memories while the agent runs, because somebody makes the first. Raises `Conflict`."""
    if not settings.shm.enabled:
        raise Conflict("devices.shm.enabled is false: this agent has no shared memories")
    each = next(each for each in BUILT_IN if each.name == "shm")
    _add(devices, _made(each.name, each.classes, each.extra, partial(each.create, settings, host_of(each.name))))


def _made(name: str, classes: tuple[str, ...], extra: str, create: Callable[[], DevicePlugin]) -> Made:
    try:
        plugin = create()
    except Invalid as error:
        raise WrongSettings(f"device plugin {name}: {error}") from error
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and extra
        why = EXTRA.format(extra) if missing else f"its plugin cannot be made: {error or type(error).__name__}"
        log.error("a device plugin cannot be made", plugin=name, error=why, exc_info=None if missing else error)
        return Made(name, classes, problem=why)
    if plugin.name != name:
        why = f"its plugin calls itself {plugin.name!r:.80}, and its entry point {name!r}"
        log.error("a device plugin has another name than its entry point", plugin=plugin.name, entry_point=name)
        return Made(name, classes, problem=why)
    return Made(name, classes, plugin)


def _add(devices: Devices, made: Made) -> None:
    if made.plugin is not None:
        devices.add(made.plugin, made.classes)
    else:
        devices.missing(made.name, gone(Inventory(tuple(map(DeviceClass, made.classes))), made.problem))


def _create(entry: EntryPoint, its: Mapping[str, object], host_of: Callable[[str], HostFiles]) -> DevicePlugin:
    return cast(DevicePlugin, entry.load()(its, host_of(entry.name)))


def _installed(host: HostFiles) -> Mapping[str, EntryPoint]:
    """By name. What knows entry points takes a megabyte, which most agents never need: first a look by ourselves."""
    if not any(_mentions(host, folder) for folder in sys.path if folder):
        return {}
    from importlib.metadata import entry_points  # noqa: PLC0415 - see above

    return {each.name: each for each in entry_points(group=GROUP)}


def _mentions(host: HostFiles, folder: str) -> bool:
    """Whether something installed there has an entry point of ours."""
    for name in _names(host, folder):
        if name.endswith((".dist-info", ".egg-info")):
            with suppress(OSError):
                if f"[{GROUP}]" in host.read(f"{folder}/{name}/entry_points.txt"):
                    return True
    return False


def _names(host: HostFiles, folder: str) -> tuple[str, ...]:
    try:
        return host.names(folder)
    except OSError:  # a zip, or a folder that is not there
        return ()


def _check_names(asked: Mapping[str, Mapping[str, object]], installed: Mapping[str, EntryPoint]) -> None:
    for name, its in asked.items():
        enabled = its.get("enabled", True)
        if not isinstance(enabled, bool):
            raise WrongSettings(f"devices.plugins.{name}.enabled = {enabled!r}: write true or false")
        if name not in installed and enabled:
            known = ", ".join(sorted(installed)) or "none is"
            raise WrongSettings(
                f"devices.plugins.{name}: no such plugin is installed ({known}): install it, or remove the table"
            )
    for name in installed.keys() & {each.name for each in BUILT_IN}:
        raise WrongSettings(f"an installed device plugin is called {name}, as one of ours: uninstall it")

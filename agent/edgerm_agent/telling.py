"""What this agent says of itself: put together from its parts, and anew when one of them changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgerm.core.devices import resources_of
from edgerm.core.resources import parse
from edgerm.core.scheduler import AgentSpec
from edgerm.wire.codec.infos import attributes_info
from edgerm_agent import attributes, host
from edgerm_agent.config import Config
from edgerm_agent.devices import declared
from edgerm_agent.devices.declared import DeclaredDevices


def check(settings: Config) -> None:
    """Raises `Invalid` for resources, attributes or devices that are none."""
    attributes_info("", attributes.parse(settings.attributes))
    declared.check(settings.devices.declared, parse(settings.resources))


class Telling:
    """`enforced`: what holds tasks to their limits, by executor and resource; it may change, as `devices` may.

    Raises `Invalid` as `check` does.
    """

    def __init__(
        self,
        settings: Config,
        data_path: Path,
        port: int,
        devices: DeclaredDevices,
        enforced: Mapping[str, Mapping[str, str]],
    ) -> None:
        self.enforced = enforced
        self._settings = settings
        self._devices = devices
        self._port = port
        self._hostname = host.hostname()
        self._kind = host.kind()
        self._given = attributes.parse(settings.attributes)
        self._plain = host.resources(settings.resources, host.detect(data_path))

    def spec(self) -> AgentSpec:
        """What holds now."""
        told = attributes.told(self._given, self.enforced, self._kind)
        devices = self._devices.devices
        return AgentSpec(
            hostname=self._hostname,
            name=self._settings.name or self._hostname,
            port=self._port,
            resources=self._plain + resources_of(devices),
            info=attributes_info(self._hostname, told, devices),
        )

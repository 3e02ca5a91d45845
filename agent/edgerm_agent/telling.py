"""What this agent says of itself: put together from its parts, and anew when one of them changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from edgerm.core.resources import parse
from edgerm.core.scheduler import AgentSpec
from edgerm.wire.codec.infos import attributes_info
from edgerm_agent import attributes, host
from edgerm_agent.config import Config
from edgerm_agent.devices import declared


def check(settings: Config) -> None:
    """Raises `Invalid` for resources, attributes or devices that are none."""
    attributes_info("", attributes.parse(settings.attributes))
    declared.check(settings.devices.declared, parse(settings.resources))


class Telling:
    """Its devices apart. `enforced`: what holds tasks to their limits, by executor and resource; it may change.

    `plain_cpus`: the CPUs that no device is made of. Raises `Invalid` as `check` does.
    """

    def __init__(
        self,
        settings: Config,
        data_path: Path,
        port: int,
        enforced: Mapping[str, Mapping[str, str]],
        plain_cpus: Collection[int] = (),
    ) -> None:
        self.enforced = enforced
        self._settings = settings
        self._port = port
        self._hostname = host.hostname()
        self._kind = host.kind()
        self._given = attributes.parse(settings.attributes)
        self._plain = host.resources(settings.resources, host.detect(data_path, plain_cpus))

    def spec(self) -> AgentSpec:
        """What holds now."""
        told = attributes.told(self._given, self.enforced, self._kind)
        return AgentSpec(
            hostname=self._hostname,
            name=self._settings.name or self._hostname,
            port=self._port,
            resources=self._plain,
            info=attributes_info(self._hostname, told),
        )

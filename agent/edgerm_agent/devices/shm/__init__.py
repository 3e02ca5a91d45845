"""Shared memories: `memory` reads settings and claims, `mounts` makes the tmpfs, `memories` has all of them."""

from edgerm_agent.devices.shm.plugin import create

__all__ = ["create"]

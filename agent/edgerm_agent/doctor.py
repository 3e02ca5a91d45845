"""What this box can do and why not, for `edgerm doctor`. Changes nothing but for the probe in a data directory."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from edgerm.core.errors import Conflict, EdgermError
from edgerm.core.resources import parse, to_text
from edgerm.store.datadir import DataDir
from edgerm_agent import attributes, engines, host
from edgerm_agent.config import Config, Docker
from edgerm_agent.devices.declared import check as check_devices
from edgerm_agent.devices.declared import look
from edgerm_agent.executors.wasm import find_problem
from edgerm_agent.roster import NO_PACKAGE, limits_here, process_problem

WITHOUT_GROUPS = "run the agent as root, or in a systemd unit with Delegate=yes, to have limits enforced by the kernel"


class Line(NamedTuple):
    """One answer."""

    what: str
    well: bool
    remedy: str  # what is to be done; empty if it is well


def check(settings: Config) -> list[tuple[str, bool, str]]:
    """Every line, in the order in which a person would look."""
    kinds = [_wasm(), _process(settings), _docker(settings.executors.docker)]
    lines = [_python(), _data(settings.data_path), *kinds, *_limits(), _resources(settings), *_devices(settings)]
    return [(line.what, line.well, line.remedy) for line in lines]


def _python() -> Line:
    return Line(f"Python {sys.version.split()[0]}", sys.version_info >= (3, 11), "install Python 3.11 or newer")


def _data(path: Path) -> Line:
    what = f"data directory {path}"
    if not path.exists():
        return Line(f"{what} (made at the first start)", True, "")
    try:
        DataDir.open(path, "agent").close()
    except Conflict:
        return Line(f"{what}: in use by a running agent", True, "")
    except EdgermError as error:
        return Line(what, False, str(error))
    return Line(what, True, "")


def _wasm() -> Line:
    problem = find_problem()
    return Line("WASM tasks", problem is None, problem or "")


def _process(settings: Config) -> Line:
    problem = process_problem(settings.executors.process)
    return Line("process tasks", problem is None, problem or "")


def _docker(settings: Docker) -> Line:
    """Many boxes have no engine, and that is well."""
    if not settings.enabled:
        return Line("containers (off: executors.docker.enabled is false)", True, "")
    address = settings.address
    if not engines.is_there(address):
        return Line(f"containers (none: there is no Docker engine at {address})", True, "")
    what = f"containers, by the Docker engine at {address}"
    if (problem := engines.problem(address)) is not None:
        return Line(what, False, problem)
    if find_spec("docker") is None:
        return Line(what, False, NO_PACKAGE)
    if not engines.answers(address):
        return Line(what, False, "it does not answer: start it, or set executors.docker.enabled = false")
    return Line(what, True, "")


def _limits() -> list[Line]:
    cgroups = limits_here()
    cgroups.discard()
    names = {"cpus": "CPU limits", "mem": "memory limits of processes"}
    enforced = cgroups.enforced()
    return [
        Line(f"{names.get(name, name)}: {holder}", holder != "none", "" if holder != "none" else WITHOUT_GROUPS)
        for name, holder in enforced.items()
    ]


def _devices(settings: Config) -> list[Line]:
    declared = settings.devices.declared
    try:
        check_devices(declared, parse(settings.resources))
    except EdgermError as error:
        return [Line("devices", False, str(error))]
    return [
        Line(f"device {device.id} of {device.name}", not device.problem, device.problem) for device in look(declared)
    ]


def _resources(settings: Config) -> Line:
    try:
        attributes.parse(settings.attributes)
        there = settings.data_path
        while not there.exists():
            there = there.parent
        found = host.resources(settings.resources, host.detect(there))
    except EdgermError as error:
        return Line("resources and attributes", False, str(error))
    return Line(f"resources {to_text(found)}", True, "")

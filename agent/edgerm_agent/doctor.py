"""What this box can do and why not, for `edgerm doctor`. Changes nothing but for the probe in a data directory."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from edgerm.core.errors import Conflict, EdgermError
from edgerm.core.resources import parse, to_text
from edgerm.store.datadir import DataDir
from edgerm.transport.local import Object, ask
from edgerm_agent import attributes, engines, host
from edgerm_agent.config import Config, Docker
from edgerm_agent.devices.declared import check as check_devices
from edgerm_agent.executors.wasm import find_problem
from edgerm_agent.roster import NO_PACKAGE, limits_here, process_problem
from edgerm_agent.survey import survey

WITHOUT_GROUPS = "run the agent as root, or in a systemd unit with Delegate=yes, to have limits enforced by the kernel"
NO_MOUNT = "only an agent that runs as root can mount it"
ASK_S = 10.0


class Line(NamedTuple):
    """One answer."""

    what: str
    well: bool
    remedy: str  # what is to be done; empty if it is well


def check(settings: Config) -> list[tuple[str, bool, str]]:
    """Every line, in the order in which a person would look."""
    kinds = [_wasm(), _process(settings), _docker(settings.executors.docker)]
    devices, plain_cpus = _devices(settings)
    lines = [_python(), _data(settings.data_path), *kinds, *_limits(), _resources(settings, plain_cpus), *devices]
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


def _devices(settings: Config) -> tuple[list[Line], tuple[int, ...]]:
    """Each device and what keeps it from being had; and the CPUs that no device is made of, none: all of them."""
    try:
        check_devices(settings.devices.declared, parse(settings.resources))
        found = asyncio.run(survey(settings.devices, settings.data_path))
    except EdgermError as error:
        return [Line("devices", False, str(error))], ()
    plugins = [Line(f"device plugin {name}", False, problem) for name, problem in found.problems.items()]
    told = asyncio.run(_ask(settings.data_path))
    if told is not None:
        return [*plugins, *_told(told)], found.plain_cpus
    there = {device.name for device in found.inventory.devices}
    without = [_class(each.name, each.problem) for each in found.inventory.classes if each.name not in there]
    devices = [_device(each.name, each.id, each.fake, each.problem) for each in found.inventory.devices]
    return [*plugins, *without, *_memories(settings), *devices], found.plain_cpus


async def _ask(data_path: Path) -> Object | None:
    """What an agent that runs has; it knows better than a look from outside. None: none runs."""
    try:
        async with asyncio.timeout(ASK_S):
            return await ask(data_path, "devices")
    except (EdgermError, TimeoutError):
        return None


def _told(answer: Object) -> list[Line]:
    classes = [_class(each["class"], each["problem"]) for each in answer["classes"]]
    rows = answer["devices"]
    return [*classes, *(_device(r["class"], r["id"], r["fake"], r["quarantine"] or r["problem"]) for r in rows)]


def _class(name: str, problem: str) -> Line:
    return Line(f"devices of {name}" + ("" if problem else ": none is here"), not problem, problem)


def _device(name: str, device_id: str, fake: bool, problem: str) -> Line:
    return Line(f"device {device_id} of {name}" + (" (a fake)" if fake else ""), not problem, problem)


def _memories(settings: Config) -> list[Line]:
    """They are made by the agent, which does not run."""
    wanted = settings.devices.shm.memories if settings.devices.shm.enabled else ()
    what = "shared memory {} of {} (mounted at the agent's start)"
    well = os.geteuid() == 0
    return [Line(what.format(each.name, each.size), well, "" if well else NO_MOUNT) for each in wanted]


def _resources(settings: Config, plain_cpus: Collection[int]) -> Line:
    try:
        attributes.parse(settings.attributes)
        there = settings.data_path
        while not there.exists():
            there = there.parent
        found = host.resources(settings.resources, host.detect(there, plain_cpus))
    except EdgermError as error:
        return Line("resources and attributes", False, str(error))
    return Line(f"resources {to_text(found)}", True, "")

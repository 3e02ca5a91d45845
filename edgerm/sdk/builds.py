"""`Build`: one of several builds of a task, as `alternatives` of `run` and `launch` take them.

What does not live here: which one is taken (`edgerm.core.alternatives`), how a build becomes a task (`cluster`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from edgerm.core.alternatives import ALTERNATIVES_MAX
from edgerm.core.constraints import Constraint
from edgerm.core.errors import Invalid
from edgerm.sdk.claims import Claims
from edgerm.sdk.containers import Ports
from edgerm.sdk.devices import Devices
from edgerm.sdk.options import check_list, check_names

KINDS = ("wasm", "process", "docker")
OF_CONTAINERS = ("volumes", "network")


class Build(TypedDict, total=False):
    """One build: `Build(wasm="m.wasm", constraints=["arch=arm64"])`.

    Of `wasm`, `process` and `docker` it needs one. What else it does not say, the task's own options say.
    """

    name: str  # of the build; without one it is called by its kind
    wasm: bytes | Path | str
    process: Sequence[str]
    docker: str
    args: Sequence[str]
    env: Mapping[str, str]  # in place of the task's
    cpus: float
    mem: float  # MiB
    disk: float  # MiB
    ports: int | Ports
    devices: Devices
    claims: Claims  # in place of the task's
    volumes: Sequence[str]
    network: str | None
    constraints: Sequence[str | Constraint]  # beside the task's


def spelt_out(options: Mapping[str, Any], builds: Sequence[Build]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and the whole options of each build of the task with these options. Raises `Invalid`."""
    if any(kind in options for kind in KINDS):
        raise Invalid(f"a task with alternatives has no {', '.join(KINDS)} of its own: write Build(…) for each")
    if isinstance(builds, Mapping):
        raise Invalid("alternatives are a list of builds, not one Build")
    if not 0 < len(builds) <= ALTERNATIVES_MAX:
        raise Invalid(f"{len(builds)} alternatives: 1 to {ALTERNATIVES_MAX} are possible")
    common = {name: value for name, value in options.items() if name != "alternatives"}
    names: list[str] = []
    for build in builds:
        check_names(build, Build.__annotations__)
        kinds = [kind for kind in KINDS if kind in build]
        if len(kinds) != 1:
            raise Invalid("a build needs one of wasm=MODULE, process=[PROGRAM, …] and docker=IMAGE")
        rest = common if "docker" in build else {key: common[key] for key in common if key not in OF_CONTAINERS}
        names.append(build.get("name") or _free_name(kinds[0], names))
        own = {key: value for key, value in build.items() if key != "name"}
        check_list("constraints", build.get("constraints", ()))
        own["constraints"] = [*common.get("constraints", ()), *build.get("constraints", ())]
        yield names[-1], {**rest, **own}


def _free_name(kind: str, names: Sequence[str]) -> str:
    number = 1
    while (name := kind if number == 1 else f"{kind}-{number}") in names:
        number += 1
    return name

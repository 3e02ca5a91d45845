"""`edgerm run`: one task, as if it ran here: its output, its exit status, Ctrl-C.

What does not live here: placing it (`edgerm.sdk`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from edgerm.cli.asking import fail, master_option, with_remedy
from edgerm.cli.claiming import claim_options, read_options

if TYPE_CHECKING:
    from edgerm.sdk.cluster import TaskOptions

EDGERM_FAILED = 125  # as `env` and `docker run` have it


@click.command(
    "run",
    short_help="Run one task, and end with its exit status.",
    context_settings={"allow_interspersed_args": False},
)
@click.option("--wasm", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE", help="A module.")
@click.option("--process", is_flag=True, help="A program that is on the agent's box: the first ARG.")
@click.option("--docker", metavar="IMAGE", help="A container; ARGs take the place of what the image would run.")
@click.option(
    "--port",
    "ports",
    multiple=True,
    metavar="H:C[/udp]",
    help="Port H of the box, one of those that agents give, leads to C in the container; C alone: any of them does.",
)
@click.option(
    "--volume",
    "volumes",
    multiple=True,
    metavar="SRC:DST[:ro]",
    help="The container sees SRC at DST: a path of the box, if its operator allows it, a volume's name, or ./PATH.",
)
@click.option(
    "--network",
    metavar="host|bridge|none|NAME",
    help="The container's network; by default host, the box's own, as in Mesos, and bridge with --port.",
)
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="NAME[=ID]",
    help="A device that agents declare under NAME: any, or this one. May stand several times.",
)
@claim_options
@click.option(
    "--constraint",
    "constraints",
    multiple=True,
    metavar="ATTR=VALUE",
    help="Run it only where this holds of the agent; also ATTR!=VALUE, ATTR~REGEX, ATTR!~REGEX, ATTR, !ATTR. "
    "ATTR may be @hostname, @name, @agent, @zone or @region. May stand several times: all must hold.",
)
@click.option("--name", metavar="NAME", help="What people call the task; its id begins so.")
@click.option("--cpus", type=click.FloatRange(min=0.001), default=0.1, show_default=True, metavar="C", help="CPUs.")
@click.option("--mem", type=click.FloatRange(min=1), default=32, show_default=True, metavar="MIB", help="Memory.")
@click.option("--env", multiple=True, metavar="K=V", help="A variable of its environment; may stand several times.")
@click.option("-i", "--interactive", is_flag=True, help="Its standard input goes on with this one's, until its end.")
@click.option("--input", "stdin", type=click.File("rb"), metavar="FILE", help="Its standard input; - is this one's.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), metavar="S", help="At most so long."
)
@click.option("--detach", is_flag=True, help="Print the task's id once it runs, and leave it alone.")
@click.argument("args", nargs=-1)
@master_option
def command(
    wasm: Path | None,
    process: bool,
    docker: str | None,
    ports: tuple[str, ...],
    volumes: tuple[str, ...],
    network: str | None,
    devices: tuple[str, ...],
    claims: tuple[str, ...],
    claim_file: Path | None,
    constraints: tuple[str, ...],
    name: str | None,
    cpus: float,
    mem: float,
    env: tuple[str, ...],
    interactive: bool,
    stdin: BinaryIO | None,
    timeout_s: float | None,
    detach: bool,
    args: tuple[str, ...],
    master: str,
) -> None:
    """Run one task: `edgerm run --wasm module.wasm -- 1 2`, `edgerm run --process -- ls -l`, `edgerm run --docker
    nginx --port 31080:80`.

    Its output comes here while it runs. Ctrl-C ends it, and waits until it has ended. The exit status is the task's;
    128+N if signal N ended it, 124 if it took longer than --timeout, 134 for a module that trapped, and 125 if edgerm
    itself failed. A detached task stays until it ends or is killed; its framework is waited for a year.
    """
    if (wasm is not None) + process + (docker is not None) != 1:
        raise click.UsageError("use one of --wasm FILE, --process and --docker IMAGE")
    if docker is None and (ports or volumes or network):
        raise click.UsageError("--port, --volume and --network are for containers: use them with --docker IMAGE")
    if interactive and detach:
        raise click.UsageError("--interactive needs somebody who writes: use it without --detach")
    _check(ports, volumes, devices, constraints)
    if process and not args:
        raise click.UsageError("--process needs a program: edgerm run --process -- PROGRAM [ARG]…")
    options: TaskOptions = {"cpus": cpus, "mem": mem, "env": _variables(env), "timeout_s": timeout_s}
    if wasm is not None:
        options["wasm"], options["args"], called = wasm, args, wasm.stem
    elif docker is not None:
        options["docker"], options["args"], called = docker, args, _image_name(docker)
        options["ports"], options["volumes"], options["network"] = ports, volumes, network
    else:
        options["process"], called = args, Path(args[0]).name
    options["name"] = name or called
    options["devices"], options["constraints"] = devices, constraints
    options["claims"] = read_options(claims, claim_file)
    if stdin is not None:
        options["input"] = stdin.read()
    options["stdin_open"] = interactive
    raise SystemExit(_go(master, detach, options))


def _check(
    ports: tuple[str, ...], volumes: tuple[str, ...], devices: tuple[str, ...], constraints: tuple[str, ...]
) -> None:
    from edgerm.core.constraints import parse_constraint  # noqa: PLC0415
    from edgerm.core.errors import Invalid  # noqa: PLC0415
    from edgerm.sdk.containers import parse_port, parse_volume  # noqa: PLC0415
    from edgerm.sdk.devices import parse_device  # noqa: PLC0415

    options: tuple[tuple[str, tuple[str, ...], Callable[[str], object]], ...] = (
        ("--port", ports, parse_port),
        ("--volume", volumes, parse_volume),
        ("--device", devices, parse_device),
        ("--constraint", constraints, parse_constraint),
    )
    for hint, texts, parse in options:
        try:
            for text in texts:
                parse(text)
        except Invalid as error:
            raise click.BadParameter(str(error), param_hint=hint) from None


def _image_name(image: str) -> str:
    """What people call it: `here.example/a/nginx:1.25` is nginx."""
    return image.rpartition("/")[2].partition("@")[0].partition(":")[0] or "container"


def _variables(pairs: tuple[str, ...]) -> dict[str, str]:
    for pair in pairs:
        if not pair.partition("=")[1] or pair.startswith("="):
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--env")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def _go(master: str, detach: bool, options: TaskOptions) -> int:
    import asyncio  # noqa: PLC0415

    from edgerm.cli.attending import Wish, run  # noqa: PLC0415
    from edgerm.core.errors import EdgermError  # noqa: PLC0415
    from edgerm.requests import begin_request  # noqa: PLC0415

    begin_request()
    try:
        return asyncio.run(run(Wish(master, detach, options)))
    except EdgermError as error:
        fail(with_remedy(error), EDGERM_FAILED)
    except KeyboardInterrupt:  # before there was a task
        return 130

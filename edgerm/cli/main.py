"""The root of the command `edgerm`: which subcommands there are. Each is imported when it is used, or listed."""

from __future__ import annotations

from importlib import import_module
from typing import NoReturn

import click

_COMMANDS = {
    "master": "edgerm.cli.master:command",
    "agent": "edgerm.cli.agent:command",
    "up": "edgerm.cli.up:command",
    "run": "edgerm.cli.run:command",
    "ps": "edgerm.cli.listing:ps",
    "agents": "edgerm.cli.listing:agents",
    "devices": "edgerm.cli.devices:command",
    "grant": "edgerm.cli.grant:command",
    "shm": "edgerm.cli.shm:command",
    "frameworks": "edgerm.cli.listing:frameworks",
    "offers": "edgerm.cli.listing:offers",
    "roles": "edgerm.cli.listing:roles",
    "watch": "edgerm.cli.watch:command",
    "logs": "edgerm.cli.logs:command",
    "kill": "edgerm.cli.kill:command",
    "drain": "edgerm.cli.drain:command",
    "explain": "edgerm.cli.explain:command",
    "doctor": "edgerm.cli.doctor:command",
    "completion": "edgerm.cli.completion:command",
}


class _Root(click.Group):
    """A group whose subcommands live in modules of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = _COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=_Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="edgerm", message="edgerm %(version)s")
@click.option("-v", "--verbose", is_flag=True, help="Say on stderr what is asked of the master, and as which request.")
def root(verbose: bool) -> None:
    """Share the computers at the edge among many schedulers.

    `edgerm up` starts a master and an agent on this machine to try things out; `edgerm run` runs one task.

    Exit status: 0 done, 1 failed, 2 wrong usage. Other commands find the master by --master or EDGERM_MASTER.
    """
    if verbose:
        import logging  # noqa: PLC0415

        logging.basicConfig(format="edgerm: %(message)s")
        logging.getLogger("edgerm.http").setLevel(logging.DEBUG)


def main() -> NoReturn:
    """The console script."""
    root(prog_name="edgerm")
    raise SystemExit(0)


if __name__ == "__main__":
    main()

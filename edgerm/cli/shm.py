"""`edgerm shm`: make, resize and end shared memories of an agent on this box while it runs."""

from __future__ import annotations

from pathlib import Path

import click

from edgerm.cli.asking import USAGE, ask_box, data_dir_option, fail


@click.group("shm", short_help="Make, resize and end shared memories on this box.")
def command() -> None:
    """Shared memories of the agent on this box (class siemens.com/shared_memory), beside those in its agent.toml.

    What is made here stays over restarts of the agent, and its contents until the box is started anew. A memory that a
    task has can neither be resized nor ended. `edgerm devices --data-dir DIR` lists them.
    """


@command.command("create", short_help="Make one.")
@click.argument("name")
@click.option("--size", required=True, metavar="SIZE", help="At most so much, such as 64M; nothing is reserved.")
@click.option("--label", "labels", multiple=True, metavar="LABEL", help="By which tasks find it; several may be given.")
@click.option(
    "--permit",
    "permits",
    multiple=True,
    metavar="APP=ro|rw",
    help="Who may have it, and how; '*' is anybody. Several may be given.  [*=rw]",
)
@data_dir_option
def create(name: str, size: str, labels: tuple[str, ...], permits: tuple[str, ...], data_dir: Path | None) -> None:
    """Make a shared memory, which tasks may claim at once."""
    permissions: dict[str, list[str]] = {}
    for permit in permits:
        app, equals, what = permit.rpartition("=")
        if not equals or not app:
            fail(f"--permit {permit!r}: write APP=ro or APP=rw", USAGE)
        permissions.setdefault(app, []).append(what)
    asked = {"permissions": permissions} if permissions else {}
    ask_box(data_dir, "create_memory", name=name, size=size, labels=list(labels), **asked)


@command.command("resize", short_help="Give one another size.")
@click.argument("name")
@click.option("--size", required=True, metavar="SIZE", help="At most so much from now on, such as 64M.")
@data_dir_option
def resize(name: str, size: str, data_dir: Path | None) -> None:
    """Give a shared memory that no task has another size. What is in it stays."""
    ask_box(data_dir, "resize_memory", name=name, size=size)


@command.command("delete", short_help="End one.")
@click.argument("name")
@data_dir_option
def delete(name: str, data_dir: Path | None) -> None:
    """End a shared memory that no task has, with all that is in it."""
    ask_box(data_dir, "delete_memory", name=name)

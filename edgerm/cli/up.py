"""`edgerm up`: a master and agents on this machine, until Ctrl-C. What does it is in `box`, imported when used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from edgerm.cli.asking import fail


@click.command("up", short_help="Start a master and agents on this machine, until Ctrl-C.")
@click.option(
    "--agents", "count", type=click.IntRange(1, 64), default=1, show_default=True, metavar="N", help="Agents."
)
@click.option("--http", default="127.0.0.1:0", show_default=True, metavar="HOST:PORT", help="Where the master listens.")
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Kept; else removed.")
@click.option("--process-user", metavar="USER", help="Whom process tasks run as; needed as root.")
@click.option("--lifeline", type=int, metavar="FD", hidden=True, help="Stop when this inherited pipe ends.")
def command(count: int, http: str, data_dir: Path | None, process_user: str | None, lifeline: int | None) -> None:
    """Start a master and N agents that share this machine, and print how to use them.

    Every second agent links over CoAP.

    The first line is for programs: `ready http=URL agents=N`. Ctrl-C, or any other end of this command, ends them and
    all their tasks. Without --data-dir nothing is left behind.
    """
    import asyncio  # noqa: PLC0415

    from edgerm.cli.box import Box, Failed  # noqa: PLC0415

    with _directory(data_dir) as directory:
        try:
            asyncio.run(Box(directory, count, http, process_user).run(lifeline))
        except Failed as error:
            fail(error)


@contextmanager
def _directory(given: Path | None) -> Iterator[Path]:
    """The given data directory, or one that is gone afterwards."""
    if given is not None:
        try:
            given.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            fail(f"cannot make {given}: {error.strerror}: choose another with --data-dir")
        yield given.absolute()
        return
    import shutil  # noqa: PLC0415
    import tempfile  # noqa: PLC0415

    directory = Path(tempfile.mkdtemp(prefix="edgerm-up-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)

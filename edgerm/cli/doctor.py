"""`edgerm doctor`: what this box can do and why not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module

import click

from edgerm.cli.asking import FAILED, master_option

Finding = tuple[str, bool, str]
"""What was looked at, whether it is well, and what is to be done if not."""


@click.command("doctor", short_help="Say what this box can do, and why not.")
@master_option
def command(master: str) -> None:
    """Look at Python, libraries, kernel features, the agent's data directory and the master. Leaves nothing behind.

    Exit status 1 if something is not well; each such line says what to do.
    """
    well = True
    for what, good, remedy in _findings(master):
        well = well and good
        click.echo(f"{'ok' if good else '--'}  {what}" + ("" if good else f": {remedy}"))
    if not well:
        raise SystemExit(FAILED)


def _findings(master: str) -> Iterator[Finding]:
    from importlib.metadata import version  # noqa: PLC0415

    yield f"edgerm {version('edgerm')} on Python {sys.version.split()[0]}", True, ""
    yield _protobuf()
    yield from _agent()
    yield _reachable(master)


def _protobuf() -> Finding:
    """Its C implementation is ten times as fast as the one in Python."""
    from importlib.metadata import version  # noqa: PLC0415

    kind: str = import_module("google.protobuf.internal.api_implementation").Type()
    remedy = "" if kind != "python" else "runs without its C part: install the wheel of protobuf for this platform"
    return f"protobuf {version('protobuf')} ({kind})", kind != "python", remedy


def _agent() -> Iterator[Finding]:
    from edgerm.core.errors import EdgermError  # noqa: PLC0415

    try:
        from edgerm_agent.main import check  # noqa: PLC0415
    except ImportError as error:
        yield "agent", False, f"{error.name} is missing: pip install 'edgerm[agent,wasm]'"
        return
    try:
        yield from check()
    except EdgermError as error:
        yield "agent's settings", False, str(error)


def _reachable(master: str) -> Finding:
    import asyncio  # noqa: PLC0415

    from edgerm.cli.asking import with_remedy  # noqa: PLC0415
    from edgerm.core.errors import EdgermError  # noqa: PLC0415
    from edgerm.transport.http_client import HttpClient  # noqa: PLC0415

    async def look() -> bytes:
        async with HttpClient(master) as client:
            return (await client.request("GET", "/version")).body

    try:
        return f"master {master}: {asyncio.run(look()).decode('utf-8', 'replace').strip()}", True, ""
    except EdgermError as error:
        return f"master {master}", False, with_remedy(error)

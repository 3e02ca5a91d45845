"""The command line as people call it, in a process of its own."""

from __future__ import annotations

import asyncio
import sys

EDGERM = (sys.executable, "-c", "from edgerm.cli.entry import main; main()")
DEADLINE_S = 60


async def edgerm(*args: str) -> str:
    """What `edgerm ARG…` prints; it must succeed."""
    process = await asyncio.create_subprocess_exec(
        *EDGERM, *args, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    assert process.returncode == 0, err.decode()
    return out.decode()

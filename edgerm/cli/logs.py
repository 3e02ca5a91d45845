"""`edgerm logs`: a task's output, both streams to where they belong."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from edgerm.cli.asking import ask, master_option, task_name

if TYPE_CHECKING:
    from edgerm.sdk.operator import Operator


@click.command("logs", short_help="Print a task's output.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task has ended.")
@click.argument("task")
@master_option
def command(follow: bool, task: str, master: str) -> None:
    """Print what TASK wrote: its stdout to stdout, its stderr to stderr, as far as its agent still has it.

    TASK is a task's id, a beginning of it that no other task has, or FRAMEWORK/TASK.
    """
    import asyncio  # noqa: PLC0415

    from edgerm.cli.pouring import pour  # noqa: PLC0415

    name = task_name(task)

    async def both(operator: Operator) -> None:
        if follow:
            await asyncio.gather(*(pour(operator, name, stderr=stderr, follow=True) for stderr in (False, True)))
        else:
            await pour(operator, name, stderr=False, follow=False)
            await pour(operator, name, stderr=True, follow=False)

    try:
        ask(master, both)
    except BrokenPipeError:  # whoever read has enough
        sys.stderr.close()

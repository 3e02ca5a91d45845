"""`edgerm kill`: end a task of any framework."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgerm.cli.asking import ask, master_option, task_name

if TYPE_CHECKING:
    from edgerm.core.tasks import TaskState
    from edgerm.sdk.operator import Name, Operator

POLL_S = 0.2


@click.command("kill", short_help="End a task.")
@click.option("--wait", is_flag=True, help="Return only when the task has ended.")
@click.argument("task")
@master_option
def command(wait: bool, task: str, master: str) -> None:
    """End TASK: SIGTERM, and SIGKILL after its grace period; a WASM module ends at once.

    TASK is a task's id, a beginning of it that no other task has, or FRAMEWORK/TASK.
    """
    from edgerm.sdk.operator import Name  # noqa: PLC0415

    name = task_name(task)

    async def kill(operator: Operator) -> str:
        found = await operator.task(name)  # before it ends: a beginning may then be another task's as well
        state = await operator.kill(name)
        if state.terminal:
            return f"task {task} has ended before: {state.name}"
        if not wait:
            return f"task {task} was asked to end"
        whole = Name(found.task_id.value, found.framework_id.value)
        return f"task {task} has ended: {(await _end(operator, whole)).name}"

    click.echo(ask(master, kill), err=True)


async def _end(operator: Operator, name: Name) -> TaskState:
    """Its terminal state; asking again and again is all that the operator API offers so far."""
    import asyncio  # noqa: PLC0415

    from edgerm.core.tasks import TaskState  # noqa: PLC0415

    while True:
        state = TaskState((await operator.task(name)).state)
        if state.terminal:
            return state
        await asyncio.sleep(POLL_S)

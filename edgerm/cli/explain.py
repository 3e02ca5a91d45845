"""`edgerm explain`: why a task, or a framework without tasks, is where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgerm.cli.asking import ask, master_option, task_name

if TYPE_CHECKING:
    from edgerm.sdk.operator import Operator
    from edgerm.wire.v1 import operator_pb2


@click.command("explain", short_help="Say why a task or a framework is where it is.")
@click.argument("what", metavar="TASK|FRAMEWORK")
@master_option
def command(what: str, master: str) -> None:
    """Say why a task has not started or ended, or why a framework gets no offers: a code and a sentence each.

    TASK is a task's id, a beginning of it that no other task has, or FRAMEWORK/TASK; FRAMEWORK is a framework's id.
    """
    name = task_name(what)

    async def explain(operator: Operator) -> operator_pb2.Response.Explain:
        from edgerm.core.errors import NotFound  # noqa: PLC0415

        known = {framework.framework_info.id.value for framework in (await operator.frameworks()).frameworks}
        if what in known:
            return await operator.explain(None, what)
        try:
            return await operator.explain(name)
        except NotFound:
            where = "edgerm ps --all, edgerm frameworks"
            raise NotFound(f"neither a task nor a framework is called {what!r}; see: {where}") from None

    view = ask(master, explain)
    click.echo(view.summary)
    for reason in view.reasons:
        where = f" (agent {reason.agent_id.value})" if reason.HasField("agent_id") else ""
        click.echo(f"  {reason.code}: {reason.message}{where}")

"""`edgerm explain`: why a task, or a framework without tasks, is where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgerm.cli.asking import ask, master_option, task_name

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, TypeAlias

    from edgerm.sdk.operator import Operator
    from edgerm.wire.v1 import operator_pb2

    Asking: TypeAlias = Callable[[Operator], Coroutine[Any, Any, operator_pb2.Response.Explain]]


@click.command("explain", short_help="Say why a task or a framework is where it is.")
@click.argument("what", metavar="[TASK|FRAMEWORK]", required=False)
@click.option("--name", metavar="NAME", help="The task that was launched under this name.")
@master_option
def command(what: str | None, name: str | None, master: str) -> None:
    """Say why a task has not started or ended, or why a framework gets no offers: a code and a sentence each.

    TASK is a task's id, a beginning of it that no other task has, or FRAMEWORK/TASK; FRAMEWORK is a framework's id. A
    task that waits for devices is known before it has a place: what of its claims is not met is said for each agent.
    """
    if (what is None) == (not name):
        raise click.UsageError("name a TASK, a FRAMEWORK, or a task by --name NAME")
    view = ask(master, _by_name(name) if name else _by_id(what or ""))
    click.echo(view.summary)
    for reason in view.reasons:
        where = f" (agent {reason.agent_id.value})" if reason.HasField("agent_id") else ""
        click.echo(f"  {reason.code}: {reason.message}{where}")


def _by_name(name: str) -> Asking:
    return lambda operator: operator.explain(None, called=name)


def _by_id(what: str) -> Asking:
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

    return explain

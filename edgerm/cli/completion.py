"""`edgerm completion`: the script that makes a shell complete this command."""

from __future__ import annotations

import click


@click.command("completion", short_help="Print a script for your shell that completes edgerm's commands.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script of a SHELL. For bash, once: edgerm completion bash >> ~/.bashrc"""
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    kind = get_completion_class(shell)
    assert kind is not None, "click.Choice lets no other shell through"
    click.echo(kind(context.find_root().command, {}, "edgerm", "_EDGERM_COMPLETE").source())

"""The commands: every command, argument, option and default, from click's own tree."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from edgerm.cli.main import root
from generate.markdown import cell, code, table

IN_BRACKETS = re.compile(r"\s+\[([^\]]+)\]$")


def page() -> str:
    """All commands, the root first."""
    context = click.Context(root, info_name="edgerm")
    lines = [*_command(root, context, "edgerm")]
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        assert command is not None, name
        lines += _tree(command, click.Context(command, info_name=name, parent=context))
    return "\n".join(lines)


def _tree(command: click.Command, context: click.Context) -> Iterator[str]:
    yield from _command(command, context, context.command_path)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None, name
            yield from _tree(inner, click.Context(inner, info_name=name, parent=context))


def _command(command: click.Command, context: click.Context, path: str) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    text = re.sub(r"(?<=\w)\n(?=\S)", " ", inspect.cleandoc(command.help or ""))
    yield from ("", f"## {path}", "", "```text", f"{path} {usage}", "```", "", text, "")
    options = [each for each in command.get_params(context) if isinstance(each, click.Option) and not each.hidden]
    rows = [_row(option, context) for option in options]
    if rows:
        yield from table(("option", "default", "meaning"), rows)


def _row(option: click.Option, context: click.Context) -> tuple[str, str, str]:
    """Flags, default, help. A default that the program itself finds stands in brackets at the end of the help."""
    told = option.help or ""
    found = IN_BRACKETS.search(told)
    default = found[1] if found else _default(option, context)
    return code(_flags(option, context)), code(default), cell(IN_BRACKETS.sub("", told))


def _flags(option: click.Option, context: click.Context) -> str:
    flags = ", ".join((*option.opts, *option.secondary_opts))
    return flags if option.is_flag or option.count else f"{flags} {option.make_metavar(context)}"


def _default(option: click.Option, context: click.Context) -> str:
    """What holds without the option; flags are off."""
    default = option.get_default(context)
    return "" if option.is_flag or not isinstance(default, str | int | float) else str(default)

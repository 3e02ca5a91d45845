"""Lists for people and for programs: a table, or JSON. The only place that imports rich, and only for a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from edgerm.core.attributes import number_text

Row = Mapping[str, Any]


def show(rows: Sequence[Row], columns: Mapping[str, str], *, as_json: bool, empty: str) -> None:
    """Print `rows`: as JSON whole; as a table the `columns` (key to heading), or the line `empty` without any.

    A column of two keys, such as `used/total`, shows both values.
    """
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    elif not rows:
        sys.stderr.write(f"{empty}\n")
    else:
        lines = [[_cell(row, keys) for keys in columns] for row in rows]
        (_rich if sys.stdout.isatty() else _plain)(list(columns.values()), lines)


def _cell(row: Row, keys: str) -> str:
    return "/".join(_text(row[key]) for key in keys.split("/"))


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return number_text(value)
    return str(value)


def _plain(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need to be, for pipes."""
    table = [headings, *lines]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def _rich(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for line in lines:
        table.add_row(*map(Text, line))
    Console().print(table)

"""Tables and charts in plain text, and the one place that writes them into a page, between two marks.

What does not live here: what is measured. A chart is log-log, so that what grows in proportion is a straight line and
what does not grow lies flat.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

WIDTH, HEIGHT = 56, 14
SIGNS = "ox+*#@%&"


def replace_between(page: Path, name: str, text: str) -> None:
    """Put `text` between `<!-- NAME:begin -->` and `<!-- NAME:end -->`; all else stays as it is, byte for byte.

    Raises ValueError unless both marks stand in the page once, in this order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    old = page.read_bytes().decode()
    if old.count(begin) != 1 or old.count(end) != 1 or old.index(begin) > old.index(end):
        raise ValueError(f"{page.name} must hold {begin} and {end}, once each and in this order")
    head, rest = old.split(begin)
    page.write_bytes(f"{head}{begin}\n{text.strip()}\n{end}{rest.split(end)[1]}".encode())


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def chart(title: str, sizes: Sequence[int], curves: Mapping[str, Sequence[float]], unit: str) -> str:
    """Curves over sizes, both axes logarithmic, as a block of plain text.

    At most as many curves as there are signs; a point that covers another one hides it.
    """
    values = [value for curve in curves.values() for value in curve]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    for sign, curve in zip(SIGNS, curves.values(), strict=False):
        for size, value in zip(sizes, curve, strict=True):
            grid[_row(value, low, high)][_column(size, sizes)] = sign
    lines = [f"{title} ({unit})", ""]
    for row, cells in enumerate(grid):
        power = high - row * (high - low) / (HEIGHT - 1)
        whole = any(_row(10.0**step, low, high) == row for step in range(low, high + 1))
        label = f"{10 ** round(power):g}" if whole else ""
        lines.append(f"{label:>8} |{''.join(cells).rstrip()}")
    axis = [" "] * (WIDTH + 8)
    for size in sizes:
        text, at = f"{size:,}", _column(size, sizes)
        axis[at : at + len(text)] = text
    lines += [" " * 9 + "+" + "-" * WIDTH, " " * 10 + "".join(axis).rstrip() + "  agents", ""]
    lines += [f"    {sign}  {name}" for sign, name in zip(SIGNS, curves, strict=False)]
    return "```text\n" + "\n".join(line.rstrip() for line in lines) + "\n```"


def _row(value: float, low: int, high: int) -> int:
    part = (math.log10(value) - low) / (high - low)
    return min(max(round((HEIGHT - 1) * (1 - part)), 0), HEIGHT - 1)


def _column(size: int, sizes: Sequence[int]) -> int:
    first, last = math.log10(sizes[0]), math.log10(sizes[-1])
    return round((WIDTH - 1) * (math.log10(size) - first) / (last - first))

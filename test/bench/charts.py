"""Tables and charts in plain text, and the one place that writes them into a page, between two marks.

What does not live here: what is measured. A chart draws a bar for each size: what does not grow has bars of one length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

WIDTH = 48  # of the longest bar


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
    """Bars over sizes, a group for each curve with a scale of its own, as a block of plain text."""
    lines = [f"{title} ({unit})"]
    margin = max(map(len, curves))
    for name, curve in curves.items():
        longest = max(curve)
        lines.append("")
        for size, value in zip(sizes, curve, strict=True):
            label = name if size == sizes[0] else ""
            bar = "#" * round(WIDTH * value / longest)
            lines.append(f"{label:<{margin}}  {size:>6,} agents  {number(value):>7} |{bar}")
    return "```text\n" + "\n".join(lines) + "\n```"


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

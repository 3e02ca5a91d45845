"""What a run of the bench says in docs/performance.md: the sections of scale, live agents and takeover.

What does not live here: how charts are drawn and where they are put (`charts`), what is measured.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from bench import scale, scale_sweeps
from bench.charts import chart, number, replace_between, table
from bench.report import Figure, Report

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"


def write(report: Report, subjects: list[str]) -> None:
    """Replace the sections of those subjects that were measured."""
    for name in subjects:
        if name in _SECTIONS:
            replace_between(PAGE, name, _SECTIONS[name](report))


def surroundings(report: Report) -> str:
    """The machine, and how far the figures can be trusted."""
    told = report.machine
    load = f"{told['load_average']}, after it {told.get('load_average_after', '-')}"
    return (
        f"{told['cpu']}, {told['usable_cpus']} CPUs, {told['memory_gib']} GiB, Linux {told['kernel']}, "
        f"Python {told['python']}, {told['libraries']}. Load average (1, 5, 15 minutes) before the run {load}: "
        "above 1 other work disturbed it, which only ever adds."
    )


def _scale(report: Report) -> str:
    parts = [surroundings(report), "", _growth(report), ""]
    for frameworks in scale.FRAMEWORKS:
        curves = _curves(report, [f"{name}, {{size}} agents, {frameworks} frameworks" for name in scale.CHANGES])
        title = f"One change, {frameworks} framework{'s' if frameworks > 1 else ''}: the core's CPU time, best round"
        parts += [_chart(report, title, curves, "µs"), ""]
    title = "SUBSCRIBE and REVIVE, all agents offered, with encoding: CPU time for each agent, best round"
    parts += [_chart(report, title, _sweeps(report), "µs"), ""]
    slices = [figure for figure in report.figures if figure.what.endswith("longest slice")]
    weights = [figure for figure in report.figures if figure.what.startswith(("memory", "rounds"))]
    holds = [figure for figure in report.figures if figure.what.startswith("real master")]
    return "\n".join([*parts, _rows(slices), "", _rows(holds), "", _rows(weights)])


def _sweeps(report: Report) -> dict[str, list[float]]:
    """What a call costs for each agent, by call and encoding: flat where the whole grows in proportion."""
    calls = [f"{call}, {encoding}" for call in scale_sweeps.CALLS for encoding in ("protobuf", "JSON")]
    return _curves(report, [f"{call}, {{size}} agents: CPU for each agent" for call in calls])


def _growth(report: Report) -> str:
    """Cost at 10,000 agents as a multiple of that at 1,000, by change and number of frameworks."""
    rows = []
    for name in scale.CHANGES:
        cells = [
            f"{figure.median:.2f}"
            for frameworks in scale.FRAMEWORKS
            for figure in report.figures
            if figure.what == f"{name}, {frameworks} frameworks: the last step"
        ]
        rows.append([name, *cells, f"≤ {scale.GROWTH_MOST}" if name in scale.GATED else "–"])
    sizes = _sizes(report)
    head = [f"CPU time at {sizes[-1]:,} / at {sizes[-2]:,} agents, best rounds"]
    return table([*head, *(f"{count} framework{'s' if count > 1 else ''}" for count in scale.FRAMEWORKS), "goal"], rows)


def _sizes(report: Report) -> list[int]:
    found = {
        int(match[1].replace(",", ""))
        for figure in report.figures
        if (match := re.match(r"idle beat, ([0-9,]+) agents", figure.what))
    }
    return sorted(found)


def _curves(report: Report, names: list[str]) -> dict[str, list[float]]:
    values = {figure.what: min(figure.values) for figure in report.figures}
    return {
        re.sub(r", \{size\} agents.*", "", name): [values[name.format(size=f"{size:,}")] for size in _sizes(report)]
        for name in names
    }


def _chart(report: Report, title: str, curves: dict[str, list[float]], unit: str) -> str:
    return chart(title, _sizes(report), curves, unit)


def _rows(figures: list[Figure]) -> str:
    """Figures as a table: min, median and max of the rounds."""
    rows = []
    for figure in figures:
        values = (min(figure.values), figure.median, max(figure.values))
        rows.append([figure.what, *map(number, values), figure.unit])
    return table(["what", "min", "median", "max", "unit"], rows)


def _plain(subject: str) -> Callable[[Report], str]:
    def section(report: Report) -> str:
        rows = [
            [figure.what, number(figure.median), figure.unit] for figure in report.figures if figure.subject == subject
        ]
        return "\n".join([surroundings(report), "", table(["what", "measured once", "unit"], rows)])

    return section


def _matching(report: Report) -> str:
    return "\n".join([surroundings(report), "", _rows([one for one in report.figures if one.subject == "matching"])])


_SECTIONS: dict[str, Callable[[Report], str]] = {
    "scale": _scale,
    "live": _plain("live"),
    "takeover": _plain("takeover"),
    "matching": _matching,
}

"""The sections that the bench writes, from a report as a run makes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import pages, scale, scale_sweeps
from bench.report import Report

MACHINE = {
    "cpu": "a CPU",
    "usable_cpus": 2,
    "memory_gib": 4,
    "kernel": "6.1",
    "python": "3.11",
    "libraries": "some",
    "load_average": "0.10 0.10 0.10",
}


def scaled() -> Report:
    """A report with all that the section on scale is made of; every cost is its number of agents in µs."""
    report = Report(dict(MACHINE))
    for frameworks in scale.FRAMEWORKS:
        for name in scale.CHANGES:
            for agents in scale.AGENTS:
                what = f"{name}, {agents:,} agents, {frameworks} frameworks"
                report.add("scale", what, "µs", [float(agents), 2.0 * agents])
            report.add("scale", f"{name}, {frameworks} frameworks: the last step", "x", [10.0])
    for call in scale_sweeps.CALLS:
        for encoding in ("protobuf", "JSON"):
            for agents in scale.AGENTS:
                report.add("scale", f"{call}, {encoding}, {agents:,} agents: CPU for each agent", "µs", [50.0])
                report.add("scale", f"{call}, {encoding}, {agents:,} agents: longest slice", "ms", [2.5])
    report.add("scale", "memory of an idle agent, RSS", "B", [900.0])
    return report


def test_the_section_on_scale_says_machine_growth_and_charts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the machine and the growth of each change, and draws a chart for each number of frameworks."""
    page = tmp_path / "performance.md"
    page.write_text("before\n<!-- scale:begin -->\n<!-- scale:end -->\nafter\n")
    monkeypatch.setattr(pages, "PAGE", page)
    pages.write(scaled(), ["scale", "stores"])
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "a CPU, 2 CPUs" in text
    assert "| task's end | 10.00 | 10.00 | 10.00 | ≤ 1.3 |" in text
    assert text.count("```text") == len(scale.FRAMEWORKS) + 1
    assert "| memory of an idle agent, RSS | 900 | 900 | 900 | B |" in text
    assert "| REVIVE, JSON, 10,000 agents: longest slice | 2.5 | 2.5 | 2.5 | ms |" in text


def test_only_what_was_measured_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of other subjects leaves the page alone."""
    page = tmp_path / "performance.md"
    page.write_text("nothing to write here")
    monkeypatch.setattr(pages, "PAGE", page)
    pages.write(Report(dict(MACHINE)), ["stores", "beats"])
    assert page.read_text() == "nothing to write here"

"""The command line of the bench, and the order of its subjects."""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from bench import (
    beats,
    containers,
    idle,
    latency,
    launches,
    live,
    machine,
    matching,
    pages,
    scale,
    stores,
    takeover,
    wire,
)
from bench.report import Report


@dataclass(frozen=True, slots=True)
class Options:
    """What every subject is told."""

    folder: Path
    quick: bool
    ray: bool
    profile: Path | None

    def pick(self, full: float, quick: float) -> int:
        """A count for a full run and one for `--quick`."""
        return int(quick if self.quick else full)


SUBJECTS: dict[str, Callable[[Report, Options], Awaitable[None]]] = {
    "latency": latency.measure,
    "launches": launches.measure,
    "beats": beats.measure,
    "coap-beats": beats.measure_coap,
    "wire": wire.measure,
    "containers": containers.measure,
    "idle": idle.measure,
    "matching": matching.measure,
    "stores": stores.measure,
    "scale": scale.measure,
    "live": live.measure,
    "takeover": takeover.measure,
}


def cache_folder() -> Path:
    """Where Ray's environment is kept, and where the stores of a run lie: seldom a tmpfs, never the repository."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "edgerm-bench"


def run(arguments: Sequence[str]) -> int:
    """Measure, print, and say by the status whether all gates are met (only with `--gate`)."""
    options = _parser().parse_args(arguments)
    report = Report(machine.describe())
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=options.dir or cache_folder()) as folder:
        _say_where(report, Path(folder))
        given = Options(Path(folder), options.quick, options.ray, options.profile)
        asyncio.run(_measure(report, given, options.only or list(SUBJECTS)))
    report.machine["load_average_after"] = machine.load_average()
    report.note(f"load average before and after: {report.machine['load_average']} / {machine.load_average()}")
    report.print_end()
    if options.write:
        pages.write(report, options.only or list(SUBJECTS))
    if options.json:
        report.write(options.json)
    return 1 if options.gate and not report.passed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="test/bench/run.py", description="Measure edgerm against floors and peers.")
    parser.add_argument("--only", action="append", choices=SUBJECTS, metavar="NAME", help=f"of {', '.join(SUBJECTS)}")
    parser.add_argument("--quick", action="store_true", help="few and short rounds: does it run, not how fast")
    parser.add_argument("--gate", action="store_true", help="exit 1 if a goal is missed")
    parser.add_argument("--ray", action="store_true", help=f"install Ray, if it is not there, in {cache_folder()}")
    parser.add_argument(
        "--write", action="store_true", help=f"put what is found into {pages.PAGE.name}, between its marks"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where the stores of the run lie (a real disk)")
    parser.add_argument(
        "--profile", type=Path, metavar="DIR", help="write cProfile files of the master (slows it down)"
    )
    return parser


def _say_where(report: Report, folder: Path) -> None:
    kind = report.machine["file_system"] = machine.file_system(folder)
    told = report.machine
    print(f"{told['cpu']}, {told['usable_cpus']} CPUs, {told['memory_gib']} GiB, Linux {told['kernel']}")
    print(f"Python {told['python']} ({told['python_loop_ns']} ns a turn of a bare loop), {told['libraries']}")
    print(f"stores on {kind}; load average {told['load_average']}")
    if kind == "tmpfs":
        report.note("stores on tmpfs: commits cost nothing there, so no figure that has a commit in it is true")


async def _measure(report: Report, options: Options, names: list[str]) -> None:
    for name in names:
        began, first = monotonic(), len(report.figures)
        folder = options.folder / name
        folder.mkdir()
        print(f"\n{name:<60} {'min':>9} {'median':>9} {'max':>9}", flush=True)
        await SUBJECTS[name](report, Options(folder, options.quick, options.ray, options.profile))
        report.print_since(first)
        print(f"  ({monotonic() - began:.0f} s)", flush=True)

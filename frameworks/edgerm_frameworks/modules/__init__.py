"""Sample WASM modules, as text (`.wat`) and built (`.wasm`), and what their results must be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

WINDOWED_STATS = Path(__file__).parent / "windowed_stats.wasm"
SENSOR = Path(__file__).parent / "sensor.wasm"
SPIN = Path(__file__).parent / "spin.wasm"


def windowed_stats_lines(thousandths: Sequence[int], window: int) -> list[str]:
    """What `windowed_stats` prints for samples of so many thousandths, digit for digit: the same steps, in order."""
    return [
        _line(index, thousandths[start : start + window])
        for index, start in enumerate(range(0, len(thousandths), window))
    ]


def _line(index: int, samples: Sequence[int]) -> str:
    mean = float(sum(samples)) / float(len(samples))
    squares = 0.0
    for sample in samples:
        squares += (float(sample) - mean) * (float(sample) - mean)
    deviation = math.sqrt(squares / float(len(samples)))
    figures = (min(samples), max(samples), round(mean), round(deviation))
    return f"{index} {len(samples)} " + " ".join(_decimal(figure) for figure in figures)


def _decimal(thousandths: int) -> str:
    sign = "-" if thousandths < 0 else ""
    return f"{sign}{abs(thousandths) // 1000}.{abs(thousandths) % 1000:03d}"


def sensor_lines(seed: int, readings: int, every: int) -> list[str]:
    """What `sensor` prints with these arguments."""
    lines, total = [], 0
    for number in range(1, readings + 1):
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        total += 15000 + (seed >> 33) % 10000
        if number % every == 0:
            lines.append(_decimal(total // every))
            total = 0
    return lines

"""CPU lists as the kernel writes them (`0,2-4`: cpuset(7), "List format"), of CPUs or of indices into a task's CPUs.

What does not live here: which CPUs there are (`edgerm_agent.devices.cpu`), masks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from edgerm.core.errors import Invalid

CPUS_MAX = 8192  # the largest NR_CPUS that Linux is built with
TEXT_MAX = 8 * CPUS_MAX  # characters: every CPU named alone, and to spare

_PART = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", re.ASCII)


def parse(text: str) -> tuple[int, ...]:
    """The numbers, ascending and each once; none for an empty text. What the kernel gives is to be stripped before.

    Raises `Invalid` for a descending range, an empty part, a sign, a blank, a number of `CPUS_MAX` or more.
    """
    if len(text) > TEXT_MAX:
        raise Invalid(f"a CPU list of {len(text)} characters; at most {TEXT_MAX} are allowed")
    found: list[int] = []
    for first, last in sorted(_range(text, part) for part in text.split(",")) if text else ():
        found.extend(range(max(first, found[-1] + 1 if found else 0), last + 1))
    return tuple(found)


def to_text(cpus: Iterable[int]) -> str:
    """The shortest list of these numbers: `parse` reads it back."""
    numbers = sorted(set(cpus))
    breaks = [at for at, (one, other) in enumerate(pairwise(numbers), 1) if other != one + 1]
    parts = (numbers[start:end] for start, end in pairwise([0, *breaks, len(numbers)]))
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts if part)


def pick(text: str, cpus: Sequence[int]) -> tuple[int, ...]:
    """The CPUs at these indices: with 4, 6, 9, 11 the list `0,2-3` means 4, 9, 11. `cpus` are ascending.

    Raises `Invalid` as `parse` does, for an empty text, and for an index beyond the CPUs.
    """
    indices = parse(text)
    if not indices:
        raise Invalid("an empty list of indices; write numbers and ranges with commas between, such as 0,2-3")
    if indices[-1] >= len(cpus):
        raise Invalid(f"CPU list {text!r:.80}: index {indices[-1]} is beyond the {len(cpus)} isolated CPUs of the task")
    return tuple(cpus[index] for index in indices)


def _range(text: str, part: str) -> tuple[int, int]:
    """The first and the last number of a part; both are small before anything is made of them."""
    match = _PART.fullmatch(part)
    if match is None:
        raise Invalid(f"CPU list {text!r:.80}: {part!r:.20} is no number and no range; write such as 0,2-4")
    first = int(match[1])
    last = first if match[2] is None else int(match[2])
    if last < first:
        raise Invalid(f"CPU list {text!r:.80}: {part} descends; write {last}-{first}")
    if last >= CPUS_MAX:
        raise Invalid(f"CPU list {text!r:.80}: {last} is too high; a number is below {CPUS_MAX}")
    return first, last

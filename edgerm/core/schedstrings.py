"""Scheduling strings: `f51` is SCHED_FIFO with priority 51 (the letters and what they mean: sched(7)).

What does not live here: whose scheduling it becomes, and how (`edgerm_agent.devices`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import IntEnum

from edgerm.core.errors import Invalid


class Policy(IntEnum):
    """A thread's policy; the numbers are the kernel's (include/uapi/linux/sched.h)."""

    OTHER = 0
    FIFO = 1
    RR = 2
    BATCH = 3
    IDLE = 5

    @property
    def real_time(self) -> bool:
        """Whether it has a priority of 1 to 99; others have 0."""
        return self in (Policy.FIFO, Policy.RR)


_POLICIES = {"f": Policy.FIFO, "b": Policy.BATCH, "r": Policy.RR, "o": Policy.OTHER, "i": Policy.IDLE}
_LETTERS = {policy: letter for letter, policy in _POLICIES.items()}
_FORM = re.compile(r"([fbroi])([0-9]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Scheduling:
    """How a thread is to be scheduled, as it was asked for; what the kernel takes is said by `applied`."""

    policy: Policy
    priority: int  # 0 to 99

    def __str__(self) -> str:
        return f"{_LETTERS[self.policy]}{self.priority}"

    @property
    def applied(self) -> Scheduling:
        """What the kernel takes: another one where the priority means nothing, which is worth a warning.

        Raises `Invalid` for `f0` and `r0`.
        """
        if not self.policy.real_time:
            return replace(self, priority=0)
        if not self.priority:
            raise Invalid(f"scheduling {str(self)!r}: SCHED_{self.policy.name} has priorities 1 to 99")
        return self


def parse(text: object) -> Scheduling:
    """The whole text is one of the letters f, b, r, o, i and a number from 0 to 99; raises `Invalid`."""
    match = _FORM.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise Invalid(f"{text!r:.40} is no scheduling string: write f, b, r, o or i and a priority, such as f51")
    digits = match[2].lstrip("0")
    if len(digits) > 2:
        raise Invalid(f"scheduling {text!r:.40}: a priority is 0 to 99")
    return Scheduling(_POLICIES[match[1]], int(digits or "0"))

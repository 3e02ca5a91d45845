"""What a claim's config asks of its interfaces, as values. Pure.

What does not live here: what is made of it (`plan`, `tuning`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edgerm.core import cpulists, schedstrings
from edgerm.core.errors import Conflict, Invalid
from edgerm.core.schedstrings import Scheduling

PREFIX = "eth"
UNCHANGED = ("", "*")
IRQ, IRQ_THREADS, NAPI_THREADS = "irq_affinity", "irq_threads_affinity", "napi_threads_affinity"
IRQ_SCHED, NAPI_SCHED, NAPI = "irq_threads_sched", "napi_threads_sched", "napi_threads"
TUNING = (IRQ, IRQ_THREADS, IRQ_SCHED, NAPI, NAPI_THREADS, NAPI_SCHED)
KEYS = ("label", "prefix", *TUNING)

_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,11}", re.ASCII)  # a counter follows, and a name has 15 characters


@dataclass(frozen=True, slots=True)
class Threads:
    """What is asked for some threads. Without CPUs they stay as they are, whatever their scheduling was to be."""

    cpus: tuple[int, ...] = ()
    scheduling: Scheduling | None = None


@dataclass(frozen=True, slots=True)
class Tuning:
    """What is asked for an interface's IRQs and threads; CPUs are the box's. Nothing: nothing."""

    irq_cpus: tuple[int, ...] = ()
    irq_threads: Threads = field(default_factory=Threads)
    napi_threads: Threads = field(default_factory=Threads)
    napi: bool | None = None  # whether NAPI runs in threads; None: as it is

    @property
    def asked(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.irq_cpus or self.irq_threads.cpus or self.napi_threads.cpus or self.napi is not None)


@dataclass(frozen=True, slots=True)
class Asked:
    """What one claim asks for each of its interfaces."""

    label: str = ""  # empty: the only one that the interface has, if it has one
    prefix: str = PREFIX
    tuning: Tuning = field(default_factory=Tuning)


def read(claim: str, config: Mapping[str, object], cpus: Sequence[int], refusal: str = "") -> Asked:
    """The config of the claim with this name. `cpus`: the task's isolated ones, ascending; `refusal`: why nothing can
    be tuned here.

    Raises `Invalid`, naming claim and key, for what is wrong, `Conflict` for tuning that cannot be.
    """
    texts = {key: _text(claim, key, value) for key, value in config.items()}
    prefix = texts.get("prefix", PREFIX)
    if not _PREFIX.fullmatch(prefix):
        raise Invalid(
            f"claim {claim!r}: config.prefix = {prefix!r:.40}: write 1 to 12 letters, digits, - or _, a letter first"
        )
    return Asked(texts.get("label", ""), prefix, _tuning(claim, texts, cpus, refusal))


def _text(claim: str, key: str, value: object) -> str:
    if key not in KEYS:
        raise Invalid(f"claim {claim!r}: config has no key {key!r:.60}; it has {', '.join(KEYS)}")
    if not isinstance(value, str):
        raise Invalid(f"claim {claim!r}: config.{key} = {value!r:.60} is no text")
    return value


def _tuning(claim: str, texts: Mapping[str, str], cpus: Sequence[int], refusal: str) -> Tuning:
    asked = [key for key in TUNING if texts.get(key, "") not in UNCHANGED]
    if not asked:
        return Tuning()
    scheds = {key: _scheduling(claim, key, texts[key]) for key in (IRQ_SCHED, NAPI_SCHED) if key in asked}
    napi = _switch(claim, texts[NAPI]) if NAPI in asked else None
    if not cpus:
        for key in (IRQ, IRQ_THREADS, NAPI_THREADS):  # what is no list at all is said first
            if key in asked:
                _named(claim, key, texts[key], cpulists.parse)
        raise Conflict(
            f"claim {claim!r}: config.{asked[0]} tunes an interface for the task's isolated cores, and the task claims "
            "none: claim siemens.com/isolated_core too"
        )
    lists = {
        key: _named(claim, key, texts[key], lambda text: cpulists.pick(text, cpus))
        for key in (IRQ, IRQ_THREADS, NAPI_THREADS)
        if key in asked
    }
    if refusal:
        raise Conflict(f"claim {claim!r}: config.{asked[0]} asks for tuning, and {refusal}")
    return Tuning(
        lists.get(IRQ, ()),
        _threads(claim, IRQ_SCHED, lists.get(IRQ_THREADS, ()), scheds.get(IRQ_SCHED)),
        _threads(claim, NAPI_SCHED, lists.get(NAPI_THREADS, ()), scheds.get(NAPI_SCHED)),
        napi,
    )


def _threads(claim: str, key: str, cpus: tuple[int, ...], scheduling: Scheduling | None) -> Threads:
    """Scheduling alone is accepted and not applied, so it is not checked for what the kernel takes either."""
    if not cpus or scheduling is None:
        return Threads(cpus)
    try:
        return Threads(cpus, scheduling.applied)
    except Invalid as error:
        raise Invalid(f"claim {claim!r}: config.{key}: {error}") from error


def _scheduling(claim: str, key: str, text: str) -> Scheduling:
    try:
        return schedstrings.parse(text)
    except Invalid as error:
        raise Invalid(f"claim {claim!r}: config.{key}: {error}") from error


def _switch(claim: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise Invalid(f'claim {claim!r}: config.{NAPI} = {text!r:.40}: write "true" or "false"')
    return text == "true"


def _named(claim: str, key: str, text: str, read_list: Callable[[str], tuple[int, ...]]) -> tuple[int, ...]:
    try:
        return read_list(text)
    except Invalid as error:
        raise Invalid(f"claim {claim!r}: config.{key}: {error}") from error


def choose_label(claim: str, asked: str, interface: str, labels: Mapping[str, int]) -> tuple[str, int]:
    """Which label of the interface the claim means, and its VLAN tag (0: none). Raises `Invalid`.

    A label in the config selects no interface; only the claim's expressions do that.
    """
    if asked:
        if asked not in labels:
            has = ", ".join(labels) or "none"
            raise Invalid(
                f"claim {claim!r}: config.label = {asked!r:.60}: interface {interface} has the labels: {has}; let the "
                f'claim ask for it: {{key: "labels", operator: "Contains", values: ["{asked[:60]}"]}}'
            )
        return asked, labels[asked]
    if len(labels) > 1:
        raise Invalid(
            f"claim {claim!r}: interface {interface} has the labels {', '.join(labels)}: say in config.label which one "
            "is meant"
        )
    return next(iter(labels.items()), ("", 0))

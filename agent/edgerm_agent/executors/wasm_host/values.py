"""What the engine takes and gives, and how its long-winded texts become lines for people. Pure; names no engine."""

from __future__ import annotations

from dataclasses import dataclass

TRAP_CHARS_MAX = 1000
FRAMES_SHOWN = 5


class BadModule(Exception):
    """The module cannot run, ever; `str()` says why in one line."""


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """What a guest gets; nothing else of the host is visible to it."""

    argv: list[str]
    env: list[tuple[str, str]]
    sandbox: str  # its `/` and `.`
    stdin: str | None
    stdout_fd: int
    stderr_fd: int
    memory_bytes: int | None
    entry_point: str
    stdin_fd: int | None = None  # the read end of a pipe that `stdin` names, if it stays open
    messages: str | None = None  # the task's socket for messages
    mounts: tuple[tuple[str, str, bool], ...] = ()  # directories: of the host, where the guest sees it, read-only
    chips: tuple[str, ...] = ()  # paths of the GPIO chips whose lines it may use


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a guest's run ended: exactly one of the two is set."""

    code: int | None = None
    trap: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a module says about itself; asked for once, since the library makes objects of each import and export."""

    imported: frozenset[str]  # from WASI
    functions: dict[str, bool]  # exported ones; True: takes and gives nothing
    memory_bytes: int  # of its exported memory, at least
    ours: frozenset[str] = frozenset()  # imported from us: calls for messages and GPIO lines


def check(facts: Facts, spec: GuestSpec) -> None:
    """Say in our words what the engine would say in its own, or only at the end."""
    known = ", ".join(sorted(facts.functions)[:10])
    if spec.entry_point not in facts.functions:
        raise BadModule(f"the module exports no function {spec.entry_point!r}; it exports: {known or 'none'}")
    if not facts.functions[spec.entry_point]:
        raise BadModule(f"the function {spec.entry_point!r} takes or gives values; a task's entry point must not")
    if spec.memory_bytes is not None and facts.memory_bytes > spec.memory_bytes:
        raise BadModule(
            f"the module starts with {facts.memory_bytes} bytes of memory, its limit is {spec.memory_bytes}"
        )


def one_line(text: str) -> str:
    """`text` without its line breaks, cut."""
    return " ".join(text.split())[:TRAP_CHARS_MAX]


def trap_text(text: str) -> str:
    """What happened, then where: the cause, and the innermost frames."""
    where, _, cause = text.partition("Caused by:")
    frames = [line.strip() for line in where.splitlines()[1:] if line.strip()]
    shown = frames[:FRAMES_SHOWN] + (["…"] if len(frames) > FRAMES_SHOWN else [])
    lines = [" ".join(cause.split()) or one_line(where), *shown]
    return "\n".join(lines)[:TRAP_CHARS_MAX]

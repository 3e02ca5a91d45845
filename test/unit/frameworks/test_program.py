"""How sample programs end."""

from __future__ import annotations

import asyncio
import signal

import pytest

from edgerm.core.errors import Unavailable
from edgerm_frameworks.program import run, start


async def ends(status: int) -> int:
    """Work without trouble."""
    return status


async def fails(error: BaseException) -> int:
    """Work that cannot be done."""
    raise error


async def is_asked_to_end(number: signal.Signals, log: list[str]) -> int:
    """Work that a signal ends, and that tidies up."""
    try:
        signal.raise_signal(number)
        await asyncio.Event().wait()
    finally:
        log.append("tidy")
    return 0


def test_the_works_status_is_the_programs() -> None:
    """What the work answers is the exit status."""
    assert run("sample", ends(7)) == 7


@pytest.mark.parametrize("many", [False, True])
def test_what_a_person_can_mend_is_one_line(many: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """An error of ours, or many at once, is told in one line, with status 1."""
    error: BaseException = Unavailable("the master is away")
    if many:
        error = BaseExceptionGroup("many", [BaseExceptionGroup("more", [error]), Unavailable("as well")])
    assert run("sample", fails(error)) == 1
    assert capsys.readouterr().err == "sample: the master is away\n"


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), BaseExceptionGroup("g", [ZeroDivisionError("a bug")])])
def test_a_bug_is_not_hidden(error: BaseException) -> None:
    """What nobody expected keeps its traceback."""
    with pytest.raises(type(error)):
        run("sample", fails(error))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_work_tidy_up(number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM cancel the work; the status tells which it was; SIGTERM's handler is as before."""
    before = signal.getsignal(signal.SIGTERM)
    log: list[str] = []
    assert run("sample", is_asked_to_end(number, log)) == 128 + number
    assert log == ["tidy"]
    assert signal.getsignal(signal.SIGTERM) is before


def sample(master: str = "here", count: str = "3", *, window: int = 5) -> int:
    """A sample's `main`."""
    return len(master) + int(count) + window


@pytest.mark.parametrize(
    ("arguments", "status", "out", "err"),
    [
        (["m", "4"], 10, "", ""),
        (["there", "--help"], 0, "About it.\n", ""),
        (["m", "4", "5"], 2, "", "3 arguments, at most 2 are taken; --help tells which\n"),
    ],
)
def test_the_command_line(
    arguments: list[str], status: int, out: str, err: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Arguments are handed on in order, help is the docstring, and one too many is refused, not left out."""
    assert start(sample, "About it.", arguments) == status
    assert capsys.readouterr() == (out, err)

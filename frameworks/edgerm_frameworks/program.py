"""What the samples that are programs share: `--help`, one line for what a person can mend, a clean end, a status."""

from __future__ import annotations

import asyncio
import inspect
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from types import FrameType

from edgerm.sdk import EdgermError


def start(main: Callable[..., int], about: str | None, arguments: Sequence[str]) -> int:
    """Call `main` with the command line's arguments; answers the exit status: 2 for more than it takes.

    Whoever asks for help gets `about`, the sample's docstring.
    """
    if {"-h", "--help"}.intersection(arguments):
        print(about)
        return 0
    parameters = inspect.signature(main).parameters.values()
    most = sum(one.kind is one.POSITIONAL_OR_KEYWORD for one in parameters)
    if len(arguments) > most:
        sys.stderr.write(f"{len(arguments)} arguments, at most {most} are taken; --help tells which\n")
        return 2
    return main(*arguments)


def run(name: str, work: Coroutine[None, None, int]) -> int:
    """Do the work; answers its exit status. 1: what went wrong stands on stderr; 128+N: signal N ended it.

    Ctrl-C and SIGTERM cancel the work, so that its `async with` blocks end as they should.
    """
    number = signal.SIGINT

    def ask_to_end(_number: int, _frame: FrameType | None) -> None:
        nonlocal number
        number = signal.SIGTERM
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, ask_to_end)
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        return 128 + number
    except (EdgermError, BaseExceptionGroup) as error:
        first = _first(error)
        if not isinstance(first, EdgermError):
            raise
        sys.stderr.write(f"{name}: {first}\n")
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)


def _first(error: BaseException) -> BaseException:
    """Of many that say the same."""
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error

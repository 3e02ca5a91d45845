"""Logs of a program: lines for people on a terminal, JSON for machines elsewhere, to standard error.

Every line has `event`, `level`, `timestamp` (UTC) and `logger`; a line that a request caused has its id as `request`.
Keys are the same everywhere: `task` (the whole key), `framework`, `agent`, `request`, `reason`, `error`. What lives
here: the only use of structlog. A log says what happened and to whom; it never carries a task's data.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, Protocol, cast

# structlog imports rich where it is installed, for tracebacks on a terminal: 5 MiB in every agent and master.
if _rich_is_new := "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]  # the import system's word for "not here"
import structlog

if _rich_is_new:
    del sys.modules["rich"]

from edgerm.requests import current_request

Form = Literal["auto", "console", "json"]
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Log(Protocol):
    """What callers use of a logger: an event in words, and its values by name."""

    def debug(self, event: str, **values: Any) -> Any: ...
    def info(self, event: str, **values: Any) -> Any: ...
    def warning(self, event: str, **values: Any) -> Any: ...
    def error(self, event: str, **values: Any) -> Any: ...
    def bind(self) -> Log: ...  # as it is configured now: cheaper for who writes many lines


def get(name: str) -> Log:
    """A logger; `name` says which part speaks, such as `master.api`."""
    return cast("Log", structlog.get_logger(part=name))


def configure(form: Form, level: str) -> None:
    """Set up the process' logs, once, at its start; the standard library's loggers are sent the same way."""
    people = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        _complete,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=not people),
        structlog.processors.format_exc_info,
    ]
    last: Any = structlog.dev.ConsoleRenderer() if people else _json
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(
        level=max(LEVELS[level], logging.WARNING),
        handlers=[_Forward()],
        force=True,
    )


_encode = json.JSONEncoder(ensure_ascii=True, default=repr).encode  # made once: `dumps` makes one for each line


def _json(_logger: object, _method: str, line: MutableMapping[str, Any]) -> str:
    return _encode(line)


def _complete(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Who speaks (structlog keeps the word `logger` for itself until here), and for which request."""
    line["logger"] = line.pop("part", "")
    request = line.pop("request", "") or current_request()
    if request:
        line["request"] = request
    return line


class _Forward(logging.Handler):
    """Hands records of the standard library (asyncio, aiohttp) to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger(part=record.name).log(record.levelno, record.getMessage(), exc_info=record.exc_info)

"""The id of the request that is being made or served: it joins the lines of CLI, master and agent in their logs.

It means nothing to anybody but who reads logs: it is never stored, and nothing is decided on it. What does not live
here: where it travels (a header over HTTP, a field of an order on the link).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import Final

from edgerm.core.errors import EdgermError
from edgerm.core.ids import sane_request_id

HEADER: Final = "X-Request-Id"
_current: ContextVar[str] = ContextVar("request", default="")
_numbers = count(1)
_process = os.urandom(5).hex()


def make_request_id() -> str:
    """An id that no other request has, here or elsewhere."""
    return f"{_process}-{next(_numbers)}"


def current_request() -> str:
    """The id of the request in whose context this runs; empty: none."""
    return _current.get()


@contextmanager
def serving_request(given: str) -> Iterator[str]:
    """Within the block the request has the id `given`, if that is sane, else a new one."""
    name = sane_request_id(given) or make_request_id()
    token = _current.set(name)
    try:
        yield name
    finally:
        _current.reset(token)


def begin_request() -> None:
    """From now on all that this context does belongs to one request: a command of the CLI."""
    _current.set(make_request_id())


def with_request(error: EdgermError) -> str:
    """The error's words, and the request that it answers, by which the master's log can be searched."""
    return f"{error} (request {error.request})" if error.request else str(error)

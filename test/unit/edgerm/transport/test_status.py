"""How errors are told over HTTP and CoAP."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from edgerm.core.errors import Code, Conflict, Invalid, TooLarge
from edgerm.transport.status import ANSWERS, answer_of


@pytest.mark.parametrize("code", Code)
def test_every_code_has_an_error_status(code: Code) -> None:
    """No kind of error lacks an answer, and the classes (client's or server's fault) agree."""
    answer = ANSWERS[code]
    assert HTTPStatus(answer.http) >= 400
    assert answer.coap >> 5 == answer.http // 100


@pytest.mark.parametrize(
    ("error", "http", "coap"),
    [(Invalid("x"), 400, 0x80), (TooLarge("x"), 413, 0x8D), (Conflict("x"), 409, 0x89), (KeyError("x"), 500, 0xA0)],
)
def test_an_error_is_told_by_its_code(error: Exception, http: int, coap: int) -> None:
    """The error's own code decides; what is none of ours is an internal error."""
    assert answer_of(error) == (http, coap)

"""The errors: each kind with its HTTP status and its CoAP code, from the table that all faces use."""

from __future__ import annotations

import inspect
import re
from http import HTTPStatus

from edgerm.core import errors
from edgerm.core.errors import Code, EdgermError
from edgerm.transport.status import ANSWERS
from generate.markdown import code, table


def page() -> str:
    """The table."""
    meanings = dict(re.findall(r'\w+ = "(\w+)"  # (.*)', inspect.getsource(Code)))
    kinds = {
        kind.code: name
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, EdgermError) and kind is not EdgermError
    }
    rows = []
    for kind, answer in ANSWERS.items():
        status = HTTPStatus(answer.http)
        coap = f"{answer.coap >> 5}.{answer.coap & 31:02}"
        raised = code(kinds.get(kind, "EdgermError"))
        rows.append((code(kind.value), f"{status.value} {status.phrase}", coap, raised, meanings[kind.value]))
    return "\n".join(table(("code", "HTTP", "CoAP", "in Python", "meaning"), rows))

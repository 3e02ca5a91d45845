"""Typed identifiers, and what makes a task id acceptable.

Framework and offer ids are the master's random run id plus a counter. An agent makes its own id of 128 bits. A
task's key everywhere (journal, cgroup, container label, log) is `TaskKey`.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import NamedTuple, NewType
from urllib.parse import quote

from edgerm.core.errors import Invalid

AgentId = NewType("AgentId", str)
FrameworkId = NewType("FrameworkId", str)
OfferId = NewType("OfferId", str)
TaskId = NewType("TaskId", str)
ExecutorId = NewType("ExecutorId", str)
LaunchId = NewType("LaunchId", str)
StreamId = NewType("StreamId", str)
"""A framework's subscription, as `Mesos-Stream-Id` names it."""

ID_BYTES_MAX = 255
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@~-]{1,64}", re.ASCII)
_UNFIT = re.compile(r"[/\\\x00-\x1f\x7f-\x9f]")


class TaskKey(NamedTuple):
    """One launch of one task: a task id may be used again, a key never is."""

    framework_id: FrameworkId
    task_id: TaskId
    launch_id: LaunchId

    def __str__(self) -> str:
        return "/".join(self)


def check_id(what: str, text: str) -> str:
    """`text` if it may name a thing: 1 to 255 bytes of UTF-8, no `/`, `\\` or control character, not `.` or `..`.

    Raises `Invalid`, naming `what` and the value.
    """
    if not text:
        raise Invalid(f"{what} is empty")
    if text in (".", ".."):
        raise Invalid(f"{what} {text!r} is not allowed: it names a directory")
    if (unfit := _UNFIT.search(text)) is not None:
        raise Invalid(f"{what} {text[:40]!r} contains {unfit[0]!r}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise Invalid(f"{what} {text!r} is not valid Unicode") from error
    if size > ID_BYTES_MAX:
        raise Invalid(f"{what} has {size} bytes, at most {ID_BYTES_MAX} are allowed: {text[:40]!r}…")
    return text


def check_task_id(text: str) -> TaskId:
    """`text` as a task id; raises `Invalid` (see `check_id`)."""
    return TaskId(check_id("task id", text))


def sane_request_id(text: str) -> str:
    """`text` if it may name a request in logs: 1 to 64 letters, digits and `._:/+=@~-`; else nothing."""
    return text if _REQUEST_ID.fullmatch(text) else ""


def path_name(text: str) -> str:
    """`text` as one path component: at most 120 bytes, readable where possible, never two texts alike.

    A long or foreign id would exceed a file name's limit when quoted, so it becomes a hash.
    """
    quoted = quote(text, safe="")
    if len(quoted) <= 120 and not quoted.startswith((".", "+")):
        return quoted
    return "+" + sha256(text.encode()).hexdigest()

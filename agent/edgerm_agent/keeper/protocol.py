"""What an agent and a process that holds tasks (the keeper, the WASM host) say to each other.

What lives here: frames, versions, the names of errors, checks of fields. Not here: sockets, and what a verb does.

A UNIX stream socket `NAME.sock` in the agent's data directory, mode 0600; both ends check the other's uid
(SO_PEERCRED). A frame is 4 bytes length of a JSON object, 4 bytes length of a payload (big endian, at most 1 MiB
each), then both. The client sends requests `{"id": N, "verb": V, ...}`, the server one reply to each, in any
order: `{"id": N, ...}` or `{"id": N, "error": CODE, "message": TEXT}`. Unknown fields are ignored, an unknown verb
is answered `unknown_verb`; a malformed or oversized frame closes the connection. So a newer agent may talk to an
older keeper. A key is `[framework id, task id, launch id]`.

| verb     | fields -> reply                                                                                  |
| -------- | ------------------------------------------------------------------------------------------------ |
| hello    | versions [low, high] -> version, instance, role, pid. First, always; `version` if none is common.  |
| start    | key, note, and what the role needs (below) -> pid or null. Idempotent by key. Answers when the   |
|          | task runs, or `launch_failed`, after which the key is unknown again.                             |
| describe | key -> state, pid, note: whatever small object the start gave, for an agent that forgot.         |
| wait     | key -> exit {reason, code, signal, trap, message, tail}. Answers when the task has ended.        |
| stop     | key, grace_s, optional reason and message to put into the exit -> {}. A second stop may only     |
|          | shorten the grace. A task that has ended: {}.                                                    |
| list     | optional after (a key) -> tasks [{key, state, pid}], more. State: starting, running, ended.      |
| output   | key, stream, offset, max, wait_s -> offset, ended; payload: the bytes. Offset: bytes since the   |
|          | start; negative: before the end. Waits up to wait_s while there are none.                        |
| usage    | key -> cpu_s, memory_bytes, or null each.                                                        |
| input    | key, offset, end, wait_s; payload: bytes, from `offset` of the live input on -> offset (so many   |
|          | are taken), closed. Skips what it has, takes what there is room for, waits up to wait_s for the  |
|          | first; `end` closes after all of it. `not_found`: never open, or closed with bytes left. Version 2. |
| release  | key -> {}. Forgets an ended task; `busy` while it runs. Unknown: {}.                             |
| shutdown | force, grace_s -> {}. Ends the server: with force all tasks first, else `busy` while any is held.  |

The keeper's `start`: program (absent: argv[0]), argv, env [[name, value]...], sandbox, stdin or null, uid, gid, groups
(null: as the keeper), procs [paths of cgroup.procs], as_bytes (RLIMIT_AS) or null, tag (see `members`; one number per
task, never another's), stdin_open (version 2): after `stdin` the verb `input` goes on; cpus [numbers] (version 3): it
runs on these, where no cgroup sees to it; network (version 3): path of the network namespace that it runs in, or empty.
"""

from __future__ import annotations

import json
import struct
from typing import TypeAlias

VERSION_MIN = 1
VERSION_MAX = 3
VERSION_INPUT = 2  # from which on standard input can stay open
VERSION_PLACE = 3  # from which on a task can be told where to run

JSON_BYTES_MAX = 1 << 20
PAYLOAD_BYTES_MAX = 1 << 20
TAIL_BYTES_MAX = 4096
NOTE_BYTES_MAX = 8192

Key: TypeAlias = tuple[str, str, str]
Body: TypeAlias = dict[str, object]

HEAD = struct.Struct("!II")

UNKNOWN_VERB = "unknown_verb"
INVALID = "invalid"
NOT_FOUND = "not_found"
LAUNCH_FAILED = "launch_failed"
BUSY = "busy"
VERSION = "version"
INTERNAL = "internal"


class Malformed(Exception):
    """The peer sent what is no frame; the connection cannot go on."""


class Refused(Exception):
    """A request is answered with an error; `code` is for programs, `str()` one line for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def encode(body: Body, payload: bytes = b"") -> bytes:
    """One frame. Raises `Refused` if it would be larger than the peer accepts."""
    text = json.dumps(body, separators=(",", ":")).encode()
    if len(text) > JSON_BYTES_MAX or len(payload) > PAYLOAD_BYTES_MAX:
        raise Refused(INVALID, f"a frame of {len(text)} + {len(payload)} bytes, at most 1 MiB each is allowed")
    return HEAD.pack(len(text), len(payload)) + text + payload


class FrameReader:
    """Cuts a byte stream into frames; holds at most one incomplete frame and what came with it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[Body, bytes]]:
        """The frames that `data` completes. Raises `Malformed`, of oversized frames as soon as they announce it."""
        self._buffer += data
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> tuple[Body, bytes] | None:
        buffer = self._buffer
        if len(buffer) < HEAD.size:
            return None
        text_len, payload_len = HEAD.unpack_from(buffer)
        if text_len > JSON_BYTES_MAX or payload_len > PAYLOAD_BYTES_MAX:
            raise Malformed(f"a frame announces {text_len} + {payload_len} bytes, at most 1 MiB each is allowed")
        end = HEAD.size + text_len + payload_len
        if len(buffer) < end:
            return None
        body = _parse(bytes(buffer[HEAD.size : HEAD.size + text_len]))
        payload = bytes(buffer[HEAD.size + text_len : end])
        del buffer[:end]
        return body, payload


def _parse(text: bytes) -> Body:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"a frame is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise Malformed("a frame is no JSON object")
    return body


def key_of(body: Body, name: str = "key") -> Key:
    """The task's key in `body`. This and the functions below raise `Refused` if the field is not as it must be."""
    value = body.get(name)
    if isinstance(value, list) and len(value) == 3 and all(isinstance(p, str) and len(p) <= 255 for p in value):
        return (value[0], value[1], value[2])
    raise Refused(INVALID, f"{name} is not three strings of at most 255 characters: {value!r:.100}")


def text_of(body: Body, name: str) -> str:
    """A string."""
    value = body.get(name)
    if isinstance(value, str):
        return value
    raise Refused(INVALID, f"{name} is not a string: {value!r:.100}")


def optional_text_of(body: Body, name: str) -> str | None:
    """A string, or None if absent or null."""
    return None if body.get(name) is None else text_of(body, name)


def texts_of(body: Body, name: str) -> list[str]:
    """A list of strings; absent: empty."""
    value = body.get(name, [])
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return value
    raise Refused(INVALID, f"{name} is not a list of strings: {value!r:.100}")


def numbers_of(body: Body, name: str, high: int) -> list[int]:
    """A list of integers from 0 to `high`; absent: empty."""
    value = body.get(name) or []
    if isinstance(value, list) and all(type(part) is int and 0 <= part <= high for part in value):
        return value
    raise Refused(INVALID, f"{name} is not a list of integers from 0 to {high}: {value!r:.100}")


def integer_of(body: Body, name: str, low: int, high: int) -> int:
    """An integer from `low` to `high`."""
    value = body.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise Refused(INVALID, f"{name} is not an integer from {low} to {high}: {value!r:.100}")


def optional_integer_of(body: Body, name: str, low: int, high: int) -> int | None:
    """An integer from `low` to `high`, or None if absent or null."""
    return None if body.get(name) is None else integer_of(body, name, low, high)


def seconds_of(body: Body, name: str, high: float = 1e9) -> float:
    """A duration from 0 to `high` seconds; absent: 0."""
    value = body.get(name, 0)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= high:
        return float(value)
    raise Refused(INVALID, f"{name} is not a number of seconds from 0 to {high:g}: {value!r:.100}")


def note_of(body: Body) -> Body:
    """A small object, kept and given back as it is; absent: empty."""
    value = body.get("note") or {}
    if isinstance(value, dict) and len(json.dumps(value)) <= NOTE_BYTES_MAX:
        return value
    raise Refused(INVALID, f"note is not an object of at most {NOTE_BYTES_MAX} bytes")


def tail_text(data: bytes) -> str:
    """The end of `data` as valid UTF-8 of at most 4 KiB; a character that the cut split is left out."""
    data = data[-TAIL_BYTES_MAX:]
    skip = 0
    while skip < min(3, len(data)) and data[skip] & 0xC0 == 0x80:
        skip += 1
    text = data[skip:].decode("utf-8", "replace")
    while len(text.encode()) > TAIL_BYTES_MAX:  # each bad byte became three
        text = text[len(text) // 4 + 1 :] if len(text) > 64 else text[1:]
    return text

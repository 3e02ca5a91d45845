"""The last deed of a keeper whose lifeline has ended: remove the agent's containers from the Docker engine.

The agent itself removes them if it lives. One request at a time over the engine's
UNIX socket (Engine API v1.24 on: ContainerList, ContainerDelete), within a bounded time; what fails is left.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable

WHOLE_S = 10.0  # for an engine that is just starting, or refuses
CALL_S = 15.0
PAUSE_S = 0.2
ANSWER_BYTES_MAX = 8 << 20


def remove_all(path: str, label: str) -> None:
    """Remove every container with `label` (NAME=VALUE), running or not; blocks until none is found, or 10 s without."""
    from http.client import HTTPConnection, HTTPException  # noqa: PLC0415 - a keeper that lives needs it never

    def ask(method: str, target: str) -> bytes:
        connection = HTTPConnection("docker", timeout=CALL_S)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(CALL_S)
            connection.sock.connect(path)
            connection.request(method, target)
            return connection.getresponse().read(ANSWER_BYTES_MAX)
        finally:
            connection.close()

    until = time.monotonic() + WHOLE_S
    while time.monotonic() < until:
        try:
            if not _remove_found(ask, label):
                return
        except FileNotFoundError:
            return  # there is no engine
        except (OSError, ValueError, LookupError, TypeError, HTTPException):
            pass  # the engine is away, or begins: it may come back
        time.sleep(PAUSE_S)


def _remove_found(ask: Callable[[str, str], bytes], label: str) -> int:
    """Remove what is found now; how many that were."""
    from urllib.parse import quote  # noqa: PLC0415

    filters = quote(json.dumps({"label": [label]}))
    found = json.loads(ask("GET", f"/containers/json?all=1&filters={filters}"))
    for entry in found:
        ask("DELETE", f"/containers/{entry['Id']}?force=1&v=1")
    return len(found)

"""Whether a Docker engine is there, asked without the `docker` package, which takes 28 MiB of every agent."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

UNIX = "unix://"
ANSWER_S = 3.0
ANSWER_BYTES_MAX = 4096
PORT = 2375  # of an engine at tcp://HOST


def is_there(address: str) -> bool:
    """Whether there is a socket; what is not on this box is taken to be there."""
    if not address.startswith(UNIX):
        return True
    try:
        return Path(address.removeprefix(UNIX)).is_socket()
    except (OSError, ValueError):
        return False


def problem(address: str) -> str | None:
    """Why this agent may never use the engine, with the remedy; None: it may, or there is none."""
    path = address.removeprefix(UNIX)
    if not address.startswith(UNIX) or not is_there(address) or os.access(path, os.R_OK | os.W_OK):
        return None
    return f"the agent may not use {path}: let its user join the group that owns it (docker)"


def answers(address: str) -> bool:
    """Whether an engine answers at this address; waits `ANSWER_S` at most for each step. Blocks."""
    try:
        with _connect(address) as connection:
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return connection.recv(ANSWER_BYTES_MAX).split(b"\r\n")[0].split(b" ")[1:2] == [b"200"]
    except (OSError, ValueError):  # nobody there; no address
        return False


def _connect(address: str) -> socket.socket:
    if not address.startswith(UNIX):
        parts = urlsplit(address)
        return socket.create_connection((parts.hostname or "", parts.port or PORT), ANSWER_S)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(ANSWER_S)
    try:
        connection.connect(address.removeprefix(UNIX))
    except OSError:
        connection.close()
        raise
    return connection

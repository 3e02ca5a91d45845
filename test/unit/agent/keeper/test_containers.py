"""What a keeper does about containers when its lifeline has ended, on a stand-in for the engine's socket.

The real engine is asked in test/integration/test_docker_agent.py.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path

from edgerm_agent.keeper import containers


def serve(listener: socket.socket, answers: list[bytes], asked: list[str]) -> None:
    """Answer one request after the other."""
    for answer in answers:
        connection, _ = listener.accept()
        with connection:
            asked.append(connection.recv(65536).decode().split("\r\n")[0])
            if answer:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)


def test_it_removes_until_none_is_found(tmp_path: Path) -> None:
    """Every labelled container is removed by force with its volumes; an answer that fails is asked for again."""
    before = Path.cwd()
    os.chdir(tmp_path)  # a socket's path has at most 107 bytes
    asked: list[str] = []
    found = json.dumps([{"Id": "one"}, {"Id": "two"}]).encode()
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("engine.sock")
            listener.listen()
            answers = [b"", b"no json", found, b"{}", b"{}", b"[]"]
            thread = threading.Thread(target=serve, args=(listener, answers, asked))
            thread.start()
            containers.remove_all("engine.sock", "edgerm.agent=x")
            thread.join()
    finally:
        os.chdir(before)
    assert asked[3:5] == ["DELETE /containers/one?force=1&v=1 HTTP/1.1", "DELETE /containers/two?force=1&v=1 HTTP/1.1"]
    assert all(line.startswith("GET /containers/json?all=1&filters=") for line in asked[:3] + asked[5:])
    assert "edgerm.agent%3Dx" in asked[0]


def test_without_an_engine_there_is_nothing_to_do(tmp_path: Path) -> None:
    """Where there is no socket it returns at once."""
    containers.remove_all(str(tmp_path / "none.sock"), "edgerm.agent=x")

"""Promises of the socket of an agent's data directory to whoever writes to it, whatever that is."""

from __future__ import annotations

import asyncio
import json
import pwd
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgerm.transport.local import SOCKET, LocalServer, ask

LINES = st.one_of(
    st.binary(max_size=200),
    st.recursive(st.none() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
    .map(json.dumps)
    .map(str.encode),
    st.sampled_from([b"1" * 5000, b"[" * 100_000, b'{"call":"echo"', b'{"call":1e999}', b"\xff\xfe\x00", b"\x00"]),
).map(lambda line: line.replace(b"\n", b" "))


async def echo(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The request."""
    return request


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    """A data directory that is served."""
    server = LocalServer(tmp_path, {"echo": echo})
    await server.begin()
    yield tmp_path
    await server.close()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(line=LINES)
def test_any_line_is_answered(line: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is no call gets an error that is not a fault of ours, and the next call on that connection is served."""
    folder = tmp_path_factory.mktemp("data")

    async def talk() -> list[Any]:
        server = LocalServer(folder, {"echo": echo})
        await server.begin()
        reader, writer = await asyncio.open_unix_connection(str(folder / SOCKET))
        writer.write(line + b'\n{"call": "echo", "x": 1}\n')
        answers = [json.loads(await reader.readline()) for _ in range(2)]
        writer.close()
        await server.close()
        return answers

    first, second = asyncio.run(talk())
    assert first["error"]["code"] == "invalid"
    assert first["error"]["message"]
    assert second == {"ok": {"call": "echo", "x": 1}}


async def test_what_is_asked_when_the_agent_stops(tmp_path: Path) -> None:
    """Whoever waits for an answer is told that there will be none."""
    asked, never = asyncio.Event(), asyncio.Event()

    async def wait(request: Mapping[str, Any]) -> Mapping[str, Any]:
        asked.set()
        await never.wait()
        return {}

    server = LocalServer(tmp_path, {"wait": wait})
    await server.begin()
    asking = asyncio.create_task(ask(tmp_path, "wait"))
    await asked.wait()
    await server.close()
    with pytest.raises(Exception, match="hung up before it answered"):
        await asking
    assert not (tmp_path / SOCKET).exists()


@pytest.mark.root
@pytest.mark.parametrize(
    ("mode", "words"), [(0o711, "is another user's: ask as that user or as root"), (0o700, "data directory")]
)
async def test_another_user_is_told_whose_it_is(folder: Path, mode: int, words: str) -> None:
    """Neither the socket nor its directory lets another user in, and the error says so."""
    code = (
        "import asyncio, os, sys; from pathlib import Path; from edgerm.transport.local import ask\n"
        "os.chdir(sys.argv[1]); os.setuid(int(sys.argv[2]))\n"
        "try: asyncio.run(ask(Path('.'), 'echo'))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    folder.chmod(mode)
    nobody = str(pwd.getpwnam("nobody").pw_uid)
    ran = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code, str(folder), nobody], capture_output=True, text=True, check=True
    )
    assert words in ran.stdout

"""The master's face of the link over CoAP, asked by libcoap's client: another implementation than ours or aiocoap."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import aiohttp
import pytest
from support.coap_wire import POST, path, wire
from support.master import Framework, task

from edgerm.core.ids import AgentId
from edgerm.core.link import Beat, Join, Welcome
from edgerm.core.resources import parse
from edgerm.core.scheduler import AgentSpec
from edgerm.wire.codec import link as codec
from edgerm_master.main import Served

AGENT = AgentId("a" * 32)
CLIENTS = ("coap-client", "coap-client-notls", "coap-client-openssl", "coap-client-gnutls")
BLOB = random.Random(3).randbytes(50_001)
PATIENCE_S = 60


@pytest.fixture
def needs_libcoap() -> str:
    """libcoap's client."""
    found = next(filter(None, map(shutil.which, CLIENTS)), None)
    if found is None:
        pytest.skip("no coap-client: apt install libcoap3-bin")
    return found


@asynccontextmanager
async def client(program: str, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """libcoap's client at work; it is ended with the block."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(program, *words, stdout=pipe, stderr=pipe)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def said(program: str, *words: str) -> tuple[str, str]:
    """What it prints and what it complains of."""
    async with client(program, "-B", "20", *words) as process, asyncio.timeout(PATIENCE_S):
        output, errors = await process.communicate()
    return output.decode(), errors.decode()


@pytest.fixture
def url(master: Served) -> str:
    assert master.coap_url is not None
    return master.coap_url


async def test_discovery(needs_libcoap: str, url: str) -> None:
    """All links, those of one rt, and the same in small blocks."""
    every, _ = await said(needs_libcoap, f"{url}/.well-known/core")
    assert '</d>;rt="edgerm.link.doorbell";obs' in every
    one, _ = await said(needs_libcoap, f"{url}/.well-known/core?rt=edgerm.link.join")
    assert one.strip() == '</j>;rt="edgerm.link.join";ct=42'
    assert (await said(needs_libcoap, "-b", "32", f"{url}/.well-known/core"))[0] == every


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("{}/nowhere",), "4.04"),
        (("-m", "put", "-e", "x", "{}/b"), "4.05"),
        (("-m", "post", "-e", "%ff%ff%ff", "{}/j"), "4.00"),
        (("-m", "post", "-e", "%ff%ff%ff", "{}/b"), "4.00"),
        (("-m", "post", "-e", "x" * 5000, "{}/b"), "4.13"),  # in Block1
        (("-m", "post", "-e", "x" * 5000, "{}/nowhere"), "4.04"),
        (("-m", "post", "-t", "50", "-e", "{{}}", "{}/b"), "4.15"),
        (("-A", "50", "{}/.well-known/core"), "4.06"),
        (("-O", "2049,x", "{}/.well-known/core"), "4.02"),
        (("-s", "5", "{}/d?12345"), "4.09"),
        (("{}/a/" + "0" * 64,), "4.04"),
    ],
)
async def test_refusals(needs_libcoap: str, url: str, words: tuple[str, ...], code: str) -> None:
    """The code that docs/link.md has, with the reason as text."""
    _, errors = await said(needs_libcoap, *(word.format(url) for word in words))
    assert errors.startswith(f"{code} ") and len(errors) > 10


@pytest.mark.parametrize("words", [("-b", "16"), ("-b", "64"), ("-b", "1024"), (), ("-N",)])
async def test_a_blob_is_fetched(
    needs_libcoap: str, master: Served, url: str, tmp_path: Path, words: list[str]
) -> None:
    """Whatever block size is asked for, confirmable or not, the file is the blob."""
    name = sha256(BLOB).hexdigest()
    async with aiohttp.ClientSession() as http, http.put(f"{master.url}/artifacts/{name}", data=BytesIO(BLOB)) as done:
        assert done.status == 201
    _, errors = await said(needs_libcoap, *words, "-o", str(tmp_path / "blob"), f"{url}/a/{name}")
    assert (errors, (tmp_path / "blob").read_bytes()) == ("", BLOB)


async def test_a_doorbell_rings(needs_libcoap: str, master: Served, url: str, tmp_path: Path) -> None:
    """An Observe of libcoap's is told of each ring, and of the session's end."""
    async with wire(url) as peer:
        spec = AgentSpec("here", "x", 5051, parse("cpus:4;mem:2048"))
        answer = await peer.ask(POST, path("j"), codec.encode_join(Join(AGENT, 1, spec)))
        welcome = codec.decode_join_answer(answer.payload)
        assert isinstance(welcome, Welcome)
        listening = client(needs_libcoap, "-w", "-s", "60", f"{url}/d?{welcome.session}")
        async with listening as ear, Framework(master.url) as framework, asyncio.timeout(PATIENCE_S):
            assert ear.stdout is not None and ear.stderr is not None
            assert await ear.stdout.readline() == b"0\n"
            offer = await framework.offer()
            await framework.launch(offer, task(offer, "t"))
            assert await ear.stdout.readline() == b"1\n"
            await peer.ask(POST, path("b"), codec.encode_beat(Beat(welcome.session, 0), AGENT))
            await framework.call("KILL", task_id={"value": "t"})
            assert await ear.stdout.readline() == b"2\n"
            await peer.ask(POST, path("j"), codec.encode_join(Join(AGENT, 2, spec)))
            assert (await ear.stderr.readline()).startswith(b"4.04")

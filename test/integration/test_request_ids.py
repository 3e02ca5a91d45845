"""One id joins what a command says, what the master logs, and what the agent logs; and every line of them is whole."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.fake_agent import FakeAgent
from support.master import Framework, task
from support.processes import Box, running_box

from edgerm.core.errors import NotFound
from edgerm.requests import HEADER, with_request
from edgerm.sdk.operator import Name, Operator
from edgerm.transport.http_client import HttpClient
from edgerm_master.main import Served

EDGERM = (sys.executable, "-c", "from edgerm.cli.main import main; main()")
Line = dict[str, Any]


async def run(box: Box, *words: str) -> tuple[str, str]:
    """Run `edgerm -v …`; what it printed, and the id of the request that it was."""
    pipe = asyncio.subprocess.PIPE
    command = await asyncio.create_subprocess_exec(*EDGERM, "-v", *words, stdout=pipe, stderr=pipe)
    out, said = await command.communicate()
    assert command.returncode == 0, said.decode()
    [name] = set(re.findall(r"request ([\w-]+)$", said.decode(), re.MULTILINE))
    return out.decode().strip(), name


def lines(log: str) -> list[Line]:
    """The log, every line of which must be an object with what all lines have."""
    parsed: list[Line] = [json.loads(line) for line in log.splitlines()]
    for line in parsed:
        assert {"event", "level", "timestamp", "logger"} <= line.keys(), line
    return parsed


def events(log: str, request: str) -> list[str]:
    """What the log says of this request."""
    return [line["event"] for line in lines(log) if line.get("request") == request]


async def test_a_command_is_found_in_every_log(tmp_path: Path) -> None:
    """The id of `edgerm run` stands on the launch in both logs, that of `edgerm kill` on the kill; no disk has them."""
    async with asyncio.timeout(60), running_box(tmp_path, "cpus:2;mem:512") as box:
        here = f"--master={box.url}"
        task_id, launch = await run(box, "run", here, "--detach", "--process", "--", "/bin/sleep", "600")
        _, kill = await run(box, "kill", here, "--wait", task_id)
        master, agent = box.master.log(), box.agent.log()
        assert launch != kill
        assert "framework subscribed" in events(master, launch) and "task launched" in events(master, launch)
        assert events(agent, launch) == ["task launch taken"]
        assert events(master, kill) == ["task kill asked"]
        assert events(agent, kill) == ["task kill taken"]
        told = [line["event"] for line in lines(agent) if line.get("task", "").split("/")[1:2] == [task_id]]
        assert told == ["task launch taken", "task runs", "task kill taken", "task ended"]
        [ended] = [line for line in lines(master) if line["event"] == "task ended"]
        assert (ended["state"], ended["signal"], ended["agent"]) == ("TASK_KILLED", 15, box.agent_id)
        [joined] = [line for line in lines(master) if line["event"] == "agent joined"]
        assert (joined["agent"], joined["carrier"]) == (box.agent_id, "http")
        for file in (*box.master.data_dir.rglob("*"), *box.agent.data_dir.rglob("*")):
            if file.is_file():
                content = file.read_bytes()
                assert launch.encode() not in content and kill.encode() not in content, file


@pytest.mark.parametrize("given", ["mine-1", "A.b:c/d+e=f@g~h", "x" * 64])
async def test_a_sane_id_is_taken_and_told(master: Served, given: str) -> None:
    """What the caller names its request is what the answer is named."""
    async with aiohttp.request("GET", master.url + "/version", headers={HEADER: given}) as answer:
        assert answer.headers[HEADER] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "ünlich", "a\tb", '"'])
async def test_another_id_is_made(master: Served, given: str) -> None:
    """What would spoil a log is not taken: the request gets a name all the same, each another one."""
    names = []
    for path in ("/version", "/nowhere"):
        async with aiohttp.request("GET", master.url + path, headers={HEADER: given}) as answer:
            names.append(answer.headers[HEADER])
    assert all(re.fullmatch(r"[0-9a-f]+-[0-9]+", name) for name in names) and len(set(names)) == 2


async def test_a_stream_has_an_id(master: Served) -> None:
    """The answer to SUBSCRIBE names its request as well."""
    async with Framework(master.url, headers={HEADER: "sub-1"}) as framework:
        assert framework.answer.headers[HEADER] == "sub-1"


async def test_an_order_names_the_call(master: Served) -> None:
    """The agent is told which request a launch came from."""
    async with FakeAgent(master.url) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        await framework.status()
        assert re.fullmatch(r"[0-9a-f]+-[0-9]+", agent.launches[0].request)


async def test_an_error_names_its_request(master: Served) -> None:
    """The SDK's errors tell by which id the master's log knows the call."""
    async with HttpClient(master.url) as client:
        with pytest.raises(NotFound) as caught:
            await Operator(client).kill(Name("nobody"))
    assert re.search(r"\(request [0-9a-f]+-[0-9]+\)$", with_request(caught.value))

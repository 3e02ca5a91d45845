"""Promises of an agent to whoever asks on its box: devices, local grants, shared memories; with a master or without."""

from __future__ import annotations

import asyncio
import json
import re
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.agent import agent_here, agent_process
from support.cli import edgerm

from edgerm.cli.devices import rows
from edgerm.core.errors import Conflict, EdgermError, Invalid, NotFound, Unavailable
from edgerm.sdk import connect
from edgerm.transport.local import SOCKET, LocalServer, ask
from edgerm_agent import doctor
from edgerm_agent.config import Config
from edgerm_master.main import Served

CORE = "siemens.com/isolated_core"
MEMORY = "siemens.com/shared_memory"
ONE = [{"type": CORE}]
CPUS = {"cpu": {"fake": [{"id": str(cpu), "metadata": {"cpuset": [cpu]}} for cpu in (90, 91)]}}
TOML = '[[devices.cpu.fake]]\nid = "90"\nmetadata = { cpuset = [90] }\n'
OFF = {"process": {"enabled": False}, "docker": {"enabled": False}}


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[Path]:
    """The data directory of an agent without a master."""
    folder = tmp_path / "agent"
    async with agent_here(folder, "", devices=CPUS, executors=OFF):
        yield folder


async def holders(folder: Path) -> dict[str, str]:
    found = await ask(folder, "devices")
    return {row["id"]: row["holder"] for row in found["devices"]}


async def test_devices_are_taken_and_given_back_without_a_master(alone: Path) -> None:
    """A local grant takes devices at once, tells what they are, is the same when asked for again, and ends."""
    got = await ask(alone, "grant", id="plc", claims=ONE)
    assert dict(got["setup"]["env"]) == {"IEDGE_CPUSET_ISOLATED": "90"}
    assert await ask(alone, "grant", id="plc", claims=ONE) == got
    assert await holders(alone) == {"cpu90": "plc", "cpu91": ""}
    assert await ask(alone, "release", id="plc") == {"quarantine": {}}
    assert await holders(alone) == {"cpu90": "", "cpu91": ""}
    with pytest.raises(NotFound, match="'plc'"):
        await ask(alone, "release", id="plc")


async def test_two_who_ask_at_once_for_one_grant(alone: Path) -> None:
    """One of them gets it, the other is told to ask again; nothing is given twice."""
    asked = (ask(alone, "grant", id="plc", claims=ONE) for _ in range(4))
    got = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(each) for each in got} <= {dict, Unavailable}
    assert dict in {type(each) for each in got}
    assert await holders(alone) == {"cpu90": "plc", "cpu91": ""}
    await ask(alone, "release", id="plc")
    assert await holders(alone) == {"cpu90": "", "cpu91": ""}


async def test_a_busy_class_fails_at_once(alone: Path) -> None:
    """Nobody waits for a local grant: the error names the claim, the class, what was asked, what there was, and who."""
    await ask(alone, "grant", id="first", claims=[{"type": CORE, "count": 2}])
    with pytest.raises(Conflict, match=rf"claim 'fast' .*{CORE}.*1 exclusive asked for.*held by first"):
        await ask(alone, "grant", id="second", claims=[{"name": "fast", "type": CORE}])
    with pytest.raises(Conflict, match=r"nvidia\.com/gpu"):
        await ask(alone, "grant", id="third", claims=[{"type": "nvidia.com/gpu"}])
    with pytest.raises(Conflict, match="has other claims"):
        await ask(alone, "grant", id="first", claims=ONE)


async def test_two_that_ask_at_once(alone: Path) -> None:
    """One id is granted once, one device has one holder: whoever comes second is told to ask again, or who has it."""
    same = await asyncio.gather(*(ask(alone, "grant", id="plc", claims=ONE) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(answer, dict) for answer in same) >= 1
    assert all(isinstance(answer, dict | Unavailable) for answer in same), same
    assert await holders(alone) == {"cpu90": "plc", "cpu91": ""}
    others = await asyncio.gather(
        *(ask(alone, "grant", id=name, claims=ONE) for name in ("a", "b")), return_exceptions=True
    )
    assert sorted(type(answer).__name__ for answer in others) == ["Conflict", "dict"]
    assert sorted((await holders(alone)).values()) in (["a", "plc"], ["b", "plc"])


async def test_filters_and_config_go_with_a_local_grant(alone: Path) -> None:
    """A filter chooses; a config key that the class does not know is refused, and nothing is held then."""
    only = [{"key": "cpuset", "operator": "Contains", "values": [91]}]
    got = await ask(alone, "grant", id="plc", claims=[{"type": CORE, "expressions": only}])
    assert [each["ids"] for each in got["granted"]] == [["cpu91"]]
    with pytest.raises(Conflict, match="'speed'"):
        await ask(alone, "grant", id="fast", claims=[{"type": CORE, "config": {"speed": 1}}])
    assert await holders(alone) == {"cpu90": "", "cpu91": "plc"}


MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"id": "", "claims": ONE}, "id ''"),
    ({"id": "a/b", "claims": ONE}, "a/b"),
    ({"id": "a", "claims": 3}, "claims 3"),
    ({"id": "a", "claims": ONE, "app": "a/b"}, "a/b"),
    ({"id": "a", "claims": [{}]}, "type None"),
    ({"id": "a", "claims": [{"type": CORE, "count": -1}]}, "-1"),
    ({"id": "a", "claims": [{"type": CORE, "count": 1.5}]}, "1.5"),
    ({"id": "a", "claims": [{"type": CORE, "shared": "yes"}]}, "shared 'yes'"),
    ({"id": "a", "claims": [{"type": CORE, "optional": "no"}]}, "optional 'no'"),
    ({"id": "a", "claims": [{"type": CORE, "name": ["x"]}]}, "name ['x']"),
    ({"id": "a", "claims": []}, "claims are none"),
    ({"id": "a", "claims": [{"type": CORE, "expressions": [{"key": "a", "operator": "in"}]}]}, "operator 'in'"),
    ({"id": "a", "claims": [{"type": CORE, "expressions": [{"key": "a", "operator": "In"}]}]}, "values None"),
]


async def test_a_malformed_request_is_refused(alone: Path) -> None:
    """What is wrong is named with its value, and nothing is held."""
    for request, words in MALFORMED:
        with pytest.raises(Invalid, match=re.escape(words)):
            await ask(alone, "grant", **request)
    assert set((await holders(alone)).values()) == {""}


async def test_only_its_user_may_ask(alone: Path) -> None:
    """The socket is the agent's own user's."""
    assert stat.S_IMODE((alone / SOCKET).stat().st_mode) == 0o600


async def test_what_is_no_call_is_told(alone: Path) -> None:
    """Lines that are no JSON, no object, no call or too long get an error; the agent goes on."""
    with pytest.raises(Invalid, match=r"'dance' is not known here; there are .*devices"):
        await ask(alone, "dance")
    for line, words in ((b"{", "no JSON"), (b"[]\n", "a JSON object"), (b"x" * (2 << 20), "at most")):
        reader, writer = await asyncio.open_unix_connection(str(alone / SOCKET), limit=4 << 20)
        writer.write(line if line.endswith(b"\n") else line + b"\n")
        assert words in json.loads(await reader.readline())["error"]["message"]
        writer.close()
    assert len(await holders(alone)) == 2


async def test_where_no_agent_runs_that_is_told(tmp_path: Path) -> None:
    """The error names the directory and the command that helps."""
    with pytest.raises(Unavailable, match=rf"no agent runs on {tmp_path}.*edgerm agent"):
        await ask(tmp_path, "devices")


async def test_errors_cross_the_socket_as_they_are(tmp_path: Path) -> None:
    """Every kind of error that an agent tells is the same kind for who asked; a fault of ours is told as one."""

    async def fail(request: Any) -> Any:
        raise {"conflict": Conflict("a"), "not_found": NotFound("b"), "fault": KeyError("c")}[request["kind"]]

    server = LocalServer(tmp_path, {"fail": fail})
    await server.begin()
    for kind, expected in (("conflict", Conflict), ("not_found", NotFound), ("fault", EdgermError)):
        with pytest.raises(expected) as caught:
            await ask(tmp_path, "fail", kind=kind)
        assert type(caught.value) is expected
    await server.close()


async def test_the_master_offers_nothing_that_is_taken_here(tmp_path: Path, master: Served) -> None:
    """A local grant's device is not offered, and everybody sees who has it; given back, it is offered again."""
    folder = tmp_path / "agent"
    async with agent_here(folder, master.url, devices=CPUS), connect(master.url) as cluster:
        await ask(folder, "grant", id="plc", claims=[{"type": CORE, "count": 2}])
        listed = await listed_with("plc,plc", cluster)
        assert {row["holder"] for row in listed} == {"plc"}
        task = await cluster.launch(process=["/bin/true"], claims=[f"{CORE}=1"])
        await ask(folder, "release", id="plc")
        assert (await task.wait()).exit_code == 0  # it was not lost to a device that it could not have


async def listed_with(expected: str, cluster: Any) -> list[dict[str, Any]]:
    async with asyncio.timeout(30):
        while True:
            found: list[dict[str, Any]] = await rows(cluster.operator)
            if ",".join(row["holder"] for row in found) == expected:
                return found
            await asyncio.sleep(0.02)


async def test_local_grants_outlive_the_agent(tmp_path: Path) -> None:
    """After kill -9 the next agent still holds them for who has them, and gives them back when asked."""
    (tmp_path / "agent.toml").write_text(TOML)
    folder, flags = tmp_path / "data", ("--config", str(tmp_path / "agent.toml"))
    async with agent_process(folder, "", *flags) as agent:
        got = await ask(folder, "grant", id="plc", claims=ONE)
        await agent.end(kill=True)
    async with agent_process(folder, "", *flags):
        assert await holders(folder) == {"cpu90": "plc"}
        assert await ask(folder, "grant", id="plc", claims=ONE) == got
        await ask(folder, "release", id="plc")
        assert await holders(folder) == {"cpu90": ""}


async def test_the_commands_for_a_box(alone: Path) -> None:
    """`edgerm devices --data-dir` lists, `edgerm grant` prints the variables, `--release` gives back."""
    where = ("--data-dir", str(alone))
    assert await edgerm("grant", "plc", "--claim", f"{CORE}=2", *where) == "IEDGE_CPUSET_ISOLATED=90-91\n"
    listed = json.loads(await edgerm("devices", "--json", *where))
    assert {"class", "id", "pool", "health", "holder", "metadata", "quarantine"} <= listed[0].keys()
    assert [(row["health"], row["holder"], row["fake"]) for row in listed] == [("Healthy", "plc", True)] * 2
    assert "Healthy, fake" in await edgerm("devices", *where)
    await edgerm("grant", "plc", "--release", *where)
    assert [row["holder"] for row in json.loads(await edgerm("devices", "--json", *where))] == ["", ""]


@pytest.mark.root
async def test_memories_come_and_go_while_the_agent_runs(alone: Path) -> None:
    """`edgerm shm` makes one that can be claimed at once, changes one that nobody has, and ends it with its mount."""
    where = ("--data-dir", str(alone))
    wish = [{"type": MEMORY, "expressions": [{"key": "labels", "operator": "Contains", "values": ["frames"]}]}]
    await edgerm("shm", "create", "frames", "--size", "1M", "--label", "frames", "--permit", "plc=ro", *where)
    try:
        asked = [{**wish[0], "config": {"permissions": ["ro"]}}]
        got = await until_there(alone, asked)
        [mount] = got["setup"]["mounts"]
        assert mount["read_only"]
        assert Path(mount["source"]).is_mount()
        with pytest.raises(Conflict, match=r"is used by local/plc/"):
            await ask(alone, "resize_memory", name="frames", size="2M")
        with pytest.raises(Conflict, match="the operator lets app 'other' not have"):
            await ask(alone, "grant", id="other", claims=asked)
        await ask(alone, "release", id="plc")
        await edgerm("shm", "resize", "frames", "--size", "2M", *where)
    finally:
        await edgerm("shm", "delete", "frames", *where)
    assert not Path(mount["source"]).exists()
    with pytest.raises(NotFound, match="'frames'"):
        await ask(alone, "delete_memory", name="frames")


async def until_there(folder: Path, claims: list[dict[str, Any]]) -> Any:
    """A plugin that was made for the first memory is heard of a moment later."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await ask(folder, "grant", id="plc", claims=claims)
            except Conflict as error:
                assert MEMORY in str(error)
            await asyncio.sleep(0.02)


async def test_the_doctor_asks_an_agent_that_runs(alone: Path) -> None:
    """What a running agent has it tells itself, whatever the settings say by now."""
    table = msgspec.convert({"data_dir": str(alone), "devices": CPUS}, Config)
    told = {what: (well, remedy) for what, well, remedy in await asyncio.to_thread(doctor.check, table)}
    assert told[f"device cpu90 of {CORE} (a fake)"] == (True, "")
    other = msgspec.structs.replace(table, devices=msgspec.convert({}, type(table.devices)))
    assert f"device cpu91 of {CORE} (a fake)" in {what for what, *_ in await asyncio.to_thread(doctor.check, other)}

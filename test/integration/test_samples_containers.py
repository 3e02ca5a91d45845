"""The sample frameworks of containers, as programs, with the tests' Docker engine."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import suppress

import docker
import docker.errors
import pytest
import pytest_asyncio
from support.containers import DEADLINE_S, containers_of
from support.engine import IMAGE, TestEngine
from support.fleet import Fleet, run_sample, running_fleet, sample

from edgerm_agent.executors.docker import container

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(engine: TestEngine, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """One agent with an engine and a camera, and one with neither, for all tests of this file."""
    async with running_fleet(tmp_path_factory.mktemp("fleet"), {"bare": ""}) as made:
        camera = {"name": "camera", "id": "front", "environment": {"CAMERA": "front"}}
        await made.join("engine", executors={"docker": {"socket": engine.url}}, devices={"declared": [camera]})
        yield made


def containers(engine: TestEngine, fleet: Fleet, name: str) -> list[str]:
    """The IDs of the containers of this stage."""
    found = containers_of(engine, f"{container.AGENT}={fleet.agents['engine'].agent_id}")
    return [one["Id"] for one in found if one["State"] == "running" and name in str(one["Labels"])]


def frame_of(line: str) -> int:
    """The number of a frame in a line of the sink; 0: there is none."""
    found = re.fullmatch(r"frame (\d+): mean brightness \d+\.\d", line)
    return int(found[1]) if found else 0


async def test_a_broken_stage_of_the_pipeline_is_started_again(engine: TestEngine, fleet: Fleet) -> None:
    """Frames go through; a stage that is killed comes back, no frame is left out; at the end no container is left."""
    async with sample("camera_pipeline", fleet.url, "0", IMAGE) as program:
        await program.until(lambda line: frame_of(line) >= 3)
        (victim,), (camera,) = (containers(engine, fleet, name) for name in ("filter", "camera"))
        with engine.client() as client:
            assert "CAMERA=front" in client.inspect_container(camera)["Config"]["Env"]
            assert "CAMERA=front" not in client.inspect_container(victim)["Config"]["Env"]
            client.kill(victim)
        await program.until(lambda line: line.startswith("filter ended"))
        await program.until(lambda line: line == "filter runs")
        last = max(map(frame_of, program.lines))
        await program.until(lambda line: frame_of(line) >= last + 3)
        assert await program.end() == 130
    frames = [frame_of(line) for line in program.lines if frame_of(line)]
    assert sorted(set(frames)) == list(range(1, max(frames) + 1))
    with engine.client() as client:
        for one in containers(engine, fleet, ""):  # the framework is gone; they are on their way
            with suppress(docker.errors.NotFound):
                client.wait(one, timeout=DEADLINE_S)
    assert containers(engine, fleet, "") == []


async def test_the_pipeline_ends_after_so_many_frames(fleet: Fleet) -> None:
    """It goes on where the one before it ended, and ends by itself."""
    status, lines, err = await run_sample("camera_pipeline", fleet.url, "2", IMAGE)
    assert (status, err) == (0, "")
    assert len([line for line in lines if frame_of(line)]) == 2


async def test_an_image_that_cannot_be_had_is_told(fleet: Fleet) -> None:
    """No stage is tried again that can never run."""
    status, lines, err = await run_sample("camera_pipeline", fleet.url, "1", "127.0.0.1:9/no/such:1")
    assert (status, lines) == (1, [])
    assert err.startswith("camera_pipeline: the sink cannot run: ")
    assert "127.0.0.1:9/no/such:1" in err


async def test_one_container(fleet: Fleet) -> None:
    """It runs where the engine is."""
    assert await run_sample("one_container", fleet.url, IMAGE) == (
        0,
        [f"one container of {IMAGE}: hello from a container"],
        "",
    )

"""Sample frameworks that end by themselves, as programs, against a real master and real agents."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from zlib import crc32

import pytest
import pytest_asyncio
from support.fleet import Fleet, run_sample, running_fleet, sample

from edgerm.core.ids import AgentId
from edgerm_frameworks.modules import sensor_lines, windowed_stats_lines

pytestmark = pytest.mark.asyncio(loop_scope="module")

AGENTS = {
    "a": "zone:north;sensor:boiler;domain:127.0.0.1",
    "b": "zone:south;sensor:mill;domain:127.0.0.1",
    "c": "zone:south;domain:127.0.0.1",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """Three agents in two zones, each with a sensor, two by an attribute and one as a device, for all tests here."""
    first = {name: attributes for name, attributes in AGENTS.items() if name != "c"}
    async with running_fleet(tmp_path_factory.mktemp("fleet"), first) as made:
        await made.join("c", AGENTS["c"], devices={"declared": [{"name": "sensor", "id": "lab"}]})
        yield made


async def test_run_once(fleet: Fleet) -> None:
    """One task is awaited, another one watched."""
    status, lines, err = await run_sample("run_once", fleet.url)
    assert (status, err) == (0, "")
    assert lines == [
        "FINISHED exit code 0",
        *windowed_stats_lines([1500, 2500, 3500, 10000, 20000, 30000], 3),
        "live: 0 1 7.000 7.000 7.000 0.000",
        "FINISHED",
    ]


async def test_spread_is_even_over_the_values_of_an_attribute(fleet: Fleet) -> None:
    """Of seven tasks four run in one zone and three in the other, on agents of that zone."""
    status, lines, err = await run_sample("spread", fleet.url, "zone", "7")
    assert (status, err) == (0, "")
    zones = {
        agent.agent_id: AGENTS[name].partition(";")[0].removeprefix("zone:") for name, agent in fleet.agents.items()
    }
    rows = [re.fullmatch(r"zone=(\w+): spread-\w+ on agent (\w+): \d+\.\d+", line) for line in lines]
    assert Counter(row[1] for row in rows if row) == {"north": 4, "south": 3}
    assert all(row and zones[AgentId(row[2])] == row[1] for row in rows), lines


async def test_map_reduce_reduces_what_was_mapped_at_the_sensors(fleet: Fleet) -> None:
    """Each agent with a sensor maps its own readings, and the result is that of all of them, digit for digit."""
    status, lines, err = await run_sample("map_reduce", fleet.url, "1000")
    assert (status, err) == (0, "")
    assert sorted(lines[:3]) == [
        "boiler on a: 1000 readings, 10 mapped",
        "lab on c: 1000 readings, 10 mapped",
        "mill on b: 1000 readings, 10 mapped",
    ]
    sensors = [line.split()[0] for line in lines[:3]]
    mapped = [line for sensor in sensors for line in sensor_lines(crc32(sensor.encode()), 1000, 100)]
    (wanted,) = windowed_stats_lines([int(line.replace(".", "")) for line in mapped], 30)
    _, count, low, high, mean, deviation = wanted.split()
    assert lines[3] == f"reduced: {count} values from {low} to {high}, mean {mean}, standard deviation {deviation}"


async def test_sensor_watch_tells_of_readings_above_a_limit(fleet: Fleet) -> None:
    """Every reading above the limit is printed, no other one, and what the latest thirty were like."""
    status, lines, err = await run_sample("sensor_watch", fleet.url, "mill", "20", "40", "1")
    assert (status, err) == (0, "")
    readings = sensor_lines(crc32(b"mill"), 40, 1)
    assert lines[:-1] == [f"mill: {reading} is above 20" for reading in readings if float(reading) > 20]
    latest = [float(reading) for reading in readings[-30:]]
    assert lines[-1].startswith(f"mill: latest 30 from {min(latest)} to {max(latest)}, mean {sum(latest) / 30:.3f}")


async def test_sensor_watch_ends_with_its_task(fleet: Fleet) -> None:
    """Ctrl-C amid an endless task: a last line, and nothing runs on."""
    async with sample("sensor_watch", fleet.url, "boiler", "0", "0", "1") as program:
        await program.until(lambda line: "is above 0" in line)
        assert await program.end() == 130
    assert program.lines[-1].startswith("boiler: latest ")
    assert not any(key for key, task in fleet.master.shell.core.tasks.items() if not task.run.state.terminal)


async def test_profiler_measures_every_agent_and_every_way(fleet: Fleet) -> None:
    """A row for each agent with its speed, and the time to each, itself included."""
    status, lines, err = await run_sample("profiler", fleet.url)
    assert (status, err) == (0, "")
    head, *rows = lines
    assert sorted(re.findall(r"→ (\w)", head)) == ["a", "b", "c"]
    assert len(rows) == 3
    for row in rows:
        cells = re.fullmatch(r"\w +(\d+) +(\d+\.\d{3}) ms +(\d+\.\d{3}) ms +(\d+\.\d{3}) ms", row)
        assert cells is not None, row
        assert all(float(cell) > 0 for cell in cells.groups()), row


async def test_greedy_sits_on_every_offer(fleet: Fleet) -> None:
    """It says so, and goes when it is asked to; then others run."""
    async with sample("greedy", fleet.url) as program:
        await program.until(lambda line: line == "sits on 3 offers")
        assert await program.end() == 130
    assert (await run_sample("run_once", fleet.url))[0] == 0


@pytest.mark.parametrize(
    ("name", "args", "status", "said"),
    [
        ("spread", ("floor",), 1, "spread: no agent has the attribute 'floor': start them with --attributes floor:…\n"),
        ("spread", ("zone", "many"), 2, "spread: how many? 'many' is no number\n"),
        ("map_reduce", ("9",), 2, "map_reduce: how many readings? '9' is not a number of 100 or more\n"),
        ("sensor_watch", ("mill", "hot"), 2, "sensor_watch: could not convert string to float: 'hot'\n"),
        ("camera_pipeline", (), 1, "camera_pipeline: no agent has a Docker engine that answers\n"),
    ],
)
async def test_what_cannot_be_done_is_one_line(
    fleet: Fleet, name: str, args: tuple[str, ...], status: int, said: str
) -> None:
    """Wrong arguments, or agents without what is needed: one line, and a status that tells which."""
    assert await run_sample(name, fleet.url, *args) == (status, [], said)

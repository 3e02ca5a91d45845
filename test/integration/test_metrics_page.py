"""docs/reference/metrics.md and what a master exports: the same names, types and labels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from support.fake_agent import FakeAgent, finishes
from support.master import Framework, task

from edgerm_master.main import Served

PAGE = Path(__file__).parents[2] / "docs/reference/metrics.md"


class Row(NamedTuple):
    """One metric, as the page has it or the master exports it."""

    kind: str
    labels: frozenset[str]


def rows() -> dict[str, Row]:
    """The table of names."""
    found: dict[str, Row] = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[0].startswith("`"):
            name = cells[0].strip("`")
            assert name not in found and cells[4], line
            found[name] = Row(cells[1], frozenset(re.findall(r"`(\w+)`", cells[3])))
    return found


def exported(text: str) -> Iterator[tuple[str, str, set[frozenset[str]]]]:
    """Each family's name as the page writes it, its type, and the sets of labels that its samples have."""
    for family in text_string_to_metric_families(text):
        name = family.name + "_total" if family.type == "counter" else family.name
        yield name, family.type, {frozenset(sample.labels) - {"le"} for sample in family.samples}


async def test_the_page_and_the_master_agree(master: Served) -> None:
    """Every metric on the page is exported, and every exported one is on the page, with its type and labels."""
    page = rows()
    async with FakeAgent(master.url, on_launch=finishes), Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        for _ in range(2):
            await framework.acknowledge(await framework.status())
        await framework.call("REQUEST", requests=[])
        async with aiohttp.request("GET", master.url + "/metrics") as answer:
            found = {name: (kind, labels) for name, kind, labels in exported(await answer.text())}
    assert sorted(found) == sorted(page)
    for name, (kind, labels) in found.items():
        assert page[name].kind == kind, name
        assert all(some == page[name].labels for some in labels), (name, labels)


async def test_counters_count(master: Served) -> None:
    """A task's way is seen in the counters of offers, launches, ends, calls, beats, orders and commits."""
    async with FakeAgent(master.url, on_launch=finishes) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        for _ in range(2):
            await framework.acknowledge(await framework.status())
        await agent.until(lambda agent: bool(agent.forgotten))
        await framework.call("KILL")  # without a task id
        framework.stream_id = "stale"
        await framework.call("REVIVE")
        async with aiohttp.request("GET", master.url + "/metrics") as answer:
            lines = (await answer.text()).splitlines()
    values = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}
    assert values['edgerm_offers_total{event="accepted"}'] == 1
    assert values["edgerm_tasks_launched_total"] == 1
    assert values['edgerm_tasks_ended_total{reason="none",state="TASK_FINISHED"}'] == 1
    assert values['edgerm_calls_total{api="scheduler",outcome="ok",type="ACKNOWLEDGE"}'] == 2
    assert values['edgerm_calls_total{api="scheduler",outcome="ok",type="SUBSCRIBE"}'] == 1
    assert values['edgerm_calls_total{api="scheduler",outcome="refused",type="unreadable"}'] == 1
    assert values['edgerm_calls_total{api="scheduler",outcome="refused",type="REVIVE"}'] == 1
    assert values['edgerm_link_joins_total{carrier="http",outcome="joined"}'] == 1
    assert values['edgerm_link_orders_total{kind="launch"}'] == 1
    assert values['edgerm_link_beats_total{carrier="http",outcome="taken"}'] >= 2
    assert values["edgerm_registry_commit_seconds_count"] >= 3
    assert values["edgerm_status_updates_total"] == 2

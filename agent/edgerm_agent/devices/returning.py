"""The devices of tasks that were all ended, given back at once: where the agent ends with its tasks, and by a purge.

What does not live here: how one task's are given back (`manager`), and what a running agent does about those that are
not clean (its core).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from edgerm.core.ids import TaskKey
from edgerm_agent.core.records import GrantRecord
from edgerm_agent.devices.manager import Devices

RETURN_S = 30.0  # for all of them
TRIES = 5  # what a task that was just killed had is not clean at once
RETRY_FIRST_S = 0.1

Left = dict[tuple[TaskKey, str], str]


async def give_back_all(devices: Devices, grants: Iterable[GrantRecord], within_s: float = RETURN_S) -> list[str]:
    """Make them as they were before their tasks; what is not, a line each."""
    tasks: dict[TaskKey, list[GrantRecord]] = {}
    for grant in grants:
        tasks.setdefault(grant.key, []).append(grant)
    left: Left = {(grant.key, grant.name): "its plugin does not answer" for some in tasks.values() for grant in some}
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await asyncio.gather(*(_give_back(devices, key, some, left) for key, some in tasks.items()))
    return [f"a device of {name} of task {key.task_id!r}: {why}" for (key, name), why in left.items()]


async def _give_back(devices: Devices, key: TaskKey, grants: list[GrantRecord], left: Left) -> None:
    """Takes what is clean out of `left`."""
    wait_s = RETRY_FIRST_S
    for again in reversed(range(TRIES)):
        evidence = await devices.take_back(key, grants)
        for grant in grants:
            if why := evidence.get(grant.name):
                left[key, grant.name] = why
            else:
                del left[key, grant.name]
        grants = [grant for grant in grants if grant.name in evidence]
        if not grants or not again:
            return
        await asyncio.sleep(wait_s)
        wait_s *= 2

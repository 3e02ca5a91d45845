"""Spread tasks over the values of an attribute, as evenly as can be: over zones, floors, power supplies. On agents with
`edgerm agent --attributes zone:a` and so on:

    python -m edgerm_frameworks.spread [URL of a master] [ATTRIBUTE] [N]
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable

from edgerm.core.attributes import texts
from edgerm.sdk import Agent, Unavailable, connect
from edgerm_frameworks.modules import SENSOR
from edgerm_frameworks.program import run, start

MASTER = "http://127.0.0.1:5050"


# 1. An attribute is what an operator says of a box. It may be a text, a number, or a set of several.
def values(agents: Iterable[Agent], attribute: str) -> list[str]:
    """Every value that an agent has, once."""
    return sorted({text for agent in agents for text in texts(agent.attributes.get(attribute, ()))})


async def spread(master: str, attribute: str, count: int) -> int:
    """Run so many tasks; print where each ran."""
    async with connect(master) as cluster:
        found = values((await cluster.agents()).values(), attribute)
        if not found:
            raise Unavailable(f"no agent has the attribute {attribute!r}: start them with --attributes {attribute}:…")

        # 2. A constraint names the value that a task is meant for. It waits until an agent with that value has room:
        #    the spread stays even also where one value has less room than others.
        async def one(number: int) -> tuple[str, str]:
            value = found[number % len(found)]
            result = await cluster.run(
                wasm=SENSOR,
                args=[str(number), "1000", "1000", "0"],
                constraints=[f"{attribute}={value}"],
                name="spread",
            )
            return value, f"{result.task_id} on agent {result.status.agent_id}: {result.output.decode().strip()}"

        # 3. All at once. Within one value the SDK takes agents in turn.
        rows = await asyncio.gather(*(one(number) for number in range(count)))
    for value, row in sorted(rows):
        print(f"{attribute}={value}: {row}")
    return 0


def main(master: str = MASTER, attribute: str = "zone", count: str = "6") -> int:
    """Spread them; the exit status: 1 no agent has the attribute, 2 wrong arguments, 130 after Ctrl-C."""
    if not count.isdecimal():
        sys.stderr.write(f"spread: how many? {count!r} is no number\n")
        return 2
    return run("spread", spread(master, attribute, int(count)))


if __name__ == "__main__":
    raise SystemExit(start(main, __doc__, sys.argv[1:]))

"""A framework that takes all that is offered and uses none of it: what the others must survive. For tests of a cluster:

    python -m edgerm_frameworks.greedy [URL of a master]

The master takes back what nobody answers, and serves whoever has least: the others wait, but not for ever. It says how
many offers it sits on; Ctrl-C ends it.
"""

from __future__ import annotations

import sys

from edgerm.sdk import Driver, Offer, Scheduler, Session, framework
from edgerm_frameworks.program import run, start

MASTER = "http://127.0.0.1:5050"


class Greedy(Scheduler):
    """Neither accepts nor declines. `driver.held` are the offers that it sits on."""

    def offers(self, driver: Session, offers: tuple[Offer, ...]) -> None:
        """Keep them."""
        print(f"sits on {len(driver.held)} offers", flush=True)

    def rescinded(self, driver: Session, offer: Offer) -> None:
        """The master took one back."""
        print(f"lost one, sits on {len(driver.held)} offers", flush=True)


async def greedy(master: str) -> int:
    """Until it is ended."""
    async with Driver(Greedy(), master, framework("greedy"), patient=False) as driver:
        await driver.ended()
    return 0


def main(master: str = MASTER) -> int:
    """The exit status: 1 the master is away or refused, 130 after Ctrl-C."""
    return run("greedy", greedy(master))


if __name__ == "__main__":
    raise SystemExit(start(main, __doc__, sys.argv[1:]))

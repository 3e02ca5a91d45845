"""`python -m edgerm.testing.sim`: many seeds, or one of them again."""

from __future__ import annotations

import argparse
import sys
import time

from edgerm.testing.sim.fleet import run_fleet
from edgerm.testing.sim.suite import run_seed


def main() -> int:
    """Run; 0 when every seed held, 1 when one did not (its replay command is printed)."""
    parser = argparse.ArgumentParser(prog="python -m edgerm.testing.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, metavar="N", help="how many seeds (default 1000)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first of them (default 0)")
    parser.add_argument("--agents", type=int, metavar="N", help="one run of a fleet of N agents, whose master dies")
    parser.add_argument("--seed", type=int, metavar="SEED", help="only this one, with its plan")
    chosen = parser.parse_args()
    if chosen.agents is not None:
        outcome = run_fleet(chosen.first if chosen.seed is None else chosen.seed, chosen.agents)
        print(outcome)
        return 1 if outcome.problem else 0
    seeds = range(chosen.first, chosen.first + chosen.seeds) if chosen.seed is None else [chosen.seed]
    begun_s, events, failures = time.monotonic(), 0, 0
    for seed in seeds:
        outcome = run_seed(seed)
        events += outcome.events
        if outcome.problem or chosen.seed is not None:
            print(outcome, file=sys.stderr)
        failures += bool(outcome.problem)
    took_s = time.monotonic() - begun_s
    print(f"{len(seeds)} seeds, {events} events, {failures} failed, {took_s:.1f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""The peer: Ray's warm no-op task, submit to result. Runs in Ray's own environment; reads counts, answers seconds."""

from __future__ import annotations

import json
import logging
import sys
from time import perf_counter, sleep

import ray  # type: ignore[import-not-found,unused-ignore]


def main() -> None:
    """One task in flight, on a worker that is warm."""
    ray.init(
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100 << 20,
    )

    @ray.remote  # type: ignore[misc,untyped-decorator,unused-ignore]
    def noop() -> None:
        return None

    for _ in range(200):
        ray.get(noop.remote())
    print(f"ray {ray.__version__}", flush=True)
    for line in sys.stdin:
        taken = []
        count, pause_s = line.split()
        for _ in range(int(count)):
            sleep(float(pause_s))
            began = perf_counter()
            ray.get(noop.remote())
            taken.append(perf_counter() - began)
        print(json.dumps(taken), flush=True)
    ray.shutdown()


main()

"""What is counted about a master, and its form for Prometheus. docs/reference/metrics.md names all of it.

What lives here: the only use of prometheus_client, with a registry of its own: one process may run many masters. What
does not: what the core counts and how it is named (`measures.py`), and Mesos' own names (`mesos_metrics.py`).
"""

from __future__ import annotations

import asyncio
import platform
import time
from collections import Counter as Plain
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edgerm.core.effects import Change
from edgerm.core.errors import Code, EdgermError
from edgerm_master.api.measures import MEASURES
from edgerm_master.api.mesos_metrics import mesos_metrics
from edgerm_master.api.versions import EDGERM_VERSION, MESOS_VERSION
from edgerm_master.core.master import Master

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LAG_INTERVAL_S = 1.0
disable_created_metrics()  # type: ignore[no-untyped-call]  # a series for each counter's birth, which nobody reads
_OWN_FAULTS = (Code.INTERNAL, Code.UNAVAILABLE)
_COMMIT_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
_LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Metrics:
    """Counted up where things happen; what there is now is counted when somebody looks."""

    def __init__(self, core: Master) -> None:
        self._core = core
        self._start_s = time.monotonic()
        self._streams: dict[str, Callable[[], int]] = {}
        self.calls: Plain[tuple[str, str, str]] = Plain()  # by API, type and outcome
        self._registry = CollectorRegistry()
        self.not_built = Counter(
            "edgerm_calls_not_built", "Known calls that were accepted and ignored", ["type"], registry=self._registry
        )
        self.ignored_names = Counter(
            "edgerm_json_names_ignored", "JSON names and enum values that no message has", registry=self._registry
        )
        self.streams_broken = Counter(
            "edgerm_streams_broken", "Event streams cut, mostly for a slow reader", ["kind"], registry=self._registry
        )
        self._commit_s = Histogram(
            "edgerm_registry_commit_seconds",
            "How long a batch took to be durable",
            buckets=_COMMIT_BUCKETS_S,
            registry=self._registry,
        )
        self._batch = Histogram(
            "edgerm_registry_batch_operations",
            "Puts and deletes in a batch",
            buckets=_BATCH_BUCKETS,
            registry=self._registry,
        )
        self._lag_s = Histogram(
            "edgerm_loop_lag_seconds",
            "How late the event loop woke, looked at each second",
            buckets=_LAG_BUCKETS_S,
            registry=self._registry,
        )
        build = Info("edgerm_build", "What this master is", registry=self._registry)
        build.info({"version": EDGERM_VERSION, "mesos": MESOS_VERSION, "python": platform.python_version()})
        ProcessCollector(registry=self._registry)
        self._registry.register(_Measured(self))

    # --- counting ---

    @contextmanager
    def counting(self, api: str, kind: str) -> Iterator[None]:
        """Count the call that is carried out in the block, by how it ends: ok, refused, failed (a fault of ours)."""
        outcome = "failed"
        try:
            yield
            outcome = "ok"
        except EdgermError as error:
            outcome = "failed" if error.code in _OWN_FAULTS else "refused"
            raise
        finally:
            self.calls[(api, kind, outcome)] += 1

    @contextmanager
    def reading(self, api: str) -> Iterator[None]:
        """Count a call that cannot be read in the block: nobody knows its type."""
        try:
            yield
        except EdgermError:
            self.calls[(api, "unreadable", "refused")] += 1
            raise

    def count_streams(self, kind: str, how_many: Callable[[], int]) -> None:
        """Show how many streams of this kind are open."""
        self._streams[kind] = how_many

    def timed(self, write: Callable[[Sequence[Change]], None]) -> Callable[[Sequence[Change]], None]:
        """`write`, with its batches measured; for the store's thread."""

        def measured(changes: Sequence[Change]) -> None:
            begin_s = time.perf_counter()
            write(changes)
            self._commit_s.observe(time.perf_counter() - begin_s)
            self._batch.observe(len(changes))

        return measured

    async def watch_loop(self) -> None:
        """Measure how late the event loop is, until cancelled."""
        while True:
            due_s = time.perf_counter() + LAG_INTERVAL_S
            await asyncio.sleep(LAG_INTERVAL_S)
            self._lag_s.observe(max(0.0, time.perf_counter() - due_s))

    # --- showing ---

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def values(self) -> dict[str, float]:
        """What GET_METRICS shows: Mesos' names, as far as we have what they say."""
        return mesos_metrics(self._core, time.monotonic() - self._start_s)

    def measured(self) -> Iterator[Metric]:
        """What the core counts, the calls and the streams."""
        for measure in MEASURES:
            kind = CounterMetricFamily if measure.counts else GaugeMetricFamily
            family = kind(measure.name, measure.meaning, labels=measure.labels)
            for labels, value in measure.read(self._core):
                family.add_metric(labels, value)
            yield family
        calls = CounterMetricFamily("edgerm_calls", "Calls answered", labels=("api", "type", "outcome"))
        for names, times in list(self.calls.items()):
            calls.add_metric(names, times)
        yield calls
        streams = GaugeMetricFamily("edgerm_streams", "Streams that are open", labels=("kind",))
        for name, how_many in self._streams.items():
            streams.add_metric((name,), how_many())
        yield streams


class _Measured(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return self._metrics.measured()

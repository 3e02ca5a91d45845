"""What is counted about a master, and its form for Prometheus.

What lives here: the only use of prometheus_client, with a registry of its own: one process may run many masters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Gauges = Callable[[], dict[str, float]]


class Metrics:
    """The counters, to be counted up where things happen; gauges are asked for when somebody looks."""

    def __init__(self, gauges: Gauges) -> None:
        self._registry = CollectorRegistry()
        self._gauges = gauges
        self.calls = Counter("edgerm_calls", "Scheduler calls taken", ["type"], registry=self._registry)
        self.not_built = Counter(
            "edgerm_calls_not_built", "Known calls that were accepted and ignored", ["type"], registry=self._registry
        )
        self.ignored_names = Counter(
            "edgerm_json_names_ignored", "JSON names and enum values that no message has", registry=self._registry
        )
        self.streams_broken = Counter(
            "edgerm_streams_broken", "Event streams closed because their reader was too slow", registry=self._registry
        )
        self._registry.register(_Gauges(gauges))

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def values(self) -> dict[str, float]:
        """The gauges by name, as GET_METRICS shows them."""
        return self._gauges()


class _Gauges(Collector):
    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        for name, value in self._gauges().items():
            yield GaugeMetricFamily("edgerm_" + name.replace("/", "_"), name, value=value)

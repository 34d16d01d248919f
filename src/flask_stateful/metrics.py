"""The cache's counters for Prometheus and OpenTelemetry.

Each process counts for itself, as :attr:`state.cache.stats <flask_stateful.cache.cache.Cache.stats>` does. What
collects them is to ask every worker, or to add up what the workers push.
"""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Iterable, Iterator

from .cache.events import EVENTS
from .wiring import wiring_of

if t.TYPE_CHECKING:
    from flask import Flask
    from opentelemetry.metrics import CallbackOptions, Meter, Observation
    from prometheus_client.metrics_core import Metric

_HELD: t.Final = {
    "memory_bytes": ("bytes", "Bytes of cached values that the process holds in memory."),
    "memory_entries": ("entries", "Cached values that the process holds in memory."),
}

_EVENTS_HELP: t.Final = "What happened in the cache, by the names of state.cache.stats."


class PrometheusCollector:
    """Reads the cache's counters of one application, whenever Prometheus asks.

    Register it once in each process: ``prometheus_client.REGISTRY.register(PrometheusCollector(app))``. It offers
    ``flask_stateful_cache_events_total`` by ``event``, and ``flask_stateful_cache_memory_bytes`` and ``_entries``.

    :param app: the application.
    """

    def __init__(self, app: Flask) -> None:
        self._stats = _stats_of(app)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what is offered is known only when it is asked for."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the counters as they are now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        stats = self._stats()
        events = CounterMetricFamily("flask_stateful_cache_events", _EVENTS_HELP, labels=["event"])
        for event in EVENTS:
            events.add_metric([event], stats[event])
        yield events
        for name, (_, text) in _HELD.items():
            yield GaugeMetricFamily(f"flask_stateful_cache_{name}", text, value=stats.get(name, 0))


def observe(app: Flask, meter: Meter) -> None:
    """Let OpenTelemetry read the cache's counters of one application.

    It offers the counter ``flask_stateful.cache.events`` by ``event``, and the gauges
    ``flask_stateful.cache.memory_bytes`` and ``flask_stateful.cache.memory_entries``.

    :param app: the application.
    :param meter: of the process, as in ``opentelemetry.metrics.get_meter("shop")``.
    """
    from opentelemetry.metrics import Observation

    stats = _stats_of(app)

    def events(_: CallbackOptions) -> Iterable[Observation]:
        counted = stats()
        return [Observation(counted[event], {"event": event}) for event in EVENTS]

    def held(name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        return lambda _: [Observation(stats().get(name, 0))]

    meter.create_observable_counter("flask_stateful.cache.events", [events], description=_EVENTS_HELP)
    for name, (unit, text) in _HELD.items():
        meter.create_observable_gauge(f"flask_stateful.cache.{name}", [held(name)], unit=unit, description=text)


def _stats_of(app: Flask) -> Callable[[], dict[str, int]]:
    get_runtime = wiring_of(app).cache_runtime
    return lambda: get_runtime().stats

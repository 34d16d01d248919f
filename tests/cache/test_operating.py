"""What an operator sees of the cache: on the command line, in Prometheus and in OpenTelemetry."""

from __future__ import annotations

import typing as t
from collections.abc import Iterator

import pytest
from flask import Flask

from flask_stateful import Stateful, metrics
from flask_stateful.cache import survey
from flask_stateful.cache.events import EVENTS
from flask_stateful.errors import ConfigError
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FakeClock, FaultyStore

from .conftest import MakeApp


@pytest.fixture
def app(state: Stateful, make_app: MakeApp, store: Store, clock: FakeClock) -> Iterator[Flask]:
    """An application with a cached function, and values of its own."""
    app = make_app(state, store)

    @state.cache.memoize(60, stale=60)
    def top_posts(limit: int) -> list[str]:
        return ["post"] * limit

    with app.app_context():
        top_posts(1)
        top_posts(2)
        top_posts(2)
        state.cache.set("key", "value", tags=["x"], ttl=600)
        state.cache.set("other", "value", ttl=600)
        state.cache.incr("count")
        yield app


FUNCTION = "test_operating:app.<locals>.top_posts"


def stats(app: Flask) -> tuple[int, str]:
    """Return the exit code and the output of ``flask state cache stats``."""
    result = app.test_cli_runner().invoke(args=["state", "cache", "stats"])
    return result.exit_code, result.output


# On the command line


@pytest.fixture
def listed(store: Store) -> None:
    """Skip the test where the store cannot list its keys, which another test shows."""
    if "scan" not in store.abilities:
        pytest.skip("cannot list its keys")


@pytest.mark.usefixtures("listed")
def test_stats_show_what_the_store_holds(app: Flask, state: Stateful) -> None:
    """Values and bytes by function, the rest together; what was invalidated or is stale is told apart."""
    state.cache.invalidate_tags("x")
    code, shown = stats(app)
    assert code == 0
    head, *lines = shown.splitlines()
    assert head.split() == ["values", "bytes", "stale", "invalidated"]
    rows = {line.rsplit(maxsplit=4)[0]: line.rsplit(maxsplit=4)[1:] for line in lines}
    (function,) = (name for name in rows if name.endswith(FUNCTION))
    assert [rows[function][0], *rows[function][2:]] == ["2", "0", "0"]
    assert [rows[survey.OTHERS][0], *rows[survey.OTHERS][2:]] == ["2", "0", "1"]
    assert all(int(row[1].replace(",", "")) > 0 for row in rows.values())


@pytest.mark.usefixtures("listed")
def test_stats_of_stale_values(app: Flask, clock: FakeClock) -> None:
    """Values past their ttl that may still be served are counted as stale."""
    clock.advance(61)
    _, shown = stats(app)
    (line,) = (line for line in shown.splitlines() if FUNCTION in line)
    assert line.split()[1::2] == ["2", "2"]


@pytest.mark.usefixtures("listed")
def test_stats_of_an_empty_cache(state: Stateful, make_app: MakeApp, store: Store) -> None:
    """Where nothing is cached, it says so."""
    assert stats(make_app(state, store))[1].splitlines()[-1] == "The store holds no cached values."


@pytest.mark.usefixtures("listed")
def test_stats_leave_foreign_bytes_out(app: Flask, store: Store) -> None:
    """What is no value of ours is neither counted nor touched."""
    store.set("shop:cache:foreign", b"\xffforeign")
    assert stats(app)[0] == 0
    assert store.get("shop:cache:foreign") == b"\xffforeign"


def test_stats_of_many_values(state: Stateful, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, they are looked at some at a time."""
    monkeypatch.setattr(survey, "_AT_ONCE", 3)
    app = make_app(state, MemoryStore())
    with app.app_context():
        state.cache.set_many(dict.fromkeys(range(10), "value"))
        assert stats(app)[1].splitlines()[1].split()[-4] == "10"


def test_stats_ask_twice_for_each_batch(state: Stateful, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for some values and once for all their tags, however many values there are."""
    monkeypatch.setattr(survey, "_AT_ONCE", 5)
    store = FaultyStore(MemoryStore())
    app = make_app(state, store)
    with app.app_context():
        state.cache.set_many(dict.fromkeys(range(10), "value"), tags=["x"])
        store.reset()
        stats(app)
        assert store.calls == {"scan": 1, "get_many": 4}


class Unlisted(MemoryStore):
    """A store that cannot list its keys, as Memcached is."""

    abilities = MemoryStore.abilities - {"scan"}
    scan = Store.scan


def test_stats_of_a_store_that_cannot_list_its_keys(state: Stateful, make_app: MakeApp) -> None:
    """The error says what the store cannot do."""
    code, shown = stats(make_app(state, Unlisted()))
    assert (code, shown.startswith("Error: ")) == (1, True)


def test_stats_while_the_store_is_down(state: Stateful, make_app: MakeApp) -> None:
    """A store that cannot be reached is an error and no traceback."""
    code, shown = stats(make_app(state, FaultyStore(MemoryStore(), "unavailable")))
    assert (code, shown.startswith("Error: ")) == (1, True)


# Metrics


def test_prometheus_reads_the_counters(app: Flask, state: Stateful) -> None:
    """Prometheus finds every event and what memory holds, as they are when it asks."""
    client = pytest.importorskip("prometheus_client", reason="pip install prometheus-client")
    registry = client.CollectorRegistry()
    registry.register(metrics.PrometheusCollector(app))

    def events() -> dict[str, int]:
        name = "flask_stateful_cache_events_total"
        return {event: int(registry.get_sample_value(name, {"event": event})) for event in EVENTS}

    before = events()
    assert before == {event: state.cache.stats[event] for event in EVENTS}
    assert before["misses"] == 2
    state.cache.get("nothing")
    assert events() == before | {"misses": 3}
    for name in ("memory_bytes", "memory_entries"):
        shown = registry.get_sample_value(f"flask_stateful_cache_{name}")
        assert shown == state.cache.stats.get(name, 0)
    assert b'flask_stateful_cache_events_total{event="misses"} 3.0' in client.generate_latest(registry)


def test_opentelemetry_reads_the_counters(app: Flask, state: Stateful) -> None:
    """OpenTelemetry finds every event and what memory holds, as they are when it asks."""
    sdk: t.Any = pytest.importorskip("opentelemetry.sdk.metrics", reason="pip install opentelemetry-sdk")
    export: t.Any = pytest.importorskip("opentelemetry.sdk.metrics.export", reason="pip install opentelemetry-sdk")
    reader = export.InMemoryMetricReader()
    provider = sdk.MeterProvider([reader])
    metrics.observe(app, provider.get_meter("shop"))
    state.cache.get("nothing")
    (resource,) = reader.get_metrics_data().resource_metrics
    found = {metric.name: metric.data.data_points for metric in resource.scope_metrics[0].metrics}
    events = {point.attributes["event"]: point.value for point in found["flask_stateful.cache.events"]}
    assert events == {event: state.cache.stats[event] for event in EVENTS}
    assert events["misses"] == 3
    assert [point.value for point in found["flask_stateful.cache.memory_entries"]] == [
        state.cache.stats.get("memory_entries", 0)
    ]
    provider.shutdown()


def test_metrics_of_an_application_without_us() -> None:
    """An application that has no Stateful is an error that says what to write."""
    with pytest.raises(ConfigError, match=r"write `state = Stateful\(app\)`"):
        metrics.PrometheusCollector(Flask("shop"))

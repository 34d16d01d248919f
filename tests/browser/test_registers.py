"""The register rules against tens of thousands of schedules of loss, repetition, delay and wrong clocks."""

from __future__ import annotations

import typing as t

import pytest

from flask_stateful.browser import registers
from flask_stateful.browser.registers import MAX_COUNT, NOTHING, Entry, Pushed, Register, Write
from tests.browser.exchange import START, Exchange, Fault, broken, merge, run, run_many

SCHEDULES = 12_000


@pytest.mark.parametrize("mirror", [False, True], ids=["replica", "mirror"])
def test_g1_every_schedule_converges_in_order(mirror: bool) -> None:
    """Whatever is lost, repeated, delayed or forgotten: both sides end with one value, and never went back."""
    exchanges = [run(seed, mirror=mirror) for seed in range(SCHEDULES)]
    assert sum(exchange.losses for exchange in exchanges) > 100
    assert sum(exchange.entry.write > 0 and exchange.entry.revision > 0 for exchange in exchanges) > SCHEDULES / 2


def test_g1_long_schedules_converge() -> None:
    """Hundreds of events in a row change nothing about that."""
    for seed in range(500):
        run(seed, steps=600)
        run(seed, mirror=True, steps=600)


# Each rule taken out


def _push_without_order(register: Register, sent: Write, conflict: t.Any, now: int) -> Pushed:
    return registers.push(register._replace(write=-1), sent, conflict, now)


def _push_refusing_offers(register: Register, sent: Write, conflict: t.Any, now: int) -> Pushed:
    if sent.write <= register.write:
        return Pushed(register, stands=False)
    return registers.push(register, sent, conflict, now)


def _push_by_clock_alone(register: Register, sent: Write, conflict: t.Any, now: int) -> Pushed:
    pushed = registers.push(register, sent, conflict, now)
    return pushed._replace(register=pushed.register._replace(revision=now))


def _push_below_the_base(register: Register, sent: Write, conflict: t.Any, now: int) -> Pushed:
    pushed = registers.push(register, sent._replace(base=min(sent.base, register.revision)), conflict, now)
    return pushed


def _push_blind_to_conflicts(register: Register, sent: Write, conflict: t.Any, now: int) -> Pushed:
    return registers.push(register, sent, "browser", now)


def _push_keeping_the_write(register: Register, sent: Write, conflict: t.Any, now: int) -> Pushed:
    pushed = registers.push(register, sent, conflict, now)
    return pushed._replace(register=pushed.register._replace(write=register.write))


def _write_by_clock_alone(register: Register, value: bytes | None, now: int) -> Register:
    return Register(value, now, register.write)


def _write_forgetting_the_browser(register: Register, value: bytes | None, now: int) -> Register:
    return registers.write(register, value, now)._replace(write=0)


def _take_whatever_comes(entry: Entry, register: Register, *, mirrored: bool = False) -> Entry:
    return Entry(*register)


def _take_over_pending(entry: Entry, register: Register, *, mirrored: bool = False) -> Entry:
    return Entry(*register) if register.revision >= entry.revision else entry


def _take_mirrors_like_replicas(entry: Entry, register: Register, *, mirrored: bool = False) -> Entry:
    return registers.take(entry, register)


def _take_stale_ones_while_pending(entry: Entry, register: Register, *, mirrored: bool = False) -> Entry:
    if entry.pending and register.write >= entry.write:
        return Entry(*register)
    return registers.take(entry, register, mirrored=mirrored)


def _assign_by_clock_alone(entry: Entry, value: bytes | None, now: int) -> Entry:
    return Entry(value, entry.revision, now, pending=True)


def _acknowledge_anything(entry: Entry, revision: int, write: int) -> Entry:
    return Entry(entry.value, revision, entry.write)


def _acknowledge_late(entry: Entry, revision: int, write: int) -> Entry:
    return Entry(entry.value, revision, write) if write == entry.write else entry


def _compare_never(entry: Entry, held: int | None) -> Entry:
    return entry


def _compare_presence_only(entry: Entry, held: int | None) -> Entry:
    return entry if held is not None else registers.compare(entry, held)


BROKEN = {
    "push: no order": (False, {"push": _push_without_order}),
    "push: nothing offered again": (False, {"push": _push_refusing_offers}),
    "push: clock alone": (False, {"push": _push_by_clock_alone}),
    "push: below the base": (False, {"push": _push_below_the_base}),
    "push: no conflicts": (False, {"push": _push_blind_to_conflicts}),
    "push: write not kept": (False, {"push": _push_keeping_the_write}),
    "write: clock alone": (False, {"write": _write_by_clock_alone}),
    "write: browser forgotten": (False, {"write": _write_forgetting_the_browser}),
    "take: whatever comes": (False, {"take": _take_whatever_comes}),
    "take: over pending ones": (False, {"take": _take_over_pending}),
    "take: stale ones while pending": (False, {"take": _take_stale_ones_while_pending}),
    "take: mirrors like replicas": (True, {"take": _take_mirrors_like_replicas}),
    "assign: clock alone": (False, {"assign": _assign_by_clock_alone}),
    "acknowledge: anything": (False, {"acknowledge": _acknowledge_anything}),
    "acknowledge: late": (False, {"acknowledge": _acknowledge_late}),
    "compare: never": (False, {"compare": _compare_never}),
    "compare: presence only": (False, {"compare": _compare_presence_only}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_rule_taken_out_is_found(name: str) -> None:
    """The schedules find every register that lacks a rule."""
    mirror, replaced = BROKEN[name]
    with pytest.raises(Fault):
        run_many(2 * SCHEDULES, mirror=mirror, rules=broken(**replaced))


# Single rules


def test_g6_a_delayed_older_push_never_overwrites_a_newer_one() -> None:
    """The write number tells the server which of two pushes is the later."""
    newer = registers.push(NOTHING, Write(b"2", 0, 20), "browser", 100).register
    assert registers.push(newer, Write(b"1", 0, 10), "browser", 200) == Pushed(newer, stands=False)


@pytest.mark.parametrize(
    ("conflict", "value", "stands"), [("browser", b"js", True), ("server", b"py", False), (merge, b"(py+js)", False)]
)
def test_g5_a_conflict_ends_as_its_policy_says(conflict: t.Any, value: bytes, stands: bool) -> None:
    """A push on an older base than the server's wins, loses or is merged; there is no third outcome."""
    pushed = registers.push(Register(b"py", 50, 1), Write(b"js", 40, 2), conflict, 60)
    assert pushed == Pushed(Register(value, 60, 2), stands=stands)


@pytest.mark.parametrize("conflict", ["server", merge])
def test_g5_a_push_that_knows_the_latest_is_no_conflict(conflict: t.Any) -> None:
    """Where the browser knew the server's value, no policy is asked."""
    pushed = registers.push(Register(b"py", 50, 1), Write(b"js", 50, 2), conflict, 60)
    assert pushed == Pushed(Register(b"js", 60, 2), stands=True)


def test_g7_a_lost_replica_takes_what_the_browser_offers() -> None:
    """A value that only the server has ever written comes back from the browser, too."""
    entry = registers.take(Entry(), Register(b"py", 50, 0))
    offered = registers.compare(entry, None)
    assert offered.pending
    pushed = registers.push(NOTHING, Write(*offered[:3]), "server", 60)
    assert pushed == Pushed(Register(b"py", 60, 0), stands=True)


def test_a_value_that_does_not_fit_leaves_the_register_and_tells_the_browser() -> None:
    """The browser gets the server's value back, under a revision that it takes."""
    refused = registers.refuse(Register(b"1", 50, 1), Write(b'"x"', 50, 2), 60)
    entry = registers.take(Entry(b'"x"', 50, 2, pending=True), refused.register)
    assert refused == Pushed(Register(b"1", 60, 2), stands=False)
    assert entry == Entry(b"1", 60, 2)


@pytest.mark.parametrize("poison", [MAX_COUNT, MAX_COUNT - 1, START + 10**15])
def test_a_poisoned_register_is_never_locked(poison: int) -> None:
    """However far somebody has driven both counters, writes of either side still arrive on the other."""
    entry = Entry(b"0", poison, poison, pending=True)
    server = NOTHING
    for turn in range(5):
        now = START + turn
        pushed = registers.push(server, Write(*entry[:3]), "browser", now)
        server = pushed.register
        assert server.value == entry.value
        assert pushed.stands
        entry = registers.acknowledge(entry, server.revision, server.write)
        assert not entry.pending
        server = registers.write(server, b"py%d" % turn, now)
        entry = registers.take(entry, server)
        assert entry.value == server.value
        entry = registers.assign(entry, b"js%d" % turn, now)
    assert max(server.revision, server.write, entry.revision, entry.write) <= MAX_COUNT


def test_exchange_judges() -> None:
    """The judge of the schedules finds a push that comes to something else."""
    exchange = Exchange(0)
    exchange.conflict = "browser"
    with pytest.raises(Fault):
        exchange.judge(NOTHING, Write(b"1", 0, 1), Pushed(Register(b"2", 5, 1), stands=False))

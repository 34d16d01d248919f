"""A cookie of 200 bytes: sealed and opened, against Flask's session cookie, which is signed and not sealed."""

from __future__ import annotations

import typing as t
from collections.abc import Callable

from flask import Flask
from flask.sessions import SecureCookieSessionInterface

from flask_stateful.cookies.options import Options
from flask_stateful.cookies.tokens import Place, SealedCodec, facts_of
from flask_stateful.sealing import Keyring

from .harness import Cell, measure, median_time
from .report import Gate, Part, Table, figure

_BLOCK = 50
_SECRET: t.Final = "correct horse battery staple, said the key to the lock"

#: What Flask makes a cookie of about 200 bytes of.
VALUE: t.Final[dict[str, t.Any]] = {
    "user_id": "4711",
    "name": "Ada Lovelace",
    "locale": "en-GB",
    "cart": [101, 205, 333],
    "csrf_token": "6f1c7a0e9d2b4c8f",
    "theme": "dark",
    "tour": {"seen": True, "step": 3},
}

_PLACE: t.Final = Place("__Host-state", "")
_FACTS: t.Final = facts_of(Options(), 2_000_000_000)

Turn: t.TypeAlias = Callable[[t.Any], t.Any]


def contenders() -> dict[str, tuple[Turn, Turn]]:
    """Return how each makes a cookie's value, and reads it."""
    app = Flask("benchmarks")
    app.secret_key = _SECRET
    signing = SecureCookieSessionInterface().get_signing_serializer(app)
    assert signing is not None
    sealed = SealedCodec(Keyring(_SECRET), "benchmarks")

    def seal(value: t.Any) -> str:
        return sealed.write(_PLACE, sealed.encode(value, "value"), _FACTS)

    def unseal(text: str) -> t.Any:
        opened = sealed.read(_PLACE, text)
        return None if opened is None else sealed.decode(opened.body)

    return {"Flask, signed": (signing.dumps, signing.loads), "ours, sealed": (seal, unseal)}


def run(*, rounds: int, tick: Callable[[], None]) -> Part:
    """Measure, and judge."""
    turns = contenders()
    blocks: dict[Cell, Callable[[], float]] = {}
    for name, (make, read) in turns.items():
        text = make(VALUE)
        blocks[Cell(name, "make")] = _block(make, VALUE)
        blocks[Cell(name, "read")] = _block(read, text)
        blocks[Cell(name, "both")] = _block(_both(make, read), VALUE)
    timings = measure(blocks, rounds, tick)
    rows = []
    for name, (make, _) in turns.items():
        spans = [timings.quiet(Cell(name, operation)) for operation in ("make", "read", "both")]
        rows.append([name, str(len(make(VALUE))), *map(figure, spans)])
    ratio = timings.ratio(Cell("ours, sealed", "both"), Cell("Flask, signed", "both"))
    note = "Microseconds, quiet, for the same value; ours is sealed for its name, and its expiry is inside."
    gate = Gate(
        "K1", "a cookie of 200 bytes, sealed and opened: against Flask's session cookie, dumps and loads", ratio, 0.25
    )
    return Part([Table("Cookies", ("", "bytes", "make (µs)", "read (µs)", "both (µs)"), rows, note)], [gate])


def _both(make: Turn, read: Turn) -> Turn:
    return lambda value: read(make(value))


def _block(call: Turn, argument: t.Any) -> Callable[[], float]:
    return lambda: median_time(call, [argument] * _BLOCK)

"""What ``state.atomic()`` adds to a transaction that nothing is in conflict with."""

from __future__ import annotations

import typing as t
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from flask import Flask

from flask_stateful import Stateful

from .harness import Cell, measure, median_time
from .report import Gate, Part, Table, figure

#: How many transactions one block makes.
_BLOCK: t.Final = 50

#: Microseconds.
_LIMIT: t.Final = 40
_PLAIN, _WITH, _DECORATOR = "session.commit()", "with state.atomic()", "@state.atomic(retry=3)"


def run(folder: Path, *, rounds: int, tick: Callable[[], None]) -> Part:
    """Change a row in SQLite again and again: with a plain commit, in a block, and in a decorated function."""
    engine = sa.create_engine(f"sqlite:///{folder / 'atomic.sqlite3'}")
    app = Flask("benchmarks.atomic")
    app.config["SECRET_KEY"] = "benchmark"
    state = Stateful(app, db=engine, store="memory://")
    state.database.tune_sqlite(engine)
    table = sa.Table(
        "account", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.Integer)
    )
    table.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(table).values(id=1, n=0))
    statement = sa.update(table).where(table.c.id == 1).values(n=table.c.n + 1)

    def change() -> None:
        state.database.session.execute(statement)

    def plain(_: int) -> None:
        change()
        state.database.session.commit()

    def block(_: int) -> None:
        with state.atomic():
            change()

    decorated = state.atomic(retry=3)(lambda _: change())
    ways = {_PLAIN: plain, _WITH: block, _DECORATOR: decorated}
    with app.app_context():
        timings = measure(
            {Cell(name, "change"): lambda way=way: median_time(way, range(_BLOCK)) for name, way in ways.items()},
            rounds,
            tick,
        )
        count = state.database.session.scalar(sa.select(table.c.n))
    engine.dispose()
    if count != len(ways) * rounds * _BLOCK:
        raise RuntimeError("a change was lost")
    base = Cell(_PLAIN, "change")
    added = {name: timings.added(Cell(name, "change"), base) for name in (_WITH, _DECORATOR)}
    row = (figure(timings.median(base)), *(figure(value) for value in added.values()))
    note = "Microseconds of a transaction that changes one row in SQLite, and what a block adds to it."
    gates = [Gate("S10", f"{name} adds, in microseconds", value, _LIMIT, "") for name, value in added.items()]
    return Part([Table("All or nothing", (_PLAIN, *added), [row], note)], gates)

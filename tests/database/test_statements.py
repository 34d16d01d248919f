"""Which tables statements read and write."""

from __future__ import annotations

import typing as t
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    column_property,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
    subqueryload,
)

from flask_stateful.database.sql_text import read_text
from flask_stateful.database.statements import MOST_ROWS, Statement
from flask_stateful.database.tracker import track


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    kind: Mapped[str] = mapped_column(default="author")
    books: Mapped[list[Book]] = relationship(back_populates="author", passive_deletes=True)
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "author"}


class Editor(Author):
    __tablename__ = "editor"
    id: Mapped[int] = mapped_column(sa.ForeignKey("author.id"), primary_key=True)
    desk: Mapped[str] = mapped_column(default="")
    __mapper_args__ = {"polymorphic_identity": "editor"}


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("author.id", ondelete="CASCADE"))
    title: Mapped[str] = mapped_column(default="")
    author: Mapped[Author] = relationship(back_populates="books")


class Review(Base):
    __tablename__ = "review"
    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int | None] = mapped_column(sa.ForeignKey("book.id", ondelete="SET NULL"))


Book.reviews = column_property(
    sa.select(sa.func.count()).select_from(Review).where(Review.book_id == Book.id).scalar_subquery(), deferred=True
)

PAIR = sa.Table(
    "pair", Base.metadata, sa.Column("a", sa.Integer, primary_key=True), sa.Column("b", sa.Integer, primary_key=True)
)


class Seen:
    """An engine whose statements are looked at."""

    def __init__(self) -> None:
        self.engine = sa.create_engine("sqlite://")
        self.found: list[Statement] = []
        self.tags: set[str] = set()
        Base.metadata.create_all(self.engine)
        statements = track(self.engine).statements
        self.statements = statements

        @sa.event.listens_for(self.engine, "before_cursor_execute")
        def look(connection: t.Any, cursor: t.Any, text: str, given: t.Any, context: t.Any, many: bool) -> None:
            found = statements.of(text, context)
            self.found.append(found)
            self.tags |= {*found.writes, *(found.rows.written(context.compiled_parameters) if found.rows else ())}

    def reads(self, work: t.Callable[[Session], object]) -> set[str]:
        self.found.clear()
        with Session(self.engine) as session:
            work(session)
        assert all(found.reads is not None for found in self.found)
        return {tag for found in self.found for tag in found.reads or ()}

    def writes(self, work: t.Callable[[Session], object]) -> set[str]:
        self.found.clear()
        self.tags.clear()
        with Session(self.engine) as session:
            work(session)
            session.flush()
            session.rollback()
        return set(self.tags)


@pytest.fixture
def seen() -> Iterator[Seen]:
    found = Seen()
    yield found
    found.engine.dispose()


def listed(statement: t.Any) -> t.Callable[[Session], object]:
    return lambda session: session.scalars(statement).unique().all()


def with_a_book(session: Session) -> None:
    session.add(Author(id=1, books=[Book(id=1)]))
    session.flush()
    session.expire_all()


CTE = sa.select(Author.id).where(Author.name == "x").cte("found")

READS = {
    "joinedload": (listed(sa.select(Book).options(joinedload(Book.author))), {"book", "author"}),
    "selectinload": (
        lambda session: (
            with_a_book(session),
            session.scalars(sa.select(Author).options(selectinload(Author.books))).all(),
        ),
        {"book", "author"},
    ),
    "subqueryload": (
        lambda session: (
            with_a_book(session),
            session.scalars(sa.select(Author).options(subqueryload(Author.books))).all(),
        ),
        {"book", "author"},
    ),
    "lazy": (lambda session: (with_a_book(session), session.get(Author, 1).books), {"book", "author"}),
    "joined inheritance": (listed(sa.select(Editor)), {"author", "editor"}),
    "column_property": (listed(sa.select(Book.reviews)), {"book", "review"}),
    "cte": (listed(sa.select(sa.func.count()).select_from(CTE)), {"author"}),
    "exists": (listed(sa.select(Author.id).where(sa.exists().where(Book.author_id == Author.id))), {"author", "book"}),
    "any": (listed(sa.select(Author).where(Author.books.any())), {"author", "book"}),
    "union": (listed(sa.union(sa.select(Author.id), sa.select(Book.id))), {"author", "book"}),
    "subquery": (listed(sa.select(sa.select(Book.id).subquery().c.id)), {"book"}),
    "alias": (listed(sa.select(aliased(Book))), {"book"}),
    "scalar subquery in a column": (
        listed(sa.select(Author.id, sa.select(sa.func.max(Book.id)).scalar_subquery())),
        {"author", "book"},
    ),
    "in subquery": (listed(sa.select(Author.id).where(Author.id.in_(sa.select(Book.author_id)))), {"author", "book"}),
    "legacy query": (lambda session: session.query(Book).join(Author).all(), {"author", "book"}),
    "text": (lambda session: session.execute(sa.text("SELECT * FROM book b JOIN author ON 1")), {"author", "book"}),
    "text in a select": (listed(sa.select(sa.text("1")).select_from(sa.text("book"))), {"book"}),
    "text with columns": (
        lambda session: session.scalars(sa.select(Book).from_statement(sa.text("SELECT * FROM book"))).all(),
        {"book"},
    ),
    "driver SQL": (lambda session: session.connection().exec_driver_sql("SELECT 1 FROM main.book"), {"book"}),
    "lightweight table": (listed(sa.select(sa.column("id")).select_from(sa.table("book"))), {"book"}),
}


@pytest.mark.parametrize("name", READS)
def test_t4_reads_are_found(seen: Seen, name: str) -> None:
    """Every table that a statement reads is found, also where SQLAlchemy adds it while it compiles."""
    work, expected = READS[name]
    found = seen.reads(t.cast("t.Any", work))
    assert {tag for tag in found if "[" not in tag} == expected


BOOK, AUTHOR, REVIEW = {"book", "book[*]"}, {"author", "author[*]"}, {"review", "review[*]"}


def execute(statement: t.Any, *given: t.Any) -> t.Callable[[Session], object]:
    return lambda session: session.execute(statement, *given)


def driver(text: str) -> t.Callable[[Session], object]:
    return lambda session: session.connection().exec_driver_sql(text)


INSERTED = sa.insert(Book).values(id=1, author_id=1).returning(Book.id).cte("inserted")

WRITES = {
    "unit of work": (lambda session: session.add(Author(id=1)), AUTHOR),
    "joined inheritance": (lambda session: session.add(Editor(id=1)), AUTHOR | {"editor", "editor[*]"}),
    "bulk insert": (execute(sa.insert(Book), [{"id": 1, "author_id": 1}, {"id": 2, "author_id": 1}]), BOOK),
    "bulk_insert_mappings": (
        lambda session: session.bulk_insert_mappings(sa.inspect(Book), [{"id": 1, "author_id": 1}]),
        BOOK,
    ),
    "bulk update": (execute(sa.update(Book).where(Book.title == "x").values(title="y")), BOOK),
    "legacy update": (lambda session: session.query(Book).update({"title": "y"}), BOOK),
    "core": (lambda session: session.connection().execute(Book.__table__.update().values(title="x")), BOOK),
    "text": (execute(sa.text("UPDATE book SET title = :title"), {"title": "x"}), BOOK),
    "driver SQL": (driver("UPDATE book SET title = 'x'"), BOOK),
    "insert from select": (
        execute(sa.insert(Review).from_select(["book_id"], sa.select(Book.id))),
        REVIEW,
    ),
    "delete": (execute(sa.delete(Book)), BOOK | REVIEW),
    "one row": (execute(sa.update(Book).where(Book.id == 7).values(title="x")), {"book", "book[7]"}),
    "rows": (execute(sa.update(Book).where(Book.id.in_([1, 2])).values(title="x")), {"book", "book[1]", "book[2]"}),
    "too many rows": (execute(sa.update(Book).where(Book.id.in_(range(MOST_ROWS + 1))).values(title="x")), BOOK),
    "a row and more": (
        execute(sa.update(Book).where(sa.or_(Book.id == 7, Book.title == "x")).values(title="x")),
        BOOK,
    ),
    "the row with a condition": (
        execute(sa.update(Book).where(Book.id == 7, Book.title == "x").values(title="y")),
        {"book", "book[7]"},
    ),
    "another key": (execute(sa.update(Book).where(Book.id == 7).values(id=8)), BOOK),
    "half a key": (execute(sa.update(PAIR).where(PAIR.c.a == 7).values(b=sa.literal(8))), {"pair", "pair[*]"}),
    "both halves": (execute(sa.delete(PAIR).where(PAIR.c.a == 7, PAIR.c.b == 8)), {"pair", "pair[7,8]"}),
    "select": (execute(sa.select(Book)), set()),
}


@pytest.mark.parametrize("name", WRITES)
def test_t2_writes_are_found(seen: Seen, name: str) -> None:
    """Every way to write is seen: unit of work, bulk, Core, text and driver SQL; with the rows where they are named."""
    work, expected = WRITES[name]
    assert seen.writes(t.cast("t.Any", work)) == expected


def test_unit_of_work_names_its_rows(seen: Seen) -> None:
    """What the session updates and deletes by itself is written row by row."""

    def change(session: Session) -> None:
        session.add_all([Author(id=1), Book(id=3, author_id=1), Book(id=4, author_id=1)])
        session.flush()
        seen.tags.clear()
        session.get(Book, 3).title = "x"
        session.delete(session.get(Book, 4))

    assert seen.writes(change) == {"book", "book[3]", "book[4]"} | REVIEW


def test_t10_writable_cte(seen: Seen) -> None:
    """An INSERT inside a SELECT is a write."""
    compiled = sa.select(INSERTED.c.id).compile(seen.engine)
    found = seen.statements.of(str(compiled), t.cast("t.Any", Compiled(compiled)))
    assert found.writes == BOOK


class Compiled:
    """An execution of a statement that the database at hand does not understand."""

    execution_options: dict[str, t.Any] = {}

    def __init__(self, compiled: t.Any) -> None:
        self.compiled = compiled


def test_t11_cascades(seen: Seen) -> None:
    """A deletion reaches the tables that the database changes because of it, wherever the SQL comes from."""
    for statement in (sa.delete(Author), sa.text("DELETE FROM author")):
        assert seen.writes(execute(statement)) == AUTHOR | BOOK | REVIEW
    assert seen.writes(driver("INSERT OR REPLACE INTO author (id, name, kind) VALUES (1, '', '')")) == (
        AUTHOR | BOOK | REVIEW
    )
    assert seen.writes(driver("UPDATE author SET name = 'x'")) == AUTHOR


def test_t11_views_and_triggers(seen: Seen) -> None:
    """A view reads what it is said to read, and a trigger writes what it is said to write."""
    statements = seen.statements
    statements.map(statements.views, "shelf", {"book", "author"})
    statements.map(statements.triggers, "book", {"review"})
    with seen.engine.begin() as connection:
        connection.exec_driver_sql("CREATE VIEW shelf AS SELECT title FROM book")
    assert seen.reads(driver("SELECT * FROM shelf")) == {"shelf", "book", "author"}
    assert seen.reads(listed(sa.select(sa.column("title")).select_from(sa.table("shelf")))) >= {"book", "author"}
    assert seen.writes(execute(sa.update(Book).where(Book.id == 1).values(title="x"))) == {"book", "book[1]"} | REVIEW


def test_schemas_are_told_apart(seen: Seen) -> None:
    """The default schema may be named or not, and a schema that takes another's place is the one that counts."""
    assert seen.reads(driver("SELECT 1 FROM main.book")) == seen.reads(driver("SELECT 1 FROM book"))
    with seen.engine.begin() as connection:
        connection.exec_driver_sql("ATTACH ':memory:' AS tenant")
        connection.exec_driver_sql("CREATE TABLE tenant.book (id, author_id, title)")
        seen.found.clear()
        connection.execution_options(schema_translate_map={None: "tenant"}).execute(sa.select(Book.id))
        connection.exec_driver_sql("SELECT 1 FROM tenant.book")
    assert [found.reads for found in seen.found] == [{"tenant.book"}, {"tenant.book"}]


TEXTS: list[tuple[str, set[str] | None, set[str] | None]] = [
    ("select * from post p join user u on u.id = p.u where x = 'from zz' -- from y", {"post", "user"}, set()),
    (
        "with a as (select 1 from b), c(x) as materialized (select 1 from d) select 1 from a, c, s.e",
        {"b", "d", "s.e"},
        set(),
    ),
    ("select * from t for update of t", {"t"}, set()),
    ("select extract(year from day), replace(a, 'b', 'c') from t", {"t"}, set()),
    ("select a is not distinct from b from t", {"t"}, set()),
    ("select count(*) from (select 1 from q) z, w", {"q", "w"}, set()),
    ("select a #>> '{b}', array[(select 1 from u)] from t", {"t", "u"}, set()),
    ("(select 1 from a) union (select 2 from b)", {"a", "b"}, set()),
    ("select * from generate_series(1, 2)", None, set()),
    ("update a join b on a.x = b.x set a.y = 1", {"b"}, {"a", "b"}),
    ("delete a from a join b on 1", {"a", "b"}, {"a", "b"}),
    ("insert into t values (1) on conflict (id) do update set x = 1", set(), {"t"}),
    ("insert into t (a) select 1 from u on duplicate key update a = 2", {"u"}, {"t"}),
    ('INSERT INTO "Post" VALUES (1)', set(), {"Post"}),
    ("insert into `odd``name` values (1)", set(), {"odd`name"}),
    ("truncate table a, b restart identity cascade", {"a", "b"}, {"a", "b"}),
    ("copy t (a, b) from stdin", {"stdin"}, {"t"}),
    (
        "merge into t using s on 1 when matched then update set x = 1 when not matched then insert values (1)",
        {"s"},
        {"t"},
    ),
    ("load data infile 'x' into table t", {"t"}, {"t"}),
    ("with x as (update t set a = 1 returning *) select * from x", set(), {"t"}),
    ("explain analyze delete from t", {"t"}, {"t"}),
    ("update t set a = 1; delete from u", {"u"}, {"t", "u"}),
    ("create trigger x after insert on t begin delete from u; end", set(), set()),
    ("call p()", None, None),
    ("do $$ begin delete from t; end $$", None, None),
    ("alter table x add y int", None, None),
    (r"select '\' from t", None, None),
]


@pytest.mark.parametrize(("text", "reads", "writes"), TEXTS, ids=[text for text, _, _ in TEXTS])
def test_t10_text(text: str, reads: set[str] | None, writes: set[str] | None) -> None:
    """Tables are found in text, whatever stands around them; where they are not, everything counts as written."""
    found = read_text(text)

    def names(tables: t.Iterable[tuple[str | None, str]] | None) -> set[str] | None:
        return None if tables is None else {f"{schema}.{name}" if schema else name for schema, name in tables}

    assert (names(found.reads), names(found.writes)) == (reads, writes)


def test_a_statement_is_looked_at_once(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a statement does is found out once, and known the next time."""
    walked: list[object] = []
    walk, read = seen.statements._walk, seen.statements._read
    monkeypatch.setattr(seen.statements, "_walk", lambda *given: walked.append(given) or walk(*given))
    monkeypatch.setattr(seen.statements, "_read", lambda *given: walked.append(given) or read(*given))
    for _ in range(3):
        seen.reads(listed(sa.select(Book).where(Book.id == 1)))
        seen.reads(driver("SELECT 1 FROM book"))
    assert len(walked) == 2

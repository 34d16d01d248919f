"""Which tables a statement reads and writes.

What SQLAlchemy has built is walked; what was written as text is read word by word. Either is done once for each
statement, because SQLAlchemy keeps a compiled statement for the next time.
"""

# SQLAlchemy tells the parts of a statement to whoever compiles it, and types them for nobody else.
# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false, reportMissingTypeArgument=false

from __future__ import annotations

import functools
import itertools
import logging
import typing as t
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from sqlalchemy import MetaData, Table
from sqlalchemy.orm import mapperlib
from sqlalchemy.sql import operators
from sqlalchemy.sql.dml import Delete, Insert, Update, UpdateBase
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    ColumnClause,
    Grouping,
    TextClause,
)
from sqlalchemy.sql.selectable import TableClause

from ..stores.sql.tables import METADATA, VERSIONS
from .sql_text import CHANGES_NOTHING, COMMITS, DEFINES, Name, read_text
from .tags import EVERYTHING, other_rows, row_key, row_tag, table_tag

if t.TYPE_CHECKING:
    from sqlalchemy.engine import Dialect
    from sqlalchemy.engine.default import DefaultExecutionContext
    from sqlalchemy.sql.compiler import SQLCompiler

logger = logging.getLogger("flask_stateful")

#: Of more rows than these, a write names none.
MOST_ROWS: t.Final = 50

#: Where a compiled statement carries what it does.
_KNOWN: t.Final = "_flask_stateful_statement"

#: How many pieces of text are remembered, and how long they may be.
_MOST_TEXTS: t.Final = 1000
_LONGEST_TEXT: t.Final = 4096

#: Our own tables: nothing that is cached is read from them through the application's statements.
_OURS: t.Final = frozenset(table_tag(table.name) for table in METADATA.tables.values())

#: What a database does to the rows that refer to a row which goes or whose key changes.
_CHANGES: t.Final = frozenset({"CASCADE", "SET NULL", "SET DEFAULT"})


TagOf: t.TypeAlias = Callable[[TableClause], str]


class Rows(t.NamedTuple):
    """The rows that a statement writes: those whose primary key is one of its parameters."""

    table: str
    #: The parameter of each column of the key, in their order.
    parameters: tuple[str, ...]

    def written(self, parameters: Sequence[Mapping[str, t.Any]]) -> Collection[str]:
        """Return the tags of the rows, or that of all rows where they are many.

        :param parameters: one mapping for each execution.
        """
        if len(parameters) == 1 and len(self.parameters) == 1 and self.parameters[0] in parameters[0]:
            return (_tag_of_row(self.table, parameters[0][self.parameters[0]]),)
        tags = {tag for given in parameters for tag in self._tags(given)}
        return tags if len(tags) <= MOST_ROWS else (other_rows(self.table),)

    def _tags(self, given: Mapping[str, t.Any]) -> Iterable[str]:
        first = self.parameters[0]
        if first not in given:
            return (_tag_of_row(self.table, value) for value in _listed(first, given))
        if len(self.parameters) == 1:
            return (_tag_of_row(self.table, given[first]),)
        return (_tag_of_row(self.table, *(given.get(name) for name in self.parameters)),)


class Statement(t.NamedTuple):
    """What one statement does to tables, by their tags."""

    #: ``None`` where that cannot be told.
    reads: frozenset[str] | None = frozenset()
    writes: frozenset[str] = frozenset()
    #: Where the statement writes those rows alone.
    rows: Rows | None = None
    #: It ends the transaction.
    commits: bool = False
    #: The databases of the MySQL family end the transaction before it, and again after it.
    defines: bool = False
    #: It takes the table of the versions away.
    forgets: bool = False
    #: What of that is changed where it was there before.
    overwrites: frozenset[str] = frozenset()
    #: It may change something, also in our own tables, or of what the database consists of.
    changes: bool = False


@functools.lru_cache(maxsize=4096, typed=True)
def _tag_of_row(table: str, *key: t.Any) -> str:
    """Return the tag of a row, or that of all rows where only the database can tell which one it is."""
    text = row_key(key)
    return other_rows(table) if text is None else row_tag(table, text)


def _listed(name: str, given: Mapping[str, t.Any]) -> Iterator[t.Any]:
    """Yield the values of an IN, of which each has a parameter of its own."""
    for number in itertools.count(1):
        if f"{name}_{number}" not in given:
            return
        yield given[f"{name}_{number}"]


class Statements:
    """What the statements of one engine read and write."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        #: Takes another's place when what was known of statements does not hold any more.
        self._known_since = object()
        self._texts: dict[str, Statement] = {}
        self._metadata: weakref.WeakSet[MetaData] = weakref.WeakSet()
        #: What is read through a view, and what a trigger writes, by tag.
        self.views: dict[str, frozenset[str]] = {}
        self.triggers: dict[str, frozenset[str]] = {}

    def tag(self, table: TableClause) -> str:
        """Return the tag of a table."""
        return self._name((getattr(table, "schema", None), table.name))

    def tag_of_name(self, name: str) -> str:
        """Return the tag of a table or a view by its name, with its schema if it has one."""
        schema, _, table = name.rpartition(".")
        return self._name((schema or None, table))

    def map(self, mapping: dict[str, frozenset[str]], name: str, to: Iterable[str]) -> None:
        """Let a name stand for others from now on."""
        mapping[name] = mapping.get(name, frozenset()) | frozenset(to)
        self._known_since, self._texts = object(), {}

    def of(self, text: str, context: DefaultExecutionContext | None) -> Statement:
        """Return what a statement does that is about to be executed."""
        try:
            return self._of(text, context)
        except Exception:
            logger.exception("a statement was not understood; it counts as one that writes every table")
            return Statement(None, frozenset({EVERYTHING}), changes=True)

    def _of(self, text: str, context: t.Any) -> Statement:
        compiled = getattr(context, "compiled", None)
        if compiled is None:
            return self._of_text(text)
        schemas = context.execution_options.get("schema_translate_map")
        if schemas:
            return self._walk(compiled, text, schemas)
        # SQLAlchemy keeps what it has compiled, and drops it: what is known of it goes with it.
        since, found = getattr(compiled, _KNOWN, (None, None))
        if found is None or since is not self._known_since:
            since = self._known_since
            found = self._walk(compiled, text, {})
            setattr(compiled, _KNOWN, (since, found))
        return found

    def _of_text(self, text: str) -> Statement:
        texts = self._texts
        found = texts.get(text)
        if found is None:
            found = self._read(text)
            if len(text) <= _LONGEST_TEXT:
                if len(texts) >= _MOST_TEXTS:
                    texts.clear()
                texts[text] = found
        return found

    # What SQLAlchemy has built

    def _walk(self, compiled: SQLCompiler, text: str, schemas: Mapping[str | None, str | None]) -> Statement:
        if getattr(compiled, "statement", None) is None or not hasattr(compiled, "bind_names"):
            return self._read(text)

        def tag_of(table: TableClause) -> str:
            if isinstance(table, Table):
                self._metadata.add(table.metadata)
            schema: str | None = getattr(table, "schema", None)
            return self._name((schemas.get(schema, schema), table.name))

        roots = [compiled.statement, getattr(compiled.compile_state, "statement", None)]
        nodes = list(_nodes(roots))
        reads = {tag_of(node) for node in nodes if isinstance(node, TableClause)}
        rows, writes, overwrites = _rows(compiled, tag_of), set[str](), set[str]()
        for node in nodes:
            if isinstance(node, UpdateBase):
                names_rows = rows is not None and any(node is root for root in roots)
                written = self._written(node, tag_of, names_rows=names_rows)
                writes |= written
                overwrites |= set() if _only_adds(node) else written
        found = Statement(
            self.seen(reads),
            _without_ours(writes),
            rows if writes else None,
            overwrites=_without_ours(overwrites),
            changes=bool(writes),
        )
        has_text = any(isinstance(node, TextClause) for node in nodes)
        return _both(found, self._read(text)) if has_text else found

    def _written(self, node: UpdateBase, tag_of: TagOf, *, names_rows: bool) -> set[str]:
        """Return what an INSERT, UPDATE or DELETE writes, and what the database changes because of that."""
        changed = [table for table in _nodes([node.table]) if isinstance(table, TableClause)]
        # MySQL can set the columns of other tables as well.
        changed += [table for table in map(_table_of, getattr(node, "_values", None) or ()) if table is not None]
        tags = set[str]()
        for table in changed:
            tag = tag_of(table)
            tags |= {tag} if names_rows else {tag, other_rows(tag)}
            tags |= self._affected(tag, table, tag_of, deletes=_deletes(node))
        return tags

    # What was written as text

    def _read(self, text: str) -> Statement:
        found = read_text(text)
        commits, defines = found.verb in COMMITS, found.verb in DEFINES
        if found.writes is None:
            forgets = found.verb == "DROP" and VERSIONS.name in text.casefold()
            everything = frozenset({EVERYTHING})
            return Statement(
                None,
                everything,
                commits=commits,
                defines=defines,
                forgets=forgets,
                overwrites=everything,
                changes=True,
            )

        writes = set[str]()
        for name in found.writes:
            tag = self._name(name)
            writes |= {tag, other_rows(tag)}
            for table in self._tables_called(tag):
                deletes, always = name in found.deletes, found.verb == "TRUNCATE"
                writes |= self._affected(tag, table, self.tag, deletes=deletes, always=always)
            writes |= self._mapped(tag)
        reads = None if found.reads is None else self.seen({self._name(name) for name in found.reads})
        changes = bool(writes) or found.verb not in CHANGES_NOTHING
        tags = _without_ours(writes)
        return Statement(reads, tags, commits=commits, defines=defines, overwrites=tags, changes=changes)

    def _name(self, name: Name) -> str:
        """Return the tag of a name; the database's default schema may be named or not."""
        schema, table = name
        default = self._dialect.default_schema_name or "main"
        return table_tag(table, None if schema is None or schema.casefold() == default.casefold() else schema)

    def known(self) -> dict[str, str]:
        """Return the names of all tables and views that we know, by their tags."""
        names = {self.tag(table): table.fullname for table in self._tables()}
        return {**{name: name for name in {**self.views, **self.triggers}}, **names}

    def _tables_called(self, tag: str) -> Iterator[Table]:
        return (table for table in self._tables() if self.tag(table) == tag)

    def _tables(self) -> Iterator[Table]:
        registries = mapperlib._all_registries()
        for metadata in {*self._metadata, *(registry.metadata for registry in registries)}:
            yield from metadata.tables.values()

    # What follows from that

    def _affected(
        self, tag: str, table: TableClause, tag_of: TagOf, *, deletes: bool, always: bool = False
    ) -> set[str]:
        """Return what a database changes by itself when rows of a table go or change.

        :param always: whether rows that refer to them go, whatever the foreign key says.
        """
        tags, waiting, seen = set(self._mapped(tag)), [(table, deletes)], {(id(table), deletes)}
        while waiting:
            current, goes = waiting.pop()
            for other, other_goes in _referring(current, goes=goes, always=always):
                name = tag_of(other)
                tags |= {name, other_rows(name), *self._mapped(name)}
                if (id(other), other_goes) not in seen:
                    seen.add((id(other), other_goes))
                    waiting.append((other, other_goes))
        return tags

    def _mapped(self, tag: str) -> set[str]:
        """Return what triggers write, and the tables behind a view that is written to."""
        tags, waiting = set[str](), [tag]
        while waiting:
            name = waiting.pop()
            for other in self.triggers.get(name, frozenset()) | self.views.get(name, frozenset()):
                if other not in tags:
                    tags |= {other, other_rows(other)}
                    waiting.append(other)
        return tags

    def seen(self, tags: set[str]) -> frozenset[str]:
        """Return the tags of what is read, with the tables behind views."""
        waiting = list(tags)
        while waiting:
            for other in self.views.get(waiting.pop(), frozenset()) - tags:
                tags.add(other)
                waiting.append(other)
        return frozenset(tags - _OURS)


def _both(one: Statement, other: Statement) -> Statement:
    reads = None if one.reads is None or other.reads is None else one.reads | other.reads
    return other._replace(
        reads=reads,
        writes=one.writes | other.writes,
        rows=one.rows,
        overwrites=one.overwrites | other.overwrites,
        changes=one.changes or other.changes,
    )


def _nodes(roots: Iterable[t.Any]) -> Iterator[t.Any]:
    """Yield every part of some statements once."""
    waiting = list(roots)
    # They are kept until the end: some are made only to be looked at, and another could get the place of one.
    seen = dict[int, t.Any]()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen[id(node)] = node
        yield node
        if isinstance(node, ColumnClause):
            waiting.append(node.table)
        elif not isinstance(node, TableClause):
            waiting.extend(node.get_children())


def _table_of(column: t.Any) -> TableClause | None:
    table = getattr(column, "table", None)
    return table if isinstance(table, TableClause) else None


def _only_adds(node: UpdateBase) -> bool:
    """Tell whether a statement leaves all rows as they are that are there."""
    return isinstance(node, Insert) and getattr(node, "_post_values_clause", None) is None and not _deletes(node)


def _deletes(node: UpdateBase) -> bool:
    """Tell whether whole rows may go: also where an INSERT replaces them."""
    return isinstance(node, Delete) or any(
        "REPLACE" in str(prefix).upper() for prefix, _ in getattr(node, "_prefixes", ())
    )


def _rows(compiled: SQLCompiler, tag_of: TagOf) -> Rows | None:
    """Return which rows an UPDATE or DELETE writes, where its WHERE names the whole primary key."""
    node = compiled.statement
    if not isinstance(node, Update | Delete) or not isinstance(node.table, Table):
        return None
    key = [column.key for column in node.table.primary_key.columns]
    named = dict(filter(None, (_equality(part, node.table) for part in _conditions(node._where_criteria))))
    # Whoever gives a row another key writes two rows.
    given = [*(compiled.column_keys or ()), *map(_key_of, getattr(node, "_values", None) or ())]
    moves = isinstance(node, Update) and not set(key).isdisjoint(given)
    if not key or moves or not named.keys() >= set(key):
        return None
    return Rows(tag_of(node.table), tuple(compiled.bind_names.get(named[name], named[name].key) for name in key))


def _conditions(criteria: Iterable[t.Any]) -> Iterator[t.Any]:
    """Yield what must all be true."""
    for condition in criteria:
        if isinstance(condition, BooleanClauseList) and condition.operator is operators.and_:
            yield from _conditions(condition.clauses)
        elif isinstance(condition, Grouping):
            yield from _conditions([condition.element])
        else:
            yield condition


def _equality(condition: t.Any, table: Table) -> tuple[t.Any, BindParameter[t.Any]] | None:
    if not isinstance(condition, BinaryExpression) or condition.operator not in (operators.eq, operators.in_op):
        return None
    left, right = condition.left, condition.right
    owner = getattr(left, "table", None)
    if not isinstance(right, BindParameter) or not isinstance(owner, Table) or owner.key != table.key:
        return None
    return left.key, right


def _key_of(column: t.Any) -> str:
    return str(getattr(column, "key", column))


def _without_ours(tags: set[str]) -> frozenset[str]:
    return frozenset(tags - _OURS - set(map(other_rows, _OURS)))


def _referring(table: TableClause, *, goes: bool, always: bool) -> Iterator[tuple[Table, bool]]:
    """Yield the tables whose rows follow those of another one, and whether they go or only change."""
    if not isinstance(table, Table):
        return
    for other in table.metadata.tables.values():
        for key in other.foreign_key_constraints:
            if key.referred_table.key != table.key:
                continue
            action = ((key.ondelete if goes else key.onupdate) or "").upper()
            if always or any(action.startswith(change) for change in _CHANGES):
                yield other, always or (goes and action == "CASCADE")

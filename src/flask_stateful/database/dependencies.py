"""``depends_on=``: what of a database a cached value is made from, where the application says so itself."""

from __future__ import annotations

import difflib
import typing as t
from collections.abc import Iterable, Iterator
from collections.abc import Mapping as Arguments

from ..errors import ConfigError
from .tags import other_rows, row_key, row_tag

if t.TYPE_CHECKING:
    from sqlalchemy import Table

    from .database import Database
    from .statements import Statements

#: By the name of an engine, tags.
Tags: t.TypeAlias = dict[str, set[str]]


class Row:
    """One row, by a primary key that a cached function is called with; made by ``state.row()``.

    :param model: a mapped class or a table.
    :param arguments: names of the function's arguments, in the order of the primary key's columns.
    """

    def __init__(self, model: t.Any, *arguments: str) -> None:
        if not arguments or not all(isinstance(name, str) for name in arguments):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError('state.row() takes a model and names of arguments; write state.row(User, "user_id")')
        self.model = model
        self.names = arguments

    def key(self, arguments: Arguments[str, t.Any]) -> str | None:
        """Return the primary key in a call, or ``None`` where only the database can tell which row that is.

        :raises TypeError: if the function has no such argument.
        """
        for name in self.names:
            if name not in arguments:
                raise TypeError(f"state.row() names the argument {name!r}; the function has {', '.join(arguments)}")
        return row_key([arguments[name] for name in self.names])


class Mapping(t.NamedTuple):
    """What a name in a database stands for: the tables that a view reads, or those that a trigger writes."""

    kind: t.Literal["views", "triggers"]
    #: A model, a table or a name.
    what: t.Any
    to: tuple[t.Any, ...]

    @classmethod
    def of(cls, kind: t.Literal["views", "triggers"], what: t.Any, to: object, name: str) -> Mapping:
        """Return one.

        :param name: what the argument is called that ``to`` comes from.
        :raises TypeError: if something is neither a model nor a table nor a name.
        """
        if isinstance(to, (str, type)) or not isinstance(to, Iterable):
            raise TypeError(f"{name}= takes a list of models, tables and names; write {name}=[Post]")
        items = t.cast("t.Any", to)
        found = cls(kind, what, tuple(items))
        for item in (what, *found.to):
            if not isinstance(item, str):
                list(_tables(item, whole=False))
        return found

    def tell(self, statements: Statements) -> None:
        """Let an engine's statements be understood by it."""
        to = {tag for item in self.to for tag in _names(statements, item)}
        for name in _names(statements, self.what):
            statements.map(getattr(statements, self.kind), name, to)


def _names(statements: Statements, item: t.Any) -> set[str]:
    if isinstance(item, str):
        return {statements.tag_of_name(item)}
    return {statements.tag(table) for table in _tables(item, whole=False)}


def resolve(database: Database, depends_on: Iterable[t.Any], arguments: Arguments[str, t.Any]) -> Tags:
    """Return the tags of what a call depends on.

    :param arguments: what the function was called with.
    :raises TypeError: if it is nothing of what ``depends_on=`` takes.
    """
    from .adapter import DEFAULT

    tags: Tags = {}
    for item in depends_on:
        if isinstance(item, str):
            statements = database.tracker(DEFAULT).statements
            tags.setdefault(DEFAULT, set()).update(statements.seen({statements.tag_of_name(item)}))
            continue
        model = item.model if isinstance(item, Row) else item
        key = item.key(arguments) if isinstance(item, Row) else None
        for table in _tables(model, whole=not isinstance(item, Row)):
            name = database.bind_of(model)
            tag = database.tracker(name).statements.tag(table)
            if key is not None and isinstance(item, Row) and len(table.primary_key.columns) == len(item.names):
                tags.setdefault(name, set()).update((row_tag(tag, key), other_rows(tag)))
            else:
                tags.setdefault(name, set()).add(tag)
    return tags


def require_known(database: Database, depends_on: Iterable[t.Any], found: set[str] | None) -> None:
    """Raise where a name stands for no table: what depends on it would never change.

    A name that the metadata does not have may be that of a table which only SQL text names.

    :param found: the tags of what was read; ``None`` where that cannot be told.
    :raises ConfigError: if neither the metadata has it, nor anything was read from it.
    """
    from .adapter import DEFAULT

    names = [item for item in depends_on if isinstance(item, str)]
    if not names or not found:
        return
    statements = database.tracker(DEFAULT).statements
    unread = [name for name in names if statements.seen({statements.tag_of_name(name)}).isdisjoint(found)]
    known = statements.known() if unread else {}
    for name in unread:
        if statements.tag_of_name(name) not in known:
            near = difflib.get_close_matches(name, known.values(), 1)
            meant = f"did you mean {near[0]!r}?" if near else "write the model, or the table itself"
            raise ConfigError(
                f"depends_on= names {name!r}, which is no table, and none that the function reads; {meant}"
            )


def _tables(model: t.Any, *, whole: bool) -> Iterator[Table]:
    """Yield the tables of a model, or a table itself.

    :param whole: whether rows of classes that inherit from the model count as well.
    """
    from sqlalchemy import Table, inspect
    from sqlalchemy.orm import Mapper

    if isinstance(model, Table):
        yield model
        return
    mapper: t.Any = inspect(model, raiseerr=False)
    if not isinstance(mapper, Mapper):
        raise TypeError(
            f"a model, a table or the name of one is needed, not {type(model).__name__}; write"
            ' depends_on=[Post, "comment", state.row(User, "user_id")]'
        )
    mappers: list[t.Any] = list(mapper.self_and_descendants) if whole else [mapper]
    for one in mappers:
        yield from (table for table in one.tables if isinstance(table, Table))

"""Which tables a piece of SQL text names, where SQLAlchemy has not built it.

It is read word by word, not parsed: whoever finds more tables than there are invalidates too much, which does no harm.
Where no table can be found, the text is taken to touch everything.
"""

from __future__ import annotations

import re
import typing as t
from collections.abc import Iterator

#: Literals and comments come first, so that nothing inside them is taken for a word.
_TOKENS: t.Final = re.compile(
    r"""
    (?P<skip>   --[^\n]* | /\*.*?\*/ | '(?:[^']|'')*' | (?P<tag>\$\w*\$).*?(?P=tag) | \s+ )
  | (?P<quoted> "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\W\d][\w ]*\] )
  | (?P<word>   [^\W\d][\w$]* )
  | (?P<sign>   . )
    """,
    re.VERBOSE | re.DOTALL,
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: With these, a statement writes nothing that anybody has cached.
_HARMLESS: t.Final = _words("""
    SELECT WITH VALUES TABLE SHOW EXPLAIN DESCRIBE DESC PRAGMA SET RESET BEGIN START COMMIT END ROLLBACK ABORT SAVEPOINT
    RELEASE DECLARE FETCH MOVE CLOSE LISTEN NOTIFY UNLISTEN LOCK UNLOCK ANALYZE VACUUM OPTIMIZE CHECKPOINT USE KILL
    DISCARD DEALLOCATE PREPARE INSERT REPLACE UPDATE DELETE MERGE TRUNCATE COPY LOAD CREATE COMMENT GRANT REVOKE ATTACH
    DETACH REINDEX CLUSTER FLUSH XA
    """)

#: With these, a statement changes nothing at all, unless it names a table that it writes.
CHANGES_NOTHING: t.Final = _words("""
    SELECT WITH VALUES TABLE SHOW EXPLAIN DESCRIBE DESC PRAGMA SET RESET BEGIN START ROLLBACK ABORT SAVEPOINT RELEASE
    """)

#: What MySQL and its kin commit by themselves.
DEFINES: t.Final = _words("CREATE ALTER DROP RENAME TRUNCATE GRANT REVOKE LOCK ANALYZE OPTIMIZE LOAD")

#: With these, a transaction ends.
COMMITS: t.Final = frozenset({"COMMIT", "END"})

#: They stand before UPDATE or DELETE where that is no statement of its own.
_NOT_A_WRITE: t.Final = frozenset({"FOR", "KEY", "DO", "ON", "BEFORE", "AFTER", "OR", "THEN"})

#: They stand between a verb and the table it writes.
_FILLERS: t.Final = _words(
    "INTO FROM ONLY TABLE IGNORE LOW_PRIORITY DELAYED HIGH_PRIORITY QUICK OR ABORT FAIL ROLLBACK REPLACE"
)

#: With these, the list of tables that a verb writes is over.
_ENDS: t.Final = _words("SET VALUES VALUE SELECT DEFAULT WHERE RETURNING ON USING FROM AS WITH TO PARTITION")

Name: t.TypeAlias = tuple[str | None, str]


class TextTables(t.NamedTuple):
    """What a piece of SQL text reads and writes; ``None`` for an unknown number of tables."""

    verb: str
    reads: frozenset[Name] | None
    writes: frozenset[Name] | None
    #: Those of the written tables of which whole rows may go.
    deletes: frozenset[Name] = frozenset()


class _Token(t.NamedTuple):
    word: str
    is_name: bool

    @property
    def upper(self) -> str:
        return "" if self.is_name else self.word.upper()


def read_text(sql: str) -> TextTables:
    """Return which tables a piece of SQL text names."""
    if "\\'" in sql:
        # Databases differ in whether the literal ends here, so that what follows may be words or not.
        return TextTables("", None, None)
    tokens = list(_tokens(sql))
    verb = next((token.upper for token in tokens if token.upper not in ("", "(", ";")), "")
    if verb == "CREATE":
        return TextTables(verb, frozenset(), frozenset())
    if verb not in _HARMLESS:
        return TextTables(verb, None, None)
    writes, deletes = _written(tokens)
    return TextTables(verb, _read(tokens), writes, deletes)


def _tokens(sql: str) -> Iterator[_Token]:
    for match in _TOKENS.finditer(sql):
        if match.lastgroup == "quoted":
            quote, text = match["quoted"][0], match["quoted"][1:-1]
            yield _Token(text if quote == "[" else text.replace(quote * 2, quote), True)
        elif match.lastgroup in ("word", "sign"):
            yield _Token(match[match.lastgroup], False)


def _written(tokens: list[_Token]) -> tuple[frozenset[Name] | None, frozenset[Name]]:
    writes, deletes = set[Name](), set[Name]()
    for at, token in enumerate(tokens):
        verb = token.upper
        before = tokens[at - 1].upper if at else ""
        if verb not in ("INSERT", "REPLACE", "UPDATE", "DELETE", "MERGE", "TRUNCATE", "COPY", "LOAD"):
            continue
        if before in _NOT_A_WRITE or _follows(tokens, at, "("):
            continue
        names = set(_targets(tokens, at + 1, verb))
        if not names:
            return None, frozenset()
        writes |= names
        if verb in ("DELETE", "REPLACE", "MERGE", "TRUNCATE") or _follows(tokens, at, "OR"):
            deletes |= names
    return frozenset(writes), frozenset(deletes)


def _targets(tokens: list[_Token], at: int, verb: str) -> Iterator[Name]:
    """Yield the tables that a verb writes: all that are named before it says what to do with them."""
    if verb == "LOAD":
        at = next((place for place in range(at, len(tokens)) if tokens[place].upper == "TABLE"), len(tokens))
    if verb == "DELETE":
        # MySQL names tables before FROM, after it and after USING; those that are only read do no harm.
        yield from _listed(tokens, at, {"WHERE", "RETURNING", "ORDER", "LIMIT", ";"})
    elif verb == "UPDATE":
        yield from _listed(tokens, at, {"SET", ";"})
    elif verb == "TRUNCATE":
        yield from _listed(tokens, at, {"RESTART", "CONTINUE", "CASCADE", "RESTRICT", ";"})
    else:
        at = _skip(tokens, at)
        name, _ = _name(tokens, at)
        if name is not None:
            yield name


def _listed(tokens: list[_Token], at: int, ends: set[str]) -> Iterator[Name]:
    """Yield the names that begin a list item or follow a JOIN."""
    expected, depth = True, 0
    while at < len(tokens) and (depth or tokens[at].upper not in ends):
        word = tokens[at].upper
        depth += (word == "(") - (word == ")")
        if expected and depth == 0 and word not in _FILLERS:
            name, at = _name(tokens, at)
            if name is not None:
                yield name
            expected = False
            continue
        expected = word in (",", "JOIN", "USING") or (expected and word in _FILLERS) or (word == "FROM")
        at += 1


def _read(tokens: list[_Token]) -> frozenset[Name] | None:
    """Return the names after FROM, JOIN, USING and INTO, without those of common table expressions."""
    names, defined = set[Name](), set(_defined(tokens))
    for at, token in enumerate(tokens):
        if token.upper not in ("FROM", "JOIN", "USING", "TABLE") or _is_argument(tokens, at):
            continue
        found = _sources(tokens, at + 1)
        if found is None:
            return None
        names |= found
    return frozenset(name for name in names if name[0] is not None or name[1].casefold() not in defined)


def _sources(tokens: list[_Token], at: int) -> set[Name] | None:
    """Return the names of a list of tables, ``None`` where one of them is a function."""
    names = set[Name]()
    while True:
        while at < len(tokens) and tokens[at].upper in ("ONLY", "LATERAL", "("):
            at += 1
        if at < len(tokens) and tokens[at].upper in ("SELECT", "WITH", "VALUES", "UNNEST"):
            # A subquery is found by its own FROM; what follows it in the list is looked for after its end.
            at = _after_bracket(tokens, at)
        else:
            name, at = _name(tokens, at)
            if name is None or (at < len(tokens) and tokens[at].upper == "("):
                return None
            names.add(name)
        while at < len(tokens) and tokens[at].upper not in (",", ")", ";", *_CLAUSES):
            at += 1
        if at >= len(tokens) or tokens[at].upper != ",":
            return names
        at += 1


#: What ends the list of tables after FROM.
_CLAUSES: t.Final = _words(
    "WHERE JOIN ON USING GROUP ORDER LIMIT HAVING UNION EXCEPT INTERSECT SET RETURNING WINDOW FOR OFFSET FETCH"
)


def _after_bracket(tokens: list[_Token], at: int) -> int:
    """Return the place after the bracket that a subquery stands in."""
    depth = 1
    while at < len(tokens) and depth:
        depth += (tokens[at].upper == "(") - (tokens[at].upper == ")")
        at += 1
    return at


def _defined(tokens: list[_Token]) -> Iterator[str]:
    """Yield the names of common table expressions: ``name [(columns)] AS [NOT MATERIALIZED] (``."""
    for at, token in enumerate(tokens):
        if token.upper in ("WITH", "RECURSIVE", ",") and at + 1 < len(tokens):
            name, after = _name(tokens, at + 1)
            if name is None:
                continue
            if after < len(tokens) and tokens[after].upper == "(":
                after = _after_bracket(tokens, after + 1)
            following = [token.upper for token in tokens[after : after + 4]]
            if following[:1] == ["AS"] and "(" in following[1:]:
                yield name[1].casefold()


def _is_argument(tokens: list[_Token], at: int) -> bool:
    """Tell whether a FROM belongs to a function, as in ``extract(year FROM posted)``."""
    if tokens[at].upper != "FROM":
        return False
    before = [token.upper for token in tokens[max(0, at - 3) : at]]
    if before[-2:] == ["IS", "DISTINCT"] or before[-3:] == ["IS", "NOT", "DISTINCT"] or before[-1:] == ["DISTINCT"]:
        return True
    depth, place = 1, at - 1
    while place > 0 and depth:
        depth += (tokens[place].upper == ")") - (tokens[place].upper == "(")
        place -= 1
    return depth == 0 and tokens[place].upper in ("EXTRACT", "SUBSTRING", "TRIM", "OVERLAY")


def _name(tokens: list[_Token], at: int) -> tuple[Name | None, int]:
    """Return the name at a place, with its schema, and the place after it."""
    parts = list[str]()
    while at < len(tokens) and (tokens[at].is_name or tokens[at].word[0].isalpha() or tokens[at].word[0] == "_"):
        if not parts and tokens[at].upper in _ENDS:
            return None, at + 1
        parts.append(tokens[at].word)
        at += 1
        if at < len(tokens) and tokens[at].upper == ".":
            at += 1
        else:
            break
    if not parts:
        return None, at + 1
    return (parts[-2] if len(parts) > 1 else None, parts[-1]), at


def _skip(tokens: list[_Token], at: int) -> int:
    while at < len(tokens) and tokens[at].upper in _FILLERS:
        at += 1
    return at


def _follows(tokens: list[_Token], at: int, word: str) -> bool:
    return at + 1 < len(tokens) and tokens[at + 1].upper == word

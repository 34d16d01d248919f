"""What one request did to its session, and what became of it."""

from __future__ import annotations

import dataclasses
import enum
import typing as t

import msgspec

from ..serialization import Raw

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: Flask keeps :attr:`flask.session.permanent` under this key. It alone does not make a session worth keeping.
PERMANENT: t.Final = "_permanent"

#: How many characters of an address or a browser's name are kept.
_MAX_NAME: t.Final = 200


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """How long sessions live and how large they grow."""

    #: Prefixes every store key.
    namespace: str
    #: Seconds without use after which a session ends.
    idle_timeout: float
    #: Seconds from creation or login after which a session ends.
    lifetime: float
    #: The longest record, in bytes.
    max_bytes: int
    #: Seconds to wait for a session's lock.
    lock_timeout: float


class Visitor(msgspec.Struct, frozen=True):
    """Who makes the request, for the session's header."""

    ip: str
    user_agent: str

    @classmethod
    def of(cls, environ: WSGIEnvironment) -> Visitor:
        """Return who sent a request."""
        ip, user_agent = environ.get("REMOTE_ADDR") or "", environ.get("HTTP_USER_AGENT") or ""
        return cls(ip[:_MAX_NAME], user_agent[:_MAX_NAME])


class Change(msgspec.Struct, kw_only=True):
    """What a request did to its session."""

    #: Encoded values by key.
    assigned: dict[str, bytes] = {}
    deleted: set[str] = set()
    #: The session was emptied before anything was assigned: nothing of the stored one is kept, not even its id.
    cleared: bool = False
    rotated: bool = False
    #: The user who logged in, if one did.
    login: str | None = None
    #: Save even though no value differs.
    forced: bool = False

    def __bool__(self) -> bool:
        return bool(self.assigned or self.deleted or self.forced or self.moves)

    @property
    def moves(self) -> bool:
        """Whether what is kept is kept under a new id."""
        return self.cleared or self.rotated or self.login is not None

    def apply(self, items: t.Mapping[str, Raw]) -> dict[str, Raw]:
        """Return the items with this change made to them."""
        kept = {} if self.cleared else dict(items)
        for key in self.deleted:
            kept.pop(key, None)
        for key, value in self.assigned.items():
            kept[key] = Raw(value)
        return kept


class Outcome(enum.Enum):
    """What became of a session when it was saved."""

    UNCHANGED = enum.auto()
    #: Only its expiry and the time it was last seen were written.
    RENEWED = enum.auto()
    #: Written under the id it had.
    SAVED = enum.auto()
    #: Written under a new id.
    MOVED = enum.auto()
    ENDED = enum.auto()
    #: It had ended elsewhere; nothing was written.
    DEAD = enum.auto()


def is_empty(items: t.Collection[str], user_id: str | None) -> bool:
    """Tell whether a session with these keys and this user has nothing worth keeping."""
    return user_id is None and len(items) == (PERMANENT in items)

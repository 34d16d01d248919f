"""``state.sessions``: what an application does with sessions besides reading and writing them."""

from __future__ import annotations

import contextlib
import typing as t
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from flask import current_app, g

from ..blocks import Block, current_block
from ..current import get_session
from ..errors import ConfigError
from ..locks import StoreLock
from ..serialization import url_safe
from ..stores.base import is_key
from .records import MAX_ROUNDS, Entry
from .session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """What is known about a session besides its data."""

    #: The session's public name. It survives rotation, and nobody can open the session with it.
    handle: str
    user_id: str | None
    created_at: datetime
    #: Exact to a tenth of the idle timeout.
    last_seen_at: datetime
    #: When the session ends if it is not used again.
    expires_at: datetime
    ip: str
    user_agent: str
    #: Whether it is the session of this request.
    current: bool


class SessionManager:
    """The session of the current request; each call needs one."""

    @property
    def current(self) -> SessionInfo | None:
        """The stored session of this request; ``None`` where there is none yet."""
        session = _session()
        record = session.entry.record if session.entry is not None else None
        if record is None:
            return None
        header = record.header
        return SessionInfo(
            handle=url_safe(header.handle),
            user_id=session.user_id,
            created_at=_moment(header.created_at),
            last_seen_at=_moment(header.last_seen_at),
            expires_at=_moment(session.records.expires_at(header)),
            ip=header.ip,
            user_agent=header.user_agent,
            current=True,
        )

    @property
    def user_id(self) -> str | None:
        """The user bound to this request's session."""
        return _session().user_id

    def rotate(self) -> None:
        """Give the session a new id and keep its data; the old id is dead once the response is saved.

        Call it when a visitor's rights change (OWASP ASVS 5.0, 7.2.4).
        """
        _session().rotate()

    def destroy(self) -> None:
        """End the session at once, on every worker, and remove its cookie.

        It stays ended if the request fails later. What this request has assigned, or assigns afterwards, begins
        another session.
        """
        _session().destroy("destroy")

    def login(self, user_id: str | int, *, remember: bool = False) -> None:
        """Bind a user to the session, under a new id, for a new lifetime.

        An anonymous visitor's data is kept; another user's is not. A CSRF token made before is dropped.

        :param user_id: what identifies the user in the application's database.
        :param remember: keep the cookie after the browser is closed, by making the session permanent.
        :raises TypeError: if the id is neither text nor a whole number.
        :raises ValueError: if it is empty, or longer than 1,024 bytes.
        """
        session = _session()
        session.login(require_user_id(user_id))
        config = t.cast("Mapping[str, t.Any]", current_app.config)
        field = config.get("WTF_CSRF_FIELD_NAME", "csrf_token")
        session.pop(field, None)
        g.pop(field, None)
        if remember:
            session.permanent = True

    def logout(self) -> None:
        """End the session at once and unbind its user; a request in flight cannot undo it."""
        _session().destroy("logout")

    @contextlib.contextmanager
    def lock(self) -> Generator[None]:
        """Let one request at a time work on the session: for counters, and for lists that several append to.

        On entering, the session is read again, and what this request has changed is laid over it. On leaving, it is
        saved. Leaving by an exception saves nothing, and undoes what the block has changed. Inside another ``lock()``
        of the same request it waits for nothing and saves nothing: the outer one does. Inside ``state.atomic()`` the
        session stays locked until that ends, which saves it.

        :raises LockTimeout: if another request holds the lock for longer than ``STATEFUL_LOCK_TIMEOUT`` seconds. With
            ``store="db"`` inside ``state.atomic()`` it is a lock of the database, which sets its own limit.
        :raises StateConflict: if this request held it for longer than that and another one wrote meanwhile.
        """
        session = _session()
        entry, block = session.entry, current_block.get()
        if block is not None or session.locked:
            if block is not None and not session.locked:
                _hold(session, entry, block)
            with session.undone_by_errors():
                yield
        elif entry is None or entry.record is None:
            # Nobody else knows a session that was never stored.
            with session.undone_by_errors():
                yield
                _save(session, rounds=MAX_ROUNDS)
        else:
            with _exclusive(session, entry) as lock, session.undone_by_errors():
                yield
                _save(session, rounds=MAX_ROUNDS if lock.is_held() else 1)

    def __repr__(self) -> str:
        return "<SessionManager>"


def _session() -> Session:
    session = get_session()
    if not isinstance(session, Session):
        raise ConfigError(
            f"this application's sessions are served by {type(current_app.session_interface).__name__}; remove what"
            " sets app.session_interface after Stateful(app)"
        )
    return session


@contextlib.contextmanager
def _exclusive(session: Session, entry: Entry) -> Generator[StoreLock]:
    """Hold the lock of a stored session, and read it again before anything else."""
    timeout = session.records.options.lock_timeout
    busy = (
        f"another request has held this session's lock for {timeout:g} seconds; hold it for less time or raise"
        " STATEFUL_LOCK_TIMEOUT"
    )
    lock = StoreLock(session.records.store, f"{entry.id.key}:lock", busy, timeout=timeout, lease=timeout)
    lock.acquire()
    session.locked = True
    try:
        session.refresh()
        yield lock
    finally:
        session.locked = False
        lock.release()


def _hold(session: Session, entry: Entry | None, block: Block) -> None:
    """Keep others from the session until an atomic block ends, and read it again."""
    if entry is None or entry.record is None:
        return
    if block.locks_rows:
        with block.join(entry.id.key):
            session.refresh()
    else:
        block.hold(_exclusive(session, entry))


def _save(session: Session, *, rounds: int) -> None:
    session.save(rounds=rounds)
    session.settle()


def require_user_id(user_id: object) -> str:
    """Return a user's id as text.

    :raises TypeError: if it is neither text nor a whole number.
    :raises ValueError: if it is empty, or longer than 1,024 bytes.
    """
    if isinstance(user_id, bool) or not isinstance(user_id, (str, int)):
        raise TypeError(f"a user id must be str or int, not {type(user_id).__name__}; write login(user.id)")
    if user_id == "":
        raise ValueError("a user id must not be empty; write login(user.id)")
    if not is_key(str(user_id)):
        raise ValueError("a user id must be text of at most 1,024 UTF-8 bytes; write login(user.id)")
    return str(user_id)


def _moment(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)

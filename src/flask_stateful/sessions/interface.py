"""How Flask opens and saves the session."""

from __future__ import annotations

import typing as t

from flask.sessions import SessionInterface

from .. import signals
from ..cookies.header import CookieFinder, vary_by_cookie
from ..unit import Unit
from .change import Outcome
from .cookie import SessionCookie
from .records import Entry, SessionRecords
from .session import Session

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from flask import Flask, Request, Response
    from flask.sessions import SessionMixin


class SessionService:
    """What an application's sessions need, made when the first session is looked at."""

    def __init__(self, records: SessionRecords, cookie: SessionCookie) -> None:
        self.records = records
        self.cookie = cookie
        self.finder = CookieFinder(cookie.options.name)


class StatefulSessionInterface(SessionInterface):
    """Serves ``flask.session`` from a store.

    :param service: returns what the application's sessions need.
    :param unit_of: returns the unit of the request with this environ.
    """

    def __init__(self, service: t.Callable[[], SessionService], unit_of: t.Callable[[WSGIEnvironment], Unit]) -> None:
        self._service = service
        self._unit_of = unit_of

    def open_session(self, app: Flask, request: Request) -> Session:
        """Return a session that looks into the store when it is looked into itself."""
        return Session(self._open, request.environ)

    def _open(self, session: Session) -> tuple[SessionRecords, Entry | None]:
        service = self._service()
        session.unit = self._unit_of(session.environ)
        if not session.closed:
            session.unit.join(session)
        values = service.finder.values(session.environ)
        return service.records, self._first_alive(service.records, values)

    @staticmethod
    def _first_alive(records: SessionRecords, values: list[str]) -> Entry | None:
        """Return the session of the first cookie that has one. A browser may have kept an old one for another path."""
        first: Entry | None = None
        for value in values:
            identity = records.identities.recognise(value)
            entry = records.open(identity) if identity is not None else None
            if entry is not None and entry.record is not None:
                return entry
            first = first or entry
        if values and first is None:
            records.emit(signals.session_id_invalid, reason="forged")
        return first

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Set the cookie and the headers that go with it.

        The session itself was saved together with the rest of the request's unit, unless Flask's test client calls
        this on its own.
        """
        if not isinstance(session, Session):
            return
        if session.accessed:
            vary_by_cookie(response)
            if session.touched:
                if not session.closed:
                    session.save()
                self._send_cookie(session, response)
        session.closed = True

    def is_null_session(self, obj: object) -> bool:
        """Tell whether a session is Flask's, for an application without a key."""
        # To ask whether an object is of an abstract class, as Flask's is, takes longer than to open a session.
        return type(obj) is not Session and super().is_null_session(obj)

    def _send_cookie(self, session: Session, response: Response) -> None:
        if session.outcome in (Outcome.UNCHANGED, Outcome.DEAD):
            return
        service, entry = self._service(), session.known
        is_secure = session.environ.get("wsgi.url_scheme") == "https"
        if session.outcome is Outcome.ENDED:
            if service.finder.values(session.environ):
                service.cookie.remove(response, is_secure=is_secure)
        elif entry is not None and entry.record is not None and self._must_send(session, entry):
            expires_at = service.records.expires_at(entry.record.header) if session.permanent else None
            value = service.records.identities.cookie_value(entry.id)
            service.cookie.set(response, value, is_secure=is_secure, expires_at=expires_at)

    def _must_send(self, session: Session, entry: Entry) -> bool:
        """Tell whether the browser needs the cookie again. It gets it only when the store has just confirmed it."""
        if session.outcome is Outcome.MOVED:
            return True
        refresh = session.outcome is Outcome.SAVED or self._service().cookie.options.refresh
        return entry.id.stale or session.recookie or (session.permanent and refresh)

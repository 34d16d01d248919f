"""Stored answers of views (:rfc:`9110`, :rfc:`9111`)."""

from __future__ import annotations

import secrets
import typing as t

import msgspec
from werkzeug.datastructures import Headers

from .. import clock
from ..errors import DecodeError
from .values import Codec

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from flask import Response

#: What ``Cache-Status`` calls us.
NAME: t.Final = "Flask-Stateful"

_HIT: t.Final = ("Cache-Status", f"{NAME}; hit")

#: What tells one address from another in an environ.
PLACE: t.Final = (
    *("wsgi.url_scheme", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"),
)

#: Request headers with which the answer depends on what the client has already, as an environ names them.
CONDITIONS: t.Final = frozenset(
    {"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_UNMODIFIED_SINCE", "HTTP_IF_RANGE"}
)

#: Headers that belong to one answer or one connection, and are never stored.
NOT_STORED: t.Final = frozenset({"date", "connection", "keep-alive", "transfer-encoding", "age", "cache-status"})


class Page(msgspec.Struct, array_like=True, frozen=True):
    """A stored answer."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    #: When it was made, in seconds since 1970.
    made_at: float
    #: Names of the request headers that its ``Vary`` lists, where they are not in the key yet. Such a page has nothing
    #: else: it only says where to look.
    vary: tuple[str, ...] = ()
    #: Part of the keys of those answers that such a page leads to: with it, they are forgotten.
    mark: str = ""

    @property
    def age(self) -> int:
        """Seconds since it was made."""
        return max(0, int(clock.now() - self.made_at))

    def response(self, make: type[Response], environ: WSGIEnvironment) -> Response:
        """Return it as the answer to a request, ``304`` where that has it already.

        :param make: the application's class of responses.
        """
        headers = Headers()
        # Werkzeug takes half as long for all at once as one by one, and for a list as for bytes that it has to measure.
        headers[:] = [*self.headers, ("Age", str(self.age)), _HIT]
        response = make([self.body], self.status, headers)
        if self.status == 200 and not environ.keys().isdisjoint(CONDITIONS):
            response.make_conditional(environ)
        return response


def page_of(response: Response, *, personal: bool) -> Page:
    """Return an answer as it is stored, with an ``ETag``.

    Unless the view says how long others may keep it, they are to ask again each time: no invalidation reaches them.

    :param personal: whether it is for one visitor, and not for caches on the way.
    """
    response.add_etag()
    if "Cache-Control" not in response.headers:
        response.headers["Cache-Control"] = "private, no-cache" if personal else "no-cache"
    headers = tuple((name, value) for name, value in response.headers if name.lower() not in NOT_STORED)
    return Page(response.status_code, headers, response.get_data(), clock.now())


def signpost(vary: tuple[str, ...]) -> Page:
    """Return what is stored in place of an answer that varies by request headers."""
    return Page(0, (), b"", clock.now(), vary, secrets.token_urlsafe(9))


_decoder = msgspec.msgpack.Decoder(Page)


def _decode(data: bytes) -> Page:
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise DecodeError("the bytes are not a stored page") from error


PAGE: t.Final = Codec(msgspec.msgpack.Encoder().encode, _decode)

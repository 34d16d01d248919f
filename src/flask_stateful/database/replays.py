"""What a view finds as it was when it is run again."""

from __future__ import annotations

import random
import typing as t
from collections.abc import Callable

from flask import g, has_request_context
from flask import globals as flask_globals
from flask.globals import app_ctx

from ..current import get_request

if t.TYPE_CHECKING:
    from flask import Request

#: Seconds that the first pause may take, and any.
_FIRST_PAUSE: t.Final = 0.01
_LONGEST_PAUSE: t.Final = 1.0

#: Returns ``flask.g`` itself, which a proxy of it is not.
_current_g: t.Callable[[], object] = t.cast("t.Any", g)._get_current_object

_random: t.Final = random.SystemRandom()


def pause(attempt: int) -> float:
    """Return how many seconds to wait before another attempt: any number up to one that doubles.

    :param attempt: how many there were.
    """
    return _random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt))


def remember_context() -> Callable[[], None]:
    """Return what restores ``flask.g``, what ``after_this_request`` has gathered, flashed messages, and uploads."""
    restores = [_remember_g()]
    if has_request_context():
        restores += [_remember_request(), _remember_uploads(get_request())]

    def restore() -> None:
        for one in restores:
            one()

    return restore


def spent_body() -> str:
    """Return why a view cannot read the request's body again, if that is so."""
    if not has_request_context():
        return ""
    own = vars(get_request())
    if "stream" not in own or "form" in own or hasattr(get_request(), "_cached_data"):
        return ""
    return "it has read request.stream"


def _remember_g() -> Callable[[], None]:
    own = vars(_current_g())
    before = dict(own)

    def restore() -> None:
        own.clear()
        own.update(before)

    return restore


def _remember_request() -> Callable[[], None]:
    context: t.Any = getattr(flask_globals, "request_ctx", app_ctx)
    functions: list[t.Any] = getattr(context, "_after_request_functions", [])
    before, flashes = list(functions), getattr(context, "flashes", None)

    def restore() -> None:
        functions[:] = before
        if hasattr(context, "flashes"):
            context.flashes = flashes

    return restore


def _remember_uploads(current: Request) -> Callable[[], None]:
    def files() -> list[t.Any]:
        return [file.stream for _, file in current.files.items(multi=True)] if "files" in vars(current) else []

    before = {id(stream): stream.tell() for stream in files()}

    def restore() -> None:
        for stream in files():
            stream.seek(before.get(id(stream), 0))

    return restore

"""What Flask's proxies stand for at the moment: to go through one takes longer than a hit in the cache."""

from __future__ import annotations

import typing as t

from flask import current_app, request, session

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask, Request

#: Returns the current application itself, or raises :exc:`RuntimeError` where there is none, as the others do.
get_app: t.Final[Callable[[], Flask]] = t.cast("t.Any", current_app)._get_current_object
#: Returns the current request itself.
get_request: t.Final[Callable[[], Request]] = t.cast("t.Any", request)._get_current_object
#: Returns the session of the request at hand, whoever serves it.
get_session: t.Final[Callable[[], object]] = t.cast("t.Any", session)._get_current_object

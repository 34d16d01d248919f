"""Where a refresh runs when nobody waits for it: after the response, or in a small pool."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import typing as t
from collections.abc import Callable

from flask import after_this_request, has_request_context

if t.TYPE_CHECKING:
    from flask import Flask, Response

logger = logging.getLogger("flask_stateful")

#: How many refreshes run at once outside of requests.
_WORKERS: t.Final = 2


class Background:
    """Runs refreshes for one application, each in an application context of its own.

    In a request they run after the response was sent, in the thread that made it; elsewhere in a pool of two threads.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def later(self, work: Callable[[], object]) -> None:
        """Run something when nobody waits for it."""
        if not has_request_context():
            self._executor().submit(self._run, work)
            return

        def after(response: Response) -> Response:
            response.call_on_close(lambda: self._run(work))
            return response

        after_this_request(after)

    def _run(self, work: Callable[[], object]) -> None:
        try:
            with self._app.app_context():
                work()
        except Exception:
            logger.exception("refreshing a cached value failed")

    def _executor(self) -> concurrent.futures.ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = concurrent.futures.ThreadPoolExecutor(_WORKERS, thread_name_prefix="flask-stateful-cache")
            return self._pool

    def renew(self) -> None:
        """Begin anew in a forked child, which has none of the threads."""
        self._pool = None
        self._lock = threading.Lock()

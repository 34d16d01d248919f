"""Log lines that every request would write again."""

from __future__ import annotations

import logging
import typing as t
import weakref

from . import clock

logger = logging.getLogger("flask_stateful")

#: Seconds in which a line is not written again.
INTERVAL: t.Final = 60.0

_written: weakref.WeakKeyDictionary[object, dict[str, float]] = weakref.WeakKeyDictionary()


def log_seldom(about: object, level: int, message: str, *args: object) -> None:
    """Log a line, unless the same one was written about the same object within a minute.

    :param about: such as the application; what was written is forgotten with it.
    :param args: names that the application has chosen, never what a visitor has sent: each line is remembered.
    """
    line, now = message % args, clock.monotonic()
    times = _written.setdefault(about, {})
    if line not in times or not times[line] <= now < times[line] + INTERVAL:
        times[line] = now
        logger.log(level, line)

"""Asking a socket whether there is something to read."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable


def poller(sock: socket.socket) -> Callable[[int], object]:
    """Return a function that waits for so many milliseconds, and tells whether there is something to read."""
    if not hasattr(select, "poll"):  # Windows
        return lambda milliseconds: select.select([sock], [], [], milliseconds / 1000)[0]
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return poll.poll

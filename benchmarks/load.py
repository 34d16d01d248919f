"""A small load generator for machines without wrk: ``python -m benchmarks.load URL COOKIES SECONDS CONNECTIONS``."""

from __future__ import annotations

import itertools
import socket
import sys
import threading
import time
import typing as t
from pathlib import Path
from urllib.parse import urlsplit


def load(url: str, cookies: t.Sequence[str], seconds: float, connections: int) -> tuple[float, int]:
    """Ask for a URL, with the cookies in turn, from several threads.

    :return: the requests per second, and how many were no success.
    """
    parts, turns = urlsplit(url), itertools.cycle(cookies)
    address = (parts.hostname or "127.0.0.1", parts.port or 80)
    head = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\nCookie: "
    done: list[bytes] = []
    end = time.perf_counter() + seconds

    def ask() -> None:
        while time.perf_counter() < end:
            done.append(_exchange(address, f"{head}{next(turns)}\r\n\r\n".encode()))

    threads = [threading.Thread(target=ask) for _ in range(connections)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.perf_counter() - began
    return len(done) / spent, sum(b" 200 " not in answer for answer in done)


def _exchange(address: tuple[str, int], request: bytes) -> bytes:
    """Send a request on a connection of its own; return how its answer begins."""
    with socket.create_connection(address, 30) as connection:
        connection.sendall(request)
        parts = [connection.recv(65_536)]
        while parts[-1]:
            parts.append(connection.recv(65_536))
    return parts[0][:20]


if __name__ == "__main__":
    url, cookies, seconds, connections = sys.argv[1:]
    print(*load(url, Path(cookies).read_text().splitlines(), float(seconds), int(connections)))

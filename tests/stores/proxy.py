"""A relay between a client and a server that counts, and can lose what they say."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import typing as t


class Proxy:
    """Listens on a loopback port and relays every connection to another one.

    :param port: where the server listens.
    """

    def __init__(self, port: int) -> None:
        #: Where new connections go.
        self.target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._wake, self._woken = socket.socketpair()
        self._threads = [threading.Thread(target=self._accept)]
        self._lock = threading.Lock()
        self.port: int = self._listener.getsockname()[1]
        #: How often somebody connected.
        self.connections = 0
        #: How often a client spoke after it was silent: the number of round trips.
        self.trips = 0
        #: What clients said.
        self.said = b""
        #: Whether the next words of the server are lost, together with the connection; those after them are not.
        self.hang_up = False
        #: Whether all words are lost, in both directions, without anybody's being told.
        self.silent = False
        self._clients: list[socket.socket] = []
        self._threads[0].start()

    def reset(self) -> None:
        """Count from zero again."""
        with self._lock:
            self.connections, self.trips, self.said = 0, 0, b""

    def cut(self) -> None:
        """End the connections that there are, and those that are made before :attr:`target` is set again."""
        self.target = 0
        for client in self._clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End every connection."""
        self._wake.close()
        for thread in self._threads:
            thread.join(30)
        self._listener.close()
        self._woken.close()

    def __enter__(self) -> t.Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _accept(self) -> None:
        while self._woken not in select.select([self._listener, self._woken], [], [])[0]:
            client, _ = self._listener.accept()
            with self._lock:
                self.connections += 1
            self._clients.append(client)
            relay = threading.Thread(target=self._relay, args=(client,))
            self._threads.append(relay)
            relay.start()

    def _relay(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self.target)) as server:
            silent = True
            while self._woken not in (ready := select.select([client, server, self._woken], [], [])[0]):
                if client in ready:
                    words = client.recv(65_536)
                    if not words:
                        return
                    with self._lock:
                        self.trips += silent
                        self.said += words
                    silent = False
                    if not self.silent:
                        server.sendall(words)
                elif server in ready:
                    words, silent = server.recv(65_536), True
                    with self._lock:
                        hang_up, self.hang_up = self.hang_up, False
                    if not words or hang_up:
                        return
                    if not self.silent:
                        client.sendall(words)

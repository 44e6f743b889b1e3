"""Network cameras and servers that misbehave, on the loopback address."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from types import TracebackType

Behaviour = Callable[[socket.socket, threading.Event], None]
"""What is done with one connection until the event says that the server closes."""


class Server:
    """Accepts connections on a free port and does the same with each, in a thread of its own."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour, self.connections = behaviour, 0
        self.closing = threading.Event()
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen()
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            if self.closing.is_set():
                connection.close()
                return
            self.connections += 1
            self.threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self.threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(10)
            try:
                self.behaviour(connection, self.closing)
            except OSError:
                return

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        # Closing a socket does not wake a thread that waits in accept.
        with socket.create_connection(tuple_of(self.address)):
            pass
        for thread in self.threads:
            thread.join()
        self.socket.close()


def tuple_of(address: str) -> tuple[str, int]:
    """("127.0.0.1", 80) of "127.0.0.1:80"."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def silent(connection: socket.socket, closing: threading.Event) -> None:
    """Accepts and never answers."""
    closing.wait()


def drip(connection: socket.socket, closing: threading.Event) -> None:
    """Answers one byte at a time, without an end."""
    while not closing.wait(0.1):
        connection.sendall(b"R")


def answer(body: bytes, kind: str, *, then: Behaviour | None = None, length: int | None = None) -> Behaviour:
    """HTTP: a body of a content type, and then something else, such as `silent`. length: what the header claims."""

    def behave(connection: socket.socket, closing: threading.Event) -> None:
        connection.recv(1 << 16)
        header = f"HTTP/1.0 200 OK\r\nContent-Type: {kind}\r\n"
        if length is not None:
            header += f"Content-Length: {length}\r\n"
        connection.sendall(header.encode() + b"\r\n" + body)
        if then is not None:
            then(connection, closing)

    return behave


def multipart(pictures: list[bytes]) -> bytes:
    """The body of MJPEG over HTTP; its boundary is "b"."""
    return b"".join(
        b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data) + data + b"\r\n"
        for data in pictures
    )


MULTIPART = "multipart/x-mixed-replace; boundary=b"

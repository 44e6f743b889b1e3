from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgex.serving import limits

Client = Any


def clients(client: Client) -> list[tuple[str, int]]:
    """The addresses that the server has connections with."""
    return [connection.client for connection in list(client.server._uvicorn.server_state.connections)]


def closes(connection: socket.socket) -> bytes:
    """What arrives until the server closes."""
    connection.settimeout(20)
    found = b""
    try:
        while piece := connection.recv(1 << 16):
            found += piece
    except ConnectionResetError:
        pass
    return found


def test_clients_that_never_send(serve: Callable[..., Client], monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither silence nor half a header, nor a byte of it now and then, holds a connection; others are served."""
    monkeypatch.setattr(limits, "ARRIVAL", 0.5)
    client = serve()
    with (
        socket.create_connection(client.address) as silent,
        socket.create_connection(client.address) as half,
        socket.create_connection(client.address) as slow,
    ):
        half.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: local")
        assert client.get("/healthz").status_code == 200
        start = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() < start + 20:
                slow.sendall(b"G")
                time.sleep(0.05)
        assert closes(silent) == closes(half) == b""


def test_connections_without_a_next_request(serve: Callable[..., Client], monkeypatch: pytest.MonkeyPatch) -> None:
    """After an answer, bytes that begin no request do not keep the connection open."""
    monkeypatch.setattr(limits, "KEEP_ALIVE", 0.5)
    client = serve()
    with socket.create_connection(client.address) as raw:
        raw.settimeout(20)
        raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        found = b""
        while b'{"status":"ok"}' not in found:
            found += raw.recv(10_000)
        start = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() < start + 20:
                raw.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - start < 15


def test_a_client_that_never_reads(serve: Callable[..., Client], monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks for an overlay that fills every buffer on the way, and reads nothing: it is cut off."""
    noise = np.random.default_rng(0).integers(0, 256, (1700, 1700, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "JPEG")
    body = stream.getvalue()
    client = serve()
    client.server._uvicorn.config.http.keywords["timeout"] = 2.0
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(client.address)
        raw.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nAccept: image/png\r\nContent-Length: %d\r\n\r\n%s"
            % (len(body), body)
        )
        end = time.monotonic() + 60
        while not any("/v1/predict 200" in line for line in client.log):
            assert time.monotonic() < end, "it was not answered"
            time.sleep(0.05)
        assert raw.getsockname() in clients(client)
        # Sooner than connections without a next request are closed.
        end = time.monotonic() + 0.8 * limits.KEEP_ALIVE
        while raw.getsockname() in clients(client):
            assert time.monotonic() < end, "the server never cut it off"
            assert client.get("/healthz").status_code == 200
            time.sleep(0.05)
        assert len(closes(raw)) < 1700 * 1700


def test_what_is_no_http(client: Client) -> None:
    with socket.create_connection(client.address) as raw:
        raw.sendall(b"\x16\x03\x01 this is a TLS handshake\r\n\r\n")
        head, _, body = closes(raw).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n") and b"application/json" in head
    assert body == b'{"error": "expected an HTTP/1.1 request, found something else"}'
    with socket.create_connection(client.address) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n" + b"X: " + bytes(100_000))
        assert closes(raw)[:9] in (b"HTTP/1.1 ", b"")
    assert client.get("/healthz").status_code == 200


def test_connections_are_bounded(serve: Callable[..., Client], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 2)
    client = serve()
    assert client.get("/healthz").status_code == 200
    with socket.create_connection(client.address), socket.create_connection(client.address) as refused:
        answer = closes(refused)
    assert answer.startswith(b"HTTP/1.1 503 ") and b"Retry-After: 1\r\n" in answer
    assert answer.endswith(b'{"error": "too many connections at once; try again in a second"}')
    assert client.get("/healthz").status_code == 200

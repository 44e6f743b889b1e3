"""The page in the browser: the newest picture with its heatmap, classes and times, and a place to ask "why not?".

A web server of the standard library on 127.0.0.1 and nowhere else. Nothing is loaded from outside. Since any web page
that the user has open may send requests to a loopback address, a request must name this server as its host (which stops
DNS rebinding), questions must be JSON of the same origin (which stops forged forms), and pictures may not be embedded
by other origins.

| request | answer |
|---|---|
| GET / | the page: page.html, page.css, page.js of this folder |
| GET /about | JSON: model, source, classes, colours |
| GET /frame?after=N | waits for a state newer than N: length (4 bytes, little-endian), JSON, JPEG of the bare picture |
| GET /overlay.mjpg | the pictures with heatmap and caption as MJPEG, for other programs |
| POST /explain | {"class": position or null}: which class to explain from now on |
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import sys
import threading
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image

from edgex.runtime.errors import UsageError
from edgex.runtime.overlay import colours
from edgex.runtime.watch.sinks import captioned

if TYPE_CHECKING:
    import numpy as np

    from edgex.runtime.watch.stream import FrameResult, Stream

HOST = "127.0.0.1"
LARGEST = 960
"""Longest side of a picture on the page, in pixels."""
_QUALITY = 82
_PATIENCE = 10.0
"""Seconds that a request waits for a newer picture, and that a client may take for one read or write."""
_MAX_QUESTION = 1000
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Page:
    """Serves a stream's newest result until `close`. A `Sink`.

    port: 0 for any free one; `url` says which. opacity: of heatmaps in /overlay.mjpg; the page has its own slider.

    Raises UsageError where the port is taken or not allowed.
    """

    def __init__(self, stream: Stream, port: int = 0, opacity: float = 0.6) -> None:
        self.stream = stream
        self.opacity = opacity
        self._changed = threading.Condition()
        self._version = 0
        self._newest: FrameResult | None = None
        self._note = ""
        self._jpeg: tuple[FrameResult, bytes] | None = None
        self.closed = False
        try:
            self._server = _Server((HOST, port), partial(_Handler, self))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(
                f"expected a free port on {HOST}, found {port}: {reason}; choose another, or 0 for any",
                argument="port",
            ) from error
        self.port = int(self._server.server_address[1])
        self.url = f"http://{HOST}:{self.port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="edgex page")
        self._thread.start()

    def write(self, frame: FrameResult) -> None:
        """Shows a result."""
        with self._changed:
            self._newest = frame
            self._note = self._note if frame.is_rerun else ""
            self._version += 1
            self._changed.notify_all()

    def notice(self, text: str) -> None:
        """Shows a line, such as that the source is being opened again or has ended."""
        with self._changed:
            self._note = text
            self._version += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Ends all requests and the server; returns when its threads have ended."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join()

    def wait(self, after: int, patience: float = _PATIENCE) -> tuple[int, FrameResult | None, str] | None:
        """(version, result, note) newer than `after`; None where nothing came or the page is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self._version != after, patience)
            return None if self.closed or self._version == after else (self._version, self._newest, self._note)

    def about(self) -> dict[str, Any]:
        """What does not change while the stream runs."""
        session = self.stream.session
        return {
            "model": session.path.name,
            "provider": session.provider,
            "source": self.stream.source.name,
            "policy": self.stream.policy,
            "classes": list(session.classes),
            "colours": {name: colours(name).round().astype(int).tolist() for name in ("turbo", "for", "against")},
        }

    def jpeg(self, frame: FrameResult) -> bytes:
        """The bare picture, at most `LARGEST` pixels long; encoded once for all clients, and only if one asks."""
        known = self._jpeg
        if known is None or known[0].source_frame is not frame.source_frame:
            known = self._jpeg = frame, encode(frame.pixels())
        return known[1]

    def state(self, version: int, frame: FrameResult | None, note: str) -> dict[str, Any]:
        """JSON-ready: what the page shows beside the picture."""
        stream = self.stream
        state: dict[str, Any] = {
            "version": version,
            "state": stream.state,
            "note": note,
            "asked": stream.explain,
            "meter": stream.metrics.snapshot().to_dict(),
        }
        if frame is not None:
            result = frame.result
            state |= {
                **result.to_dict(),
                "frame": frame.number,
                "name": frame.source_frame.name,
                "top": [[index, float(result.probabilities[index])] for index in result.order(5)],
                "heatmap": result.heatmap.round(5).tolist(),
                "latency_ms": 1000 * frame.latency,
            }
        return state


def encode(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 3] RGB as JPEG, at most `LARGEST` pixels long."""
    image = Image.fromarray(pixels)
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_QUALITY)
    return buffer.getvalue()


class _Server(ThreadingHTTPServer):
    """Knows its open connections, so that idle ones end with it; `server_close` waits for all threads."""

    daemon_threads = False
    # On Windows it would let two servers share a port.
    allow_reuse_address = os.name == "posix"

    def __init__(self, address: tuple[str, int], handler: Any) -> None:
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Notes the connection."""
        with self._guard:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forgets the connection."""
        with self._guard:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Ends every connection that is open."""
        with self._guard:
            for request in self._open:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores connections that the browser closed in the middle of an answer."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "edgex"
    sys_version = ""
    timeout = _PATIENCE + 5

    def __init__(self, page: Page, *arguments: Any) -> None:
        self._page = page
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Answers the requests of the table above."""
        if not self._allowed():
            return
        address = urlsplit(self.path)
        if address.path in _FILES:
            name, kind = _FILES[address.path]
            self._answer(Path(__file__).with_name(name).read_bytes(), kind)
        elif address.path == "/about":
            self._answer(json.dumps(self._page.about()).encode(), "application/json")
        elif address.path == "/frame":
            self._frame(parse_qs(address.query).get("after", ["-1"])[0])
        elif address.path == "/overlay.mjpg":
            self._motion_jpeg()
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "expected /, /about, /frame or /overlay.mjpg")

    def do_POST(self) -> None:
        """Takes a question."""
        if not self._allowed():
            return
        length = self.headers.get("Content-Length", "")
        if urlsplit(self.path).path != "/explain":
            self._refuse(HTTPStatus.NOT_FOUND, "expected /explain")
        elif self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected JSON")
        elif not length.isdecimal() or int(length) > _MAX_QUESTION:
            self._refuse(HTTPStatus.BAD_REQUEST, f"expected at most {_MAX_QUESTION} bytes")
        else:
            try:
                self._page.stream.explain = json.loads(self.rfile.read(int(length)))["class"]
            except UsageError as error:
                self._answer(str(error).encode(), "text/plain; charset=utf-8", HTTPStatus.BAD_REQUEST)
            except (ValueError, TypeError, KeyError):
                self._answer(b'expected {"class": a position or null}', "text/plain", HTTPStatus.BAD_REQUEST)
            else:
                self._answer(b"{}", "application/json")

    def log_message(self, format: str, *arguments: Any) -> None:
        """Request logging is disabled."""

    def _allowed(self) -> bool:
        """Whether the request was meant for this server; answers it if not."""
        hosts = {f"{name}:{self._page.port}" for name in (HOST, "localhost")}
        origin = self.headers.get("Origin")
        if self.headers.get("Host") in hosts and (origin is None or origin.removeprefix("http://") in hosts):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, f"expected a request to {self._page.url}")
        return False

    def _frame(self, after: str) -> None:
        # Python refuses to read numbers of thousands of digits.
        news = self._page.wait(int(after) if after.isdecimal() and len(after) < 20 else -1)
        if news is None:
            self._answer(b"", "application/octet-stream", HTTPStatus.NO_CONTENT)
            return
        text = json.dumps(self._page.state(*news)).encode()
        picture = self._page.jpeg(news[1]) if news[1] is not None else b""
        self._answer(len(text).to_bytes(4, "little") + text + picture, "application/octet-stream")

    def _motion_jpeg(self) -> None:
        self.send_response(HTTPStatus.OK)
        self._send_headers("multipart/x-mixed-replace; boundary=frame")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        version = 0
        while not self._page.closed:
            news = self._page.wait(version, 1.0)
            if news is None:
                continue
            version, frame, _ = news
            if frame is None:
                continue
            picture = encode(captioned(frame, self._page.opacity))
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
            self.wfile.write(head.encode() + picture + b"\r\n")

    def _answer(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self._send_headers(kind)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        # What else the client sent is not read, so the connection cannot go on.
        self.close_connection = True
        self._answer(f"{text}\n".encode(), "text/plain; charset=utf-8", status)

    def _send_headers(self, kind: str) -> None:
        self.send_header("Content-Type", kind)
        for name, value in _HEADERS.items():
            self.send_header(name, value)

"""The web server under the page: every request gets one answer, in words for people, whatever a client sends.

Built on `http.server` of the standard library, with what that leaves open: a time limit for each request as a whole, a
limit on clients, answers that arrive although the request was not read to its end, and nothing on standard error. What
is served is not here: see `page`.

Any web page that the user has open may send requests to a loopback address. So

- the Host header must be a name of this machine (which stops DNS rebinding); its port may be another, as behind
  `ssh -L` or a reverse proxy, which must send its upstream's host. A page with a token, see `access`, takes any
  host: browsers send its cookie to the host only that it came from;
- an Origin header must be that host, the host that a reverse proxy names in X-Forwarded-Host, or come with
  Sec-Fetch-Site: same-origin, which scripts cannot set;
- a body must be JSON, which other origins may send only after a preflight, and preflights are refused;
- answers may not be embedded by other origins.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from edgex.runtime.errors import UsageError, first_line
from edgex.runtime.printable import printable
from edgex.runtime.watch.page.access import Access

HOST = "127.0.0.1"
_NAMES = frozenset({HOST, "localhost", "::1"})
ARRIVAL = 10.0
"""Seconds that a request may take to arrive, the wait on an open connection for the next one included."""
_WRITING = 15.0
"""Seconds that a client may take to read one piece of an answer."""
_LINGER = 2.0
"""Seconds that the rest of a refused request is read and dropped: closing before that could undo the answer."""
_MAX_CLIENTS = 500
_MAX_BODY = 10_000
_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_TEXT = "text/plain; charset=utf-8"
_WORDS = {
    HTTPStatus.BAD_REQUEST: "The request could not be understood.",
    HTTPStatus.UNAUTHORIZED: "This page asks for a token: open the link that holds the right one.",
    HTTPStatus.NOT_FOUND: "There is nothing at this address.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This address does not take such requests.",
    HTTPStatus.REQUEST_TIMEOUT: "The request took too long to arrive.",
    HTTPStatus.LENGTH_REQUIRED: "The request does not say how long it is.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The request is too long.",
    HTTPStatus.REQUEST_URI_TOO_LONG: "The address is too long.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The request has to be JSON.",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "The request has too many or too long headers.",
    HTTPStatus.NOT_IMPLEMENTED: "This server does not know such requests.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Too many viewers at once; close other windows of this page.",
    HTTPStatus.HTTP_VERSION_NOT_SUPPORTED: "This server speaks HTTP/1.1.",
}


@dataclass(frozen=True)
class Request:
    """What a route is called with. query: the first value of each name behind "?". body: empty but for POST."""

    query: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """What a route returns. body: all of it, or its pieces as they come, until the connection ends."""

    body: bytes | Iterator[bytes]
    kind: str
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """A route cannot do what a request asks for. words: for the person in front of the page, or the usual ones."""

    def __init__(self, status: HTTPStatus, words: str = "") -> None:
        super().__init__(words or _WORDS.get(status, status.phrase))
        self.status = status


Routes = Mapping[str, Mapping[str, Callable[[Request], Answer]]]
"""Path -> method -> what answers it."""


def parse_address(text: str) -> tuple[str, int]:
    """The host and the port of "8000", "0.0.0.0:8000" or "[::]:8000"; `HOST` where none is named. UsageError."""
    host, _, port = text.strip().rpartition(":")
    # Python refuses to read numbers of thousands of digits.
    if not (port.isascii() and port.isdecimal() and len(port) < 10) or (":" in host) != host.startswith("["):
        raise UsageError(f"expected PORT or HOST:PORT, such as 8000 or 0.0.0.0:8000, found {text[:100]!r}")
    return host.strip("[]") or HOST, int(port)


class Server(ThreadingHTTPServer):
    """Serves routes, a thread for each connection, until `close`.

    host: the address to listen on. access: who may see them; None for whoever reaches the address. A page that is
    refused for its token is answered with the route "/token".

    Raises OSError or OverflowError where the port is taken or not allowed.
    """

    daemon_threads = False
    # On Windows it would let two servers share a port.
    allow_reuse_address = os.name == "posix"
    # Clients that connect at once wait in the kernel's queue; those that find it full would time out.
    request_queue_size = _MAX_CLIENTS

    def __init__(self, port: int, routes: Routes, host: str = HOST, access: Access | None = None) -> None:
        self._deadlines: dict[socket.socket, float] = {}
        self._guard = threading.Lock()
        self.access = access
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), partial(_Handler, routes))
        self.port = int(self.server_address[1])
        self.url = f"http://{_reached_at(host)}:{self.port}/"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), name="edgex page")
        self._thread.start()

    def close(self) -> None:
        """Ends every connection and the server; returns when all its threads have ended."""
        self.shutdown()
        with self._guard:
            for connection in self._deadlines:
                _end(connection, socket.SHUT_RDWR)
        self.server_close()
        self._thread.join()

    def awaits(self, connection: socket.socket, seconds: float) -> None:
        """From now on, the connection has so many seconds to send what is read of it next."""
        with self._guard:
            self._deadlines[connection] = time.monotonic() + seconds

    def is_late(self, connection: socket.socket) -> bool:
        """Whether that time is over."""
        with self._guard:
            return self._deadlines.get(connection, math.inf) <= time.monotonic()

    def service_actions(self) -> None:
        """Lets reads of late connections end: a client that sends a byte now and then never lets them time out."""
        now = time.monotonic()
        with self._guard:
            for connection, deadline in self._deadlines.items():
                if deadline <= now:
                    _end(connection, socket.SHUT_RD)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Gives the connection a thread, unless there are too many."""
        with self._guard:
            full = len(self._deadlines) >= _MAX_CLIENTS
        if full:
            with contextlib.suppress(OSError):
                request.sendall(_WHOLE_REFUSAL)
            self.shutdown_request(request)
        else:
            self.awaits(request, ARRIVAL)
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forgets the connection."""
        with self._guard:
            self._deadlines.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke in the middle of an answer is no error of the server."""


class _Handler(BaseHTTPRequestHandler):
    # Also of answers to requests that name none: HTTP/0.9 has neither status nor headers.
    protocol_version = default_request_version = "HTTP/1.1"
    server_version = "edgex"
    sys_version = ""
    timeout = _WRITING
    disable_nagle_algorithm = True
    server: Server

    def __init__(self, routes: Routes, *arguments: Any) -> None:
        self._routes = routes
        super().__init__(*arguments)

    def handle_one_request(self) -> None:
        """Reads and answers one request."""
        self.server.awaits(self.connection, ARRIVAL)
        super().handle_one_request()

    def parse_request(self) -> bool:
        """Whether request line and headers are whole and well-formed; answers them if not."""
        if not super().parse_request():
            if not self.requestline.strip():
                self.send_error(HTTPStatus.BAD_REQUEST)
            return False
        self.request_version = self.protocol_version
        if self.server.is_late(self.connection):
            self.send_error(HTTPStatus.REQUEST_TIMEOUT)
        elif self.headers.defects or any(len(self.headers.get_all(name, [])) > 1 for name in _ONLY_ONCE):
            self.send_error(HTTPStatus.BAD_REQUEST)
        else:
            return True
        return False

    def do_GET(self) -> None:
        """Answers a request of any method that HTTP knows."""
        try:
            answer = self._answered()
        except RefusedError as refusal:
            # What else the client sent was perhaps not read, so the connection cannot go on.
            self.close_connection = True
            answer = _text(refusal.status, refusal)
        except OSError:
            raise
        except Exception as error:
            self.close_connection = True
            answer = _text(HTTPStatus.INTERNAL_SERVER_ERROR, f"The page could not be made: {first_line(error)}")
        self._send(answer)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = do_GET  # noqa: N815

    def _answered(self) -> Answer:
        try:
            address = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(address.query).items()}
        except ValueError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST) from error
        self._check_origin()
        if (access := self.server.access) is not None:
            if self.command == "GET" and access.is_token(query.get("token", "")):
                there = f"./{address.path.rpartition('/')[2]}"
                return _text(HTTPStatus.SEE_OTHER, "", {"Location": there, **access.headers})
            if not access.admits(self.headers) and address.path not in _OPEN:
                return self._refused(address.path, query)
        methods = self._routes.get(address.path)
        if methods is None:
            raise RefusedError(HTTPStatus.NOT_FOUND)
        function = methods.get("GET" if self.command == "HEAD" else self.command)
        if function is None:
            raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED)
        body = self._body()
        self.server.awaits(self.connection, math.inf)
        return function(Request(query, body))

    def _refused(self, path: str, query: Mapping[str, str]) -> Answer:
        """What somebody without the token reads: a page with a field for it, or a line."""
        # What else the client sent is not read, so the connection cannot go on.
        self.close_connection = True
        page = self._routes.get("/token", {}).get("GET") if path == "/" else None
        status = HTTPStatus.UNAUTHORIZED
        answer = _text(status, RefusedError(status)) if page is None else replace(page(Request(query)), status=status)
        return replace(answer, headers={"WWW-Authenticate": 'Bearer realm="edgex watch"'})

    def _check_origin(self) -> None:
        """Raises RefusedError for requests that were meant for another server or sent by another web page."""
        host = self.headers.get("Host", "")
        if self.server.access is None and _split(host).hostname not in _NAMES:
            raise RefusedError(
                HTTPStatus.FORBIDDEN,
                f"This page is open to this machine only: see {self.server.url} there. A reverse proxy has to send "
                f"the header Host: {HOST}:{self.server.port}.",
            )
        origin = self.headers.get("Origin")
        hosts = {host, self.headers.get("X-Forwarded-Host", host)}
        if origin is None or self.headers.get("Sec-Fetch-Site") == "same-origin":
            return
        if origin.partition("://")[2] not in hosts:
            raise RefusedError(HTTPStatus.FORBIDDEN, "This request came from another web page; ask on the page itself.")

    def _body(self) -> bytes:
        """The body of a POST: JSON of bounded length. Other methods have none that is read."""
        length = self.headers.get("Content-Length")
        if self.command != "POST":
            self.close_connection |= length is not None or "Transfer-Encoding" in self.headers
            return b""
        if self.headers.get_content_type() != "application/json":
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        if length is None or "Transfer-Encoding" in self.headers:
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED)
        if not (length.isascii() and length.isdecimal()):
            raise RefusedError(HTTPStatus.BAD_REQUEST)
        # Python refuses to read numbers of thousands of digits.
        if len(length) > 10 or int(length) > _MAX_BODY:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        body = self.rfile.read(int(length))
        if self.server.is_late(self.connection):
            raise RefusedError(HTTPStatus.REQUEST_TIMEOUT)
        if len(body) < int(length):
            raise RefusedError(HTTPStatus.BAD_REQUEST)
        return body

    def _send(self, answer: Answer) -> None:
        self.server.awaits(self.connection, math.inf)
        pieces = [answer.body] if isinstance(answer.body, bytes) else answer.body
        self.close_connection |= not isinstance(answer.body, bytes)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        for name, value in {**_HEADERS, **answer.headers}.items():
            self.send_header(name, value)
        if answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", ", ".join(self._routes[urlsplit(self.path).path]))
        if isinstance(answer.body, bytes) and answer.status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(answer.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            for piece in pieces:
                self.wfile.write(piece)

    def send_error(self, code: int, *_: Any, **__: Any) -> None:
        """Answers what `http.server` itself refuses, in the words of this server."""
        self.close_connection = True
        self.request_version = self.protocol_version
        status = HTTPStatus(code)
        self._send(_text(status, RefusedError(status)))

    def finish(self) -> None:
        """Ends the connection so that its last answer arrives."""
        super().finish()
        _end(self.connection, socket.SHUT_WR)
        end = time.monotonic() + _LINGER
        with contextlib.suppress(OSError):
            while (left := end - time.monotonic()) > 0:
                self.connection.settimeout(left)
                if not self.connection.recv(1 << 16):
                    return

    def log_message(self, format: str, *arguments: Any) -> None:
        """Request logging is disabled."""


_ONLY_ONCE = ("Host", "Origin", "Content-Length", "Content-Type")
_OPEN = ("/page.css",)
"""What the page that refuses a viewer needs itself."""
_WHOLE_REFUSAL = (
    f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {_TEXT}\r\nConnection: close\r\n\r\n"
    f"{_WORDS[HTTPStatus.SERVICE_UNAVAILABLE]}\n"
).encode()


def _text(status: HTTPStatus, words: object, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(f"{printable(words)}\n".encode(), _TEXT, status, headers or {})


def _reached_at(host: str) -> str:
    """The host of a link to an address; of all addresses, this machine's name."""
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_unspecified:
            return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _split(host: str) -> SplitResult:
    """A Host header in its parts; empty ones where it is malformed."""
    try:
        return urlsplit(f"//{host}")
    except ValueError:
        return urlsplit("")


def _end(connection: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(how)

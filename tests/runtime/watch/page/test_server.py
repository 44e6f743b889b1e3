"""The server under the page over real sockets: what broken, slow, silent, hostile and many clients get from it."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from urllib.parse import quote

import pytest

from edgex.runtime import UsageError
from edgex.runtime.watch.page import server as page_server
from edgex.runtime.watch.page.access import Access
from edgex.runtime.watch.page.server import Answer, RefusedError, Request, Server, parse_address

JSON = "Content-Type: application/json\r\n"
BIG = 5 << 20


def echo(request: Request) -> Answer:
    if request.body == b"bug":
        raise ZeroDivisionError("one\ntwo")
    if request.body == b"unknown":
        raise RefusedError(HTTPStatus.BAD_REQUEST, "no class \ud800")
    return Answer(request.body, "text/plain")


def endless(_: Request) -> Iterator[bytes]:
    while True:
        yield bytes(1 << 16)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server(
        0,
        {
            "/": {"GET": lambda request: Answer(request.query.get("a", "home").encode(), "text/plain")},
            "/big": {"GET": lambda _: Answer(bytes(BIG), "text/plain")},
            "/movie": {"GET": lambda request: Answer(endless(request), "video/x")},
            "/echo": {"POST": echo},
        },
    )
    yield found
    found.close()


def connected(server: Server) -> socket.socket:
    return socket.create_connection((page_server.HOST, server.port), timeout=20)


def exchange(server: Server, sent: bytes) -> bytes:
    """All that comes back for what is sent, until the server closes."""
    with connected(server) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while piece := connection.recv(1 << 16):
            found += piece
        return found


def request(line: str, headers: str = "", body: str = "", host: str = "localhost") -> bytes:
    host = f"Host: {host}\r\n" if host else ""
    return f"{line}\r\n{host}{headers}\r\n{body}".encode("latin-1")


def post(body: str, headers: str = JSON, length: object = None) -> bytes:
    return request("POST /echo HTTP/1.1", f"{headers}Content-Length: {length or len(body)}\r\n", body)


@pytest.mark.parametrize(
    "sent, status",
    [
        (request("GET / HTTP/1.1"), 200),
        (request("GET /?a=b HTTP/1.0"), 200),
        (request("GET http://localhost/ HTTP/1.1"), 200),
        (request("GET //// HTTP/1.1"), 200),
        (request("GET / HTTP/1.1", host="[::1]:8000"), 200),
        (request("GET / HTTP/0.9"), 200),
        (post("a"), 200),
        (post("", length="0"), 200),
        # Request lines.
        (b"\r\n\r\n", 400),
        (b"  \r\n\r\n", 400),
        (b"\0\0\0\0", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)), 400),
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/1.1 more\r\n\r\n", 400),
        (b"GET / HTTP/0.9 HTTP/0.9\r\n\r\n", 400),
        (b"GET / http/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1\r\n\r\n", 400),
        (b"POST /\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /\r\n\r\n", 403),
        (request("GET //[ HTTP/1.1"), 404),
        (request("GET http://[ HTTP/1.1"), 400),
        (request("GET http://[::1/ HTTP/1.1"), 400),
        (request("GET /%zz%00 HTTP/1.1"), 404),
        (request("GET /\xe9 HTTP/1.1"), 404),
        (request("GET /../server.py HTTP/1.1"), 404),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        # Methods.
        (request("DELETE / HTTP/1.1"), 405),
        (request("POST / HTTP/1.1"), 405),
        (request("GET /echo HTTP/1.1"), 405),
        (request("OPTIONS /echo HTTP/1.1"), 405),
        (request("CONNECT localhost:1 HTTP/1.1"), 404),
        (request("BREW / HTTP/1.1"), 501),
        (request("get / HTTP/1.1"), 501),
        # Headers.
        (request("GET / HTTP/1.1", host=""), 403),
        (request("GET / HTTP/1.1", host="evil.example"), 403),
        (request("GET / HTTP/1.1", host="localhost.evil.example"), 403),
        (request("GET / HTTP/1.1", host="[::1"), 403),
        (request("GET / HTTP/1.1", "Host: evil.example\r\n"), 400),
        (request("GET / HTTP/1.1", "no colon\r\n"), 400),
        (request("GET / HTTP/1.1", "a: b\r\n" * 200), 431),
        (request("GET / HTTP/1.1", f"a: {'b' * 70_000}\r\n"), 431),
        (request("GET / HTTP/1.1", "Origin: http://evil.example\r\n"), 403),
        (request("GET / HTTP/1.1", "Origin: null\r\n"), 403),
        # Another program's page on this machine.
        (request("GET / HTTP/1.1", "Origin: http://localhost:3000\r\n"), 403),
        (request("GET / HTTP/1.1", "Origin: http://localhost\r\n"), 200),
        (request("GET / HTTP/1.1", "Origin: https://a.example\r\nX-Forwarded-Host: a.example\r\n"), 200),
        (request("GET / HTTP/1.1", "Origin: https://a.example\r\nSec-Fetch-Site: same-origin\r\n"), 200),
        (request("GET / HTTP/1.1", "Origin: https://a.example\r\nSec-Fetch-Site: same-site\r\n"), 403),
        # Bodies.
        (request("GET / HTTP/1.1", "Content-Length: 3\r\n", "abc"), 200),
        (request("POST /echo HTTP/1.1", JSON), 411),
        (request("POST /echo HTTP/1.1", f"{JSON}Transfer-Encoding: chunked\r\n", "1\r\na\r\n0\r\n\r\n"), 411),
        (post("a", "Content-Type: text/plain\r\n"), 415),
        (post("a", "Content-Type: ;;;\r\n"), 415),
        (post("a", ""), 415),
        (post("a", length="-1"), 400),
        (post("a", length="0x1"), 400),
        (post("a", length="\xb2"), 400),
        (post("a", length="1\r\nContent-Length: 2"), 400),
        (post("abc", length=5), 400),
        (post("", length="9" * 5000), 413),
        (post("a" * 3_000_000), 413),
        (post("unknown"), 400),
        (post("bug"), 500),
    ],
)
def test_every_request_gets_one_answer(
    server: Server, capfd: pytest.CaptureFixture[str], sent: bytes, status: int
) -> None:
    head, _, body = exchange(server, sent).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0].startswith(f"HTTP/1.1 {status} ")
    assert f"Content-Length: {len(body)}" in lines
    if status >= 400:
        text = body.decode()
        assert text.count("\n") == 1
        assert not any(word in text for word in ("Traceback", "Error", "None", "<", "{"))
    assert server.url.encode() in body or b"http" not in body
    # The server goes on.
    assert exchange(server, request("GET / HTTP/1.1")).endswith(b"home")
    assert capfd.readouterr().err == ""


def test_what_a_method_is_answered_with(server: Server) -> None:
    assert b"\r\nAllow: POST\r\n" in exchange(server, request("GET /echo HTTP/1.1"))
    head = exchange(server, request("HEAD / HTTP/1.1"))
    assert b"\r\nContent-Length: 4\r\n" in head and head.endswith(b"\r\n\r\n")
    assert exchange(server, request("HEAD /movie HTTP/1.1")).endswith(b"\r\n\r\n")


def test_several_requests_on_one_connection(server: Server) -> None:
    found = exchange(server, request("GET /?a=1 HTTP/1.1") + post("two") + request("GET /?a=3 HTTP/1.1"))
    assert [answer[:9] for answer in found.split(b"HTTP/1.1 ")[1:]] == [b"200 OK\r\nS"] * 3
    # A body that is not read must not be taken for the next request.
    inner = request("GET /?a=smuggled HTTP/1.1").decode()
    found = exchange(server, request("GET / HTTP/1.1", f"Content-Length: {len(inner)}\r\n", inner))
    assert found.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "slow, status",
    [(b"G", b"400"), (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"408"), (post("abc", length=500), b"408"), (b"", b"")],
)
def test_a_slow_client_is_given_up_as_a_whole(
    server: Server, monkeypatch: pytest.MonkeyPatch, slow: bytes, status: bytes
) -> None:
    """Each byte comes in time, but the request does not."""
    monkeypatch.setattr(page_server, "ARRIVAL", 0.3)
    start = time.monotonic()
    with connected(server) as connection:
        connection.sendall(slow)
        connection.settimeout(0.05)
        while True:
            try:
                found = connection.recv(100)
                break
            except TimeoutError:
                assert time.monotonic() - start < 10
                connection.sendall(b"a" if slow else b"")
    assert found.partition(b" ")[2][:3] == status


def test_a_client_that_never_reads_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    monkeypatch.setattr(page_server._Handler, "timeout", 0.2)
    with connected(server) as one, connected(server) as two:
        one.sendall(request("GET /big HTTP/1.1"))
        two.sendall(request("GET /movie HTTP/1.1"))
        time.sleep(0.1)
        end = time.monotonic() + 10
        while threading.active_count() > before:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_200_clients_at_once(server: Server) -> None:
    """All connect before any is answered, and all stay."""
    start = threading.Barrier(200, timeout=60)

    def visit(number: int) -> bytes:
        start.wait()
        with connected(server) as connection:
            connection.settimeout(5)
            connection.sendall(request(f"GET /?a={number} HTTP/1.1"))
            found = connection.recv(5000)
            while len(found.partition(b"\r\n\r\n")[2]) < len(str(number)):
                found += connection.recv(5000)
            start.wait()
            return found.rpartition(b"\n")[2]

    with ThreadPoolExecutor(200) as pool:
        assert list(pool.map(visit, range(200))) == [str(number).encode() for number in range(200)]


def test_more_clients_than_threads_are_allowed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_server, "_MAX_CLIENTS", 2)
    with connected(server), connected(server):
        time.sleep(0.3)
        with connected(server) as third:
            assert third.recv(100).startswith(b"HTTP/1.1 503 ")
    time.sleep(0.3)
    assert exchange(server, request("GET / HTTP/1.1")).endswith(b"home")


def test_it_listens_on_this_machine_only(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"


TOKEN = "a/token+of=more-than-16"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """Asks for a token; any host will do."""
    routes = {
        "/": {"GET": lambda _: Answer(b"home", "text/plain")},
        "/token": {"GET": lambda _: Answer(b"which token?", "text/plain")},
        "/echo": {"POST": echo},
    }
    found = Server(0, routes, "127.0.0.1", Access(TOKEN))
    yield found
    found.close()


def test_a_link_with_the_token_is_answered_with_a_cookie(guarded: Server) -> None:
    head = exchange(guarded, request(f"GET /?token={quote(TOKEN, safe='')} HTTP/1.1", host="device.local")).decode()
    assert head.startswith("HTTP/1.1 303 ")
    assert "\r\nLocation: ./\r\n" in head
    assert TOKEN not in head
    match = re.search(r"Set-Cookie: (edgex_\w+=\w+); Max-Age=\d+; HttpOnly; SameSite=Strict\r\n", head)
    assert match is not None
    cookie = f"Cookie: other=1; {match[1]}\r\n"
    assert exchange(guarded, request("GET / HTTP/1.1", cookie, host="device.local")).endswith(b"home")
    body = request("POST /echo HTTP/1.1", f"{cookie}{JSON}Content-Length: 1\r\n", "a", host="device.local")
    assert exchange(guarded, body).endswith(b"a")
    # Another token's cookie has another name, so that two pages of one host do not take each other's away.
    assert Access("another-token-than-it").headers["Set-Cookie"].split("=")[0] not in match[1]


@pytest.mark.parametrize(
    "line, headers",
    [
        ("GET / HTTP/1.1", ""),
        ("GET /?token= HTTP/1.1", ""),
        ("GET /?token=wrong HTTP/1.1", ""),
        (f"GET /?token={quote(TOKEN[:-1])} HTTP/1.1", ""),
        (f"HEAD /?token={quote(TOKEN)} HTTP/1.1", ""),
        ("GET / HTTP/1.1", "Authorization: Bearer wrong\r\n"),
        ("GET / HTTP/1.1", "Authorization: \r\n"),
        ("GET / HTTP/1.1", "Cookie: edgex=1; edgex_0=\xe9; =;;\r\n"),
        ("GET / HTTP/1.1", 'Cookie: {"a": "b"}, "\r\n'),
        ("GET /nowhere HTTP/1.1", ""),
        ("POST /echo HTTP/1.1", f"{JSON}Content-Length: 1\r\n"),
    ],
)
def test_nobody_else_sees_anything(guarded: Server, capfd: pytest.CaptureFixture[str], line: str, headers: str) -> None:
    head, _, body = exchange(guarded, request(line, headers, "a", host="device.local")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 ")
    assert b"WWW-Authenticate: Bearer" in head and b"Set-Cookie" not in head
    assert body in (b"", b"which token?", b"This page asks for a token: open the link that holds the right one.\n")
    assert capfd.readouterr() == ("", "")


def test_programs_send_the_token_in_a_header(guarded: Server) -> None:
    assert exchange(guarded, request("GET / HTTP/1.1", f"Authorization: Bearer {TOKEN}\r\n")).endswith(b"home")
    # Another web page may not ask on behalf of somebody who knows the token.
    other = f"Authorization: Bearer {TOKEN}\r\nOrigin: http://evil.example\r\n"
    assert b" 403 " in exchange(guarded, request("GET / HTTP/1.1", other))


@pytest.mark.parametrize(
    "text, address",
    [
        ("8000", ("127.0.0.1", 8000)),
        ("0", ("127.0.0.1", 0)),
        ("0.0.0.0:8000", ("0.0.0.0", 8000)),
        ("localhost:1", ("localhost", 1)),
        ("[::]:8000", ("::", 8000)),
        ("127.0.0.1:99999", ("127.0.0.1", 99999)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "x", "-1", "host:", "host:x", "::1", "1:2:3", "[::1]", "\xb2", "9" * 5000])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="expected PORT or HOST:PORT, such as 8000 or 0.0.0.0:8000, found"):
        parse_address(text)


def test_ipv6() -> None:
    try:
        found = Server(0, {}, "::1")
    except OSError:
        pytest.skip("no IPv6 on this machine")
    assert found.url == f"http://[::1]:{found.port}/"
    found.close()

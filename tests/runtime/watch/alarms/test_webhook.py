from __future__ import annotations

import base64
import json
import shutil
import socket
import time
from pathlib import Path

import pytest

from edgex.runtime import UsageError
from edgex.runtime.watch.alarms.delivery import NotDeliveredError
from edgex.runtime.watch.alarms.webhook import Webhook
from receivers import HookServer, make_certificate
from servers import Server, answer, drip, silent


def send(url: str, headers: dict[str, str] | None = None, timeout: float = 5.0) -> None:
    Webhook(url, headers, timeout=timeout).send(json.dumps({"number": 1}).encode())


def failure(url: str, timeout: float = 5.0) -> NotDeliveredError:
    with pytest.raises(NotDeliveredError) as found:
        send(url, timeout=timeout)
    return found.value


@pytest.fixture
def closed_port() -> int:
    """Of the loopback address, where nothing listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize("status", [200, 201, 204])
def test_a_post_of_json(status: int) -> None:
    with HookServer(status) as server:
        send(f"{server.url}/a%20b?c=d", {"X-Key": "s3cret", "authorization": "Bearer t"})
    assert server.taken == [{"number": 1}]
    assert server.paths == ["/hook/a%20b?c=d"]
    (headers,) = server.headers
    assert headers["Content-Type"] == "application/json"
    assert (headers["X-Key"], headers["authorization"]) == ("s3cret", "Bearer t")
    assert "Authorization" not in headers


def test_a_name_and_password_in_the_url() -> None:
    with HookServer() as server:
        send(server.url.replace("://", "://us%40er:pass%2Fword@"))
    login = server.headers[0]["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(login) == b"us@er:pass/word"


@pytest.mark.parametrize(
    "status, refused", [(500, False), (503, False), (429, False), (408, False), (400, True), (401, True), (404, True)]
)
def test_what_a_status_means(status: int, refused: bool) -> None:
    with HookServer(status) as server:
        error = failure(server.url)
    assert error.refused is refused
    assert str(error).startswith(f"it answers {status} (")


def test_redirections_are_refused() -> None:
    """Clients that follow them make a GET of the POST."""
    with HookServer(302) as server:
        error = failure(server.url)
    assert (str(error), error.refused) == ("it answers 302 (Found): give the URL that it leads to", True)


def test_nobody_listens(closed_port: int) -> None:
    error = failure(f"http://127.0.0.1:{closed_port}/")
    assert (str(error), error.refused) == ("connection refused", False)
    assert str(failure("http://nowhere.invalid/")) == "the host's name is not known"


@pytest.mark.parametrize("behaviour", [silent, drip])
def test_a_server_that_does_not_answer(behaviour: object) -> None:
    """A byte from time to time is no answer either."""
    with Server(behaviour) as server:  # type: ignore[arg-type]
        begin = time.monotonic()
        error = failure(f"http://{server.address}/", timeout=0.5)
        assert time.monotonic() - begin < 3
    assert (str(error), error.refused) == ("no answer within 0.5 s", False)


def test_a_server_of_something_else() -> None:
    def shout(connection: socket.socket, closing: object) -> None:
        connection.recv(1 << 16)
        connection.sendall(b"* OK IMAP4 ready\r\n")

    def leave(connection: socket.socket, closing: object) -> None:
        # The whole request: what is left unread would make the end of the connection a reset.
        while not connection.recv(1 << 16).endswith(b"}"):
            pass

    with Server(shout) as server:
        assert str(failure(f"http://{server.address}/")) == "its answer is no HTTP"
        assert "no connection over TLS" in str(failure(f"https://{server.address}/"))
    with Server(leave) as server:
        assert str(failure(f"http://{server.address}/")) == "it closed the connection without an answer"
    with Server(answer(b"x" * 100_000, "text/plain")) as server:
        send(f"http://{server.address}/")


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate is checked against the system's and those of SSL_CERT_FILE, with the host's name."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    certificate = make_certificate(tmp_path, ["IP:127.0.0.1"])
    with HookServer(certificate=certificate) as server:
        error = failure(server.url)
        assert (str(error), error.refused) == ("its certificate is not trusted (self-signed certificate)", False)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        send(server.url)
        assert server.taken == [{"number": 1}]
        assert "its certificate is not trusted" in str(failure(server.url.replace("127.0.0.1", "localhost")))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3cret",
        "ftp://host/s3cret",
        "http:///s3cret",
        "http://host:x/s3cret",
        "http://host/s3 cret",
        "http://[s3cret",
        "http://host:70000/s3cret",
        "http://host/s3crét",
        "http://host:0/s3cret",
        "http://host/\ns3cret",
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(UsageError, match="expected a URL such as https://") as found:
        Webhook(url)
    assert found.value.argument == "webhook"
    assert "s3c" not in str(found.value)


@pytest.mark.parametrize("name, value", [("", "s3cret"), ("a b", "s3cret"), ("Content-length", "9"), ("a", "s3cret\n")])
def test_headers_that_are_none(name: str, value: str) -> None:
    with pytest.raises(UsageError) as found:
        Webhook("http://host/", {name: value})
    assert found.value.argument == "webhook_header"
    assert "s3cret" not in str(found.value)


def test_its_name_holds_no_secret() -> None:
    url = "https://user:s3cret@hooks.example.com:8443/services/T0/s3cret?token=s3cret"
    assert Webhook(url).name == "webhook https://hooks.example.com:8443/..."

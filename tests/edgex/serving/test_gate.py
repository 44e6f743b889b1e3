from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from edgex.serving import limits

Client = Any
TOKEN = "correct-horse-battery"


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


def error_of(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"])


def test_the_token(serve: Callable[..., Client], pictures: list[bytes]) -> None:
    """Everything but the health probes needs it; browsers may send it as a password. It is never logged."""
    client = serve(token=TOKEN)
    assert client.post("/v1/predict", content=pictures[0]).status_code == 200
    password = base64.b64encode(f"me:{TOKEN}".encode()).decode()
    assert client.get("/docs", headers={"Authorization": f"Basic {password}"}).status_code == 200
    for wrong in ("", f"Bearer {TOKEN}x", "Bearer", TOKEN):
        for path in ("/v1/predict", "/nowhere"):
            answer = client.post(path, content=pictures[0], headers={"Authorization": wrong})
            assert "expected the header Authorization: Bearer TOKEN" in error_of(answer, 401)
            assert answer.headers["WWW-Authenticate"].startswith("Bearer, Basic realm=")
        for path in ("/docs", "/openapi.json", "/metrics", "/v1/model"):
            assert client.get(path, headers={"Authorization": wrong}).status_code == 401
        for path in ("/healthz", "/readyz"):
            assert client.get(path, headers={"Authorization": wrong}).status_code == 200
    assert TOKEN not in "".join(client.log)
    assert client.get("/healthz", headers={"Host": "camera.example.org"}).status_code == 200


def test_web_pages_of_others_are_refused(client: Client, pictures: list[bytes]) -> None:
    """Without a token: what DNS rebinding sends, and what a form of another page sends."""
    for host in ("rebound.example.org", "127.0.0.1.example.org:80", "[", ""):
        assert "answers this machine only" in error_of(client.get("/v1/model", headers={"Host": host}), 403)
    for origin in ("http://example.org", "null", "http://127.0.0.1:1"):
        answer = client.post("/v1/predict", content=pictures[0], headers={"Origin": origin})
        assert "web page of another address" in error_of(answer, 403)
    own = str(client.base_url).rstrip("/")
    assert client.post("/v1/predict", content=pictures[0], headers={"Origin": own}).status_code == 200
    assert client.get("/healthz", headers={"Host": "localhost:9"}).status_code == 200


def test_request_ids(client: Client, pictures: list[bytes]) -> None:
    """A client's own, if it is one, else one of the server; in the answer and in the log."""
    given = client.post("/v1/predict", content=pictures[0], headers={"X-Request-ID": "camera-7:frame.12"})
    assert given.headers["X-Request-ID"] == "camera-7:frame.12"
    made = [
        client.get("/nowhere", headers={"X-Request-ID": bad}).headers["X-Request-ID"] for bad in (b"a b", b"\xe9", b"")
    ]
    assert len(set(made)) == 3 and all(len(one) == 16 for one in made)
    eventually(lambda: len(client.log) == 4)
    assert client.log[0].startswith("camera-7:frame.12 POST /v1/predict 200 ")
    assert [line.split()[0] for line in client.log[1:]] == made
    assert all(line.split()[2:4] == ["/nowhere", "404"] for line in client.log[1:])


def test_a_log_line_is_one_line(client: Client) -> None:
    client.get("/%0Aedgex:%20forged%1b[2J")
    eventually(lambda: len(client.log) == 1)
    assert "\n" not in client.log[0] and "\x1b" not in client.log[0]


def endless(pieces: int, sent: list[int]) -> Iterator[bytes]:
    for number in range(pieces):
        sent.append(number)
        yield bytes(100_000)


def test_bodies_are_bounded_while_they_are_read(serve: Callable[..., Client]) -> None:
    """With their length declared, nothing of them is read; without, reading ends at the limit."""
    client = serve(max_body_mb=1.0)
    words = "expected at most 1 MB in a request, found more"
    assert error_of(client.post("/v1/predict", content=bytes(1_000_001)), 413) == words
    eventually(lambda: client.server._uvicorn.config.app._held == 0)
    sent: list[int] = []
    assert error_of(client.post("/v1/predict", content=endless(30, sent)), 413) == words
    with socket.create_connection(client.address) as raw:
        raw.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999\r\n\r\n")
        assert b" 413 " in raw.recv(1000)
    assert "cannot identify" in error_of(client.post("/v1/predict", content=bytes(1_000_000)), 422)
    eventually(lambda: client.server._uvicorn.config.app._held == 0)


def test_all_bodies_together_are_bounded(
    serve: Callable[..., Client], hold: Callable[[], Any], pictures: list[bytes]
) -> None:
    big = pictures[0] + bytes(600_000)
    client = serve(max_held_mb=1.0)
    held = hold()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/predict", content=big)
        held.entered.acquire()
        answer = client.post("/v1/predict", content=big)
        assert "the requests that are there take 1 MB" in error_of(answer, 503)
        assert answer.headers["Retry-After"] == "1"
        held.released.set()
        assert first.result(30).status_code == 200
    assert client.post("/v1/predict", content=big).status_code == 200


def test_requests_at_once_are_bounded(
    serve: Callable[..., Client], hold: Callable[[], Any], pictures: list[bytes]
) -> None:
    """Pictures count: two of a batch and one more are three. Health and metrics answer all the same."""
    client = serve(max_pending=3, max_pictures=2)
    held = hold()
    two = [("f", ("a", pictures[0])), ("f", ("b", pictures[1]))]
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(client.post, "/v1/batch", files=two)]
        held.entered.acquire()
        answer = client.post("/v1/batch", files=two)
        assert error_of(answer, 503) == "3 of 3 pictures are pending; try again in a second"
        assert answer.headers["Retry-After"] == "1"
        waiting.append(pool.submit(client.post, "/v1/predict", content=pictures[0]))
        eventually(lambda: "edgex_pending_pictures 3.0" in client.get("/metrics").text)
        assert "3 of 3" in error_of(client.post("/v1/predict", content=pictures[0]), 503)
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        held.released.set()
        assert [one.result(30).status_code for one in waiting] == [200, 200]
    assert "edgex_pending_pictures 0.0" in client.get("/metrics").text


def test_a_body_that_never_arrives(
    serve: Callable[..., Client], monkeypatch: pytest.MonkeyPatch, pictures: list[bytes]
) -> None:
    """Neither a client that falls silent nor one that sends a byte now and then holds its place."""
    monkeypatch.setattr(limits, "LINGER", 0.1)
    client = serve(timeout=0.5, max_pending=1, max_pictures=1)
    with socket.create_connection(client.address) as raw:
        raw.settimeout(20)
        raw.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
        eventually(lambda: "edgex_pending_pictures 1.0" in client.get("/metrics").text)
        for _ in range(3):
            raw.sendall(b"x")
            time.sleep(0.1)
        answer = raw.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 408 ") and b"expected the whole request within 0.5 s" in answer
    assert client.post("/v1/predict", content=pictures[0]).status_code == 200


def test_an_answer_that_takes_too_long(
    serve: Callable[..., Client], hold: Callable[[], Any], pictures: list[bytes]
) -> None:
    """The client is told, and the picture is taken out of the queue."""
    client = serve(timeout=0.5)
    held = hold()
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda data: client.post("/v1/predict", content=data), pictures[:2]))
    assert [error_of(answer, 503) for answer in answers] == ["no answer within 0.5 s; try again in a second"] * 2
    assert "edgex_pending_pictures 0.0" in client.get("/metrics").text
    held.released.set()
    assert client.post("/v1/predict", content=pictures[0]).status_code == 200
    assert sum(held.batches) <= 3


def test_a_client_that_goes_away_is_not_worked_for(
    client: Client, hold: Callable[[], Any], pictures: list[bytes]
) -> None:
    held = hold()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/predict", content=pictures[0])
        held.entered.acquire()
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/predict", content=pictures[1], timeout=0.5)
        eventually(lambda: any(" 499 " in line for line in client.log))
        held.released.set()
        assert first.result(30).status_code == 200
    assert client.post("/v1/predict", content=pictures[2]).status_code == 200
    assert held.batches == [1, 1]
    assert 'edgex_requests_total{path="/v1/predict",status="499"} 1.0' in client.get("/metrics").text

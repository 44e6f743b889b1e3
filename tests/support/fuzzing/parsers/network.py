"""Names of network sources, and requests to the page of `edgex watch`."""

from __future__ import annotations

import re
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from fuzzing.campaign import picked
from fuzzing.mutations import damaged
from fuzzing.parser import Case, Parser

_SECRET = "hunter2"
_URLS = (
    "rtsp://admin:{}@10.0.0.2:554/h264/ch1/main",
    "rtsp://10.0.0.2/user=admin&password={}&channel=1&stream=0.sdp?",
    "http://10.0.0.2/cgi-bin/snapshot.cgi?loginuse=admin&loginpas={}",
    "http://10.0.0.2/axis-cgi/mjpg/video.cgi?token={}#fragment",
    "rtsp://10.0.0.2:7447/{}",
    "rtmp://a.example/live2/{}",
    "srt://10.0.0.2:9000?passphrase={}&mode=caller",
    "http://[fe80::1%25eth0]:8080/{}/live.m3u8",
    "udp://@239.0.0.1:1234?pass={}",
    "https://user:{}@camera.example/stream.mp4",
)


def urls() -> Parser:
    """Mutated URLs of cameras with a password in them.

    Wrongly accepted: a name, or a refusal, that shows the password.
    """
    return Parser("url", _url_bases, _mutate_url, _named, _wrong_name, names_file=False)


def requests() -> Parser:
    """Mutated HTTP requests to a running page.

    Wrongly accepted: an answer that is no HTTP, or says that the server failed; a traceback on standard error; a page
    that does not answer afterwards.
    """
    return Parser("request", _request_bases, _mutate_request, _asked, _wrong_answer, names_file=False)


def _url_bases(folder: Path) -> Sequence[Case]:
    return [Case(url.format(_SECRET).encode(), ".url") for url in _URLS]


def _mutate_url(random: Random, bases: Sequence[Case]) -> Case:
    text = picked(random, bases).data.decode()
    place = text.index(_SECRET)
    parts = [text[:place], text[place + len(_SECRET) :]]
    for index in range(2):
        if random.random() < 0.6:
            parts[index] = damaged(random, parts[index].encode(), [other.data for other in bases])[:2000].decode(
                "utf-8", "surrogateescape"
            )
    return Case((parts[0] + _SECRET + parts[1]).encode("utf-8", "surrogateescape"), ".url")


def _named(path: Path) -> Any:
    from edgex.errors import EdgexError
    from edgex.runtime.watch.sources.open_source import open_source
    from edgex.runtime.watch.sources.url import shown_source

    url = path.read_bytes().decode("utf-8", "surrogateescape")
    try:
        said = open_source(url).name
    except EdgexError as error:
        said = str(error)
    # A mutation may have made the name of a local file of it, which is shown as it is.
    is_local = shown_source(url) == url or url.lower().startswith("file")
    return url, shown_source(url) if not is_local else "", said if not is_local else ""


def _wrong_name(meaning: Any, case: Case) -> str | None:
    url, *shown = meaning
    from urllib.parse import urlsplit

    del url
    for text in shown:
        # A host is shown, whatever it is called.
        try:
            host = urlsplit(text).hostname or ""
        except ValueError:
            host = ""
        if _SECRET in text.lower().replace(host, ""):
            return "the password is shown"
    return None


class _Served:
    """A page of a still picture, once a process."""

    page: Any = None
    stream: Any = None


def _request_bases(folder: Path) -> Sequence[Case]:
    import threading

    from edgex.runtime import Session, Stream
    from edgex.runtime.watch.page.page import Page
    from small_model import write
    from streams import Script

    session = Session(write(folder / "model.onnx"), "cpu", threads=1)
    _Served.stream = Stream(session, Script(range(2)), stay=True)
    _Served.page = Page(_Served.stream)

    def feed() -> None:
        for frame in _Served.stream:
            _Served.page.feeds[0].write(frame)

    def tick() -> None:
        # Requests that wait for something newer get it at once.
        while True:
            time.sleep(0.01)
            _Served.page.feeds[0].notice("tick")

    threading.Thread(target=feed, daemon=True).start()
    threading.Thread(target=tick, daemon=True).start()
    host = f"Host: 127.0.0.1:{_Served.page.port}\r\n"
    questions = {
        "explain": b'{"class": 1}',
        "hold": b'{"feed": 0, "version": 2}',
        "feedback": b'{"id": 1, "verdict": "ok"}',
    }
    paths = ("/", "/about", "/frame?after=-1", "/page.css", "/events", "/event?id=1", "/snapshot.png?feed=0&held=a")
    return [Case(f"GET {path} HTTP/1.1\r\n{host}Connection: close\r\n\r\n".encode(), ".http") for path in paths] + [
        Case(
            f"POST /{path} HTTP/1.1\r\n{host}Content-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(question)}\r\n\r\n".encode()
            + question,
            ".http",
        )
        for path, question in questions.items()
    ]


_PARTS = (
    b"Host: 127.0.0.1:{port}\r\n",
    b"Host: elsewhere\r\n",
    b"Content-Length: 99999999999\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"X: " + b"a" * 70_000 + b"\r\n",
    b"Expect: 100-continue\r\n",
    b"Origin: null\r\n",
    b": \r\n",
    b" folded\r\n",
    b"Range: bytes=0-\r\n",
)
_QUESTIONS = (
    b'{"class": NaN}',
    b'{"class": 1e99}',
    b'{"class": []}',
    b"[" * 900,
    b'{"class": "\\ud800"}',
    b'{"class": 1, "feed": -1, "held": []}',
    b'{"class": 1, "feed": true, "held": "a"}',
    b'{"feed": [], "version": {}}',
    b'{"id": 1e99, "verdict": {}}',
    b"null",
    b"{}",
)


def _mutate_request(random: Random, bases: Sequence[Case]) -> Case:
    base = picked(random, bases).data
    head, _, body = base.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    action = random.choice(("damage", "header", "question", "both"))
    if action in ("header", "both"):
        lines.insert(random.randrange(len(lines)) + 1, random.choice(_PARTS).rstrip(b"\r\n"))
        return Case(b"\r\n".join(lines) + b"\r\n\r\n" + body, ".http")
    if action == "question" and body:
        body = random.choice(_QUESTIONS)
        lines = [re.sub(rb"(Content-Length: )\d+", rb"\g<1>%d" % len(body), line) for line in lines]
        return Case(b"\r\n".join(lines) + b"\r\n\r\n" + body, ".http")
    return Case(damaged(random, base, [other.data for other in bases]), ".http")


def _asked(path: Path) -> Any:
    # The port is another one whenever the process is.
    request = re.sub(rb"127\.0\.0\.1:\d+", b"127.0.0.1:%d" % _Served.page.port, path.read_bytes())
    before = _complaints()
    answer = _send(request)
    after = _send(b"GET /about HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n" % _Served.page.port)
    return answer, after, _complaints()[len(before) :]


def _send(request: bytes) -> bytes:
    """What the server answers until it closes the connection, or keeps it open and says nothing for a moment."""
    found = b""
    with socket.create_connection(("127.0.0.1", _Served.page.port), timeout=15) as connection:
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            while len(found) < 1 << 20 and (more := connection.recv(1 << 16)):
                found += more
        except ConnectionError:
            pass
        except TimeoutError:
            found += b""
    return found


def _complaints() -> bytes:
    """What this process has written to standard error, which the campaign's worker sends to a file."""
    try:
        return Path(f"/proc/{_me()}/fd/2").resolve().read_bytes()
    except OSError:
        return b""


def _me() -> int:
    import os

    sys.stderr.flush()
    return os.getpid()


def _wrong_answer(meaning: Any, case: Case) -> str | None:
    answer, after, complaints = meaning
    if b"Traceback" in complaints or b"Exception" in complaints:
        return f"standard error: {complaints[-300:].decode('utf-8', 'replace')}"
    if not after.startswith(b"HTTP/1.1 200"):
        return "the page does not answer any more"
    if answer and not re.match(rb"HTTP/1\.[01] [1-5]\d\d ", answer) and b"HTTP/" in case.data:
        return f"no HTTP answer: {answer[:60]!r}"
    if re.match(rb"HTTP/1\.[01] 500", answer):
        return "the server failed"
    return None

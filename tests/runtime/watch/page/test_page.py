"""What the page's server says over real sockets; the page itself is in `test_page_browser`."""

from __future__ import annotations

import dataclasses
import http.client
import io
import json
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np
import pytest
from page_running import Running
from PIL import Image
from reverse_proxy import reverse_proxy

from edgex.runtime import Session, Stream, UsageError
from edgex.runtime.classes import ClassIndex
from edgex.runtime.drawing.options import Drawing
from edgex.runtime.frames import as_frame
from edgex.runtime.watch.page.feed import LARGEST, encode
from edgex.runtime.watch.page.page import _PATIENCE, Page
from edgex.runtime.watch.sources.source import SourceFrame
from streams import Script, coloured


def test_labels_that_are_present_are_told_apart(make_model: Callable[..., Path]) -> None:
    session = Session(make_model(activation="sigmoid", thresholds=[0.9, 0.5, 0.2, 0.6]), "cpu")
    running = Running(session, Script(range(3)))
    try:
        state = running.until(lambda state: state["state"] == "ended" and state.get("frame") == 2)
        result = session(coloured(2))
        assert state["present"] == result.present() and 0 < len(result.present()) < 4
        assert state["labels"] == [list(pair) for pair in result.labels()]
        assert [index for index, _ in state["top"]] == result.order(4)
    finally:
        running.close()


@pytest.fixture
def running(session: Session) -> Iterator[Running]:
    found = Running(session, Script(range(3)))
    yield found
    found.close()


def test_the_newest_state(running: Running, session: Session) -> None:
    state = running.until(lambda state: state["state"] == "ended" and state.get("frame") == 2)
    state, picture = running.frame(state["version"] - 1)
    result = session(coloured(2))
    assert (state["frame"], state["name"], state["label"]) == (2, "picture 2", "blue thing")
    assert state["note"] == "script: ended; its last picture stays"
    assert state["top"][0] == [2, pytest.approx(result.score)]
    np.testing.assert_allclose(state["heatmap"], result.heatmap, atol=1e-5)
    assert state["seen"] == pytest.approx(list(result.view.seen))
    assert state["meter"]["frames"] == 3
    # The bare picture: the heatmap is the browser's to draw.
    assert np.abs(picture.astype(int) - coloured(2)).max() <= 4


def test_names_are_safe_to_read(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = ("\x1b[2J", "\ufeffred\u202e", *session.classes[2:])
    monkeypatch.setattr(session, "metadata", dataclasses.replace(session.metadata, classes=classes))
    stream = Stream(session, Script(["bad", 0]))
    page = Page(stream)
    (frame,) = stream
    named = dataclasses.replace(frame, source_frame=SourceFrame(frame.source_frame.frame, "caf\udce9\x9b.jpg"))
    shown = json.dumps([page.about(), page.feeds[0].state(1, named, "a\x1bnote")], ensure_ascii=False)
    page.close()
    assert shown.isprintable()
    assert page.about()["classes"][:2] == [r"\x1b[2J", r"red\u202e"]
    assert page.feeds[0].state(1, named, "")["name"] == r"caf\udce9\x9b.jpg"
    index = ClassIndex(classes)
    assert [index.number(name) for name in page.about()["classes"]] == list(range(len(classes)))


def explains(number: int) -> Callable[[dict[str, Any]], bool]:
    """Whether a state shows the heatmap of the class that was asked for."""
    return lambda state: bool(state["asked"] == state["explained"]["index"] == number)


def test_a_question_changes_the_heatmap_of_the_picture_at_hand(running: Running, session: Session) -> None:
    running.until(lambda state: state["state"] == "ended")
    for wanted, number in ((1, 1), ("nothing", 3), ("RED thing", 0)):
        assert running.explain(wanted)[0] == 200
        state = running.until(explains(number))
        np.testing.assert_allclose(state["heatmap"], session(coloured(2), explain=number).heatmap, atol=1e-5)
    assert running.explain(None)[0] == 200
    # Of the predicted class again.
    state = running.until(lambda state: state["asked"] is None and state["explained"]["index"] == 2)
    np.testing.assert_allclose(state["heatmap"], session(coloured(2)).heatmap, atol=1e-5)


@pytest.mark.parametrize(
    "value, words",
    [
        ("gren thing", "There is no class \u201cgren thing\u201d. Did you mean \u201cgreen thing\u201d"),
        ("99", "There is no class number 99: they are numbered from 0 to 3."),
        (99, "There is no class number 99: they are numbered from 0 to 3."),
        ("zzz", "None of the 4 classes is called \u201czzz\u201d."),
        (True, "Ask for a class by its name or its number."),
        ([], "Ask for a class by its name or its number."),
    ],
)
def test_a_question_about_no_class(running: Running, value: Any, words: str) -> None:
    status, text = running.explain(value)
    assert status == 400
    assert text.decode().startswith(words)
    assert not any(word in text.decode() for word in ("session", "explain", "UsageError"))


def test_a_version_that_is_no_number(running: Running, capfd: pytest.CaptureFixture[str]) -> None:
    for after in ("", "x", "-3", "9" * 5000):
        assert running.ask(f"/frame?after={after}")[0] == 200
    assert capfd.readouterr().err == ""


def test_questions_in_another_form(running: Running) -> None:
    json_type = {"Content_Type": "application/json"}
    for body in ("{", "[1]", "{}", "1", "null", "", "[" * 5000, '{"class": 1e999}', b"\xff", '{"class": NaN}'):
        assert running.ask("/explain", body, "POST", **json_type)[0] == 400
    assert running.ask("/explain", '{"class": "\\ud800"}', "POST", **json_type)[0] == 400
    assert running.ask("/explain", "class=1", "POST", Content_Type="application/x-www-form-urlencoded")[0] == 415
    assert running.ask("/other", "{}", "POST", **json_type)[0] == 404
    assert running.ask("/../errors.py")[0] == 404
    assert running.ask("/page.py")[0] == 404


def test_other_sites_are_kept_out(running: Running) -> None:
    """DNS rebinding shows in the host, a forged request in the origin."""
    assert running.ask("/frame", Host="evil.example")[0] == 403
    assert running.ask("/frame", Host=f"evil.example:{running.page.port}")[0] == 403
    assert running.explain(1, Origin="http://evil.example")[0] == 403
    assert running.explain(1, Origin="null")[0] == 403
    assert running.explain(1, Origin=running.page.url.rstrip("/"))[0] == 200
    assert running.ask("/about", Host=f"localhost:{running.page.port}")[0] == 200
    headers = running.ask("/")[2]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in headers


def test_nothing_is_loaded_from_elsewhere(running: Running) -> None:
    scripts = ("/page.js", "/page_heat.js", "/page_save.js", "/page_strip.js", "/page_tiles.js")
    for path in ("/", "/page.css", *scripts, "/token"):
        status, body, _ = running.ask(path)
        assert status == 200
        assert b"//" not in body.replace(b"// ", b"")


def test_under_a_path_of_a_reverse_proxy(running: Running) -> None:
    """Every address in the page is relative to it, and a question through the proxy is no other site's."""
    running.until(lambda state: state["state"] == "ended")
    with reverse_proxy(running.page.url, "/cameras/door/") as url:
        page = urllib.request.urlopen(url).read().decode()
        names = re.findall(r'src="([^"]*)"', page)
        script = "".join(urllib.request.urlopen(url + name).read().decode() for name in names)
        addresses = re.findall(r'(?:href|src)="(?!data:)([^"]*)"', page) + re.findall(
            r'(?:reach|asked|post)\("(\w+)"', script
        )
        scripts = {f"page{part}.js" for part in ("", "_heat", "_save", "_strip", "_tiles")}
        assert set(addresses) == {"about", "events", "explain", "feedback", "hold", "page.css", *scripts}
        for address in set(addresses) - {"explain", "feedback", "hold"}:
            assert urllib.request.urlopen(urljoin(url, address)).status == 200
        headers = {"Content-Type": "application/json", "Origin": url.removesuffix("/cameras/door/")}
        question = urllib.request.Request(urljoin(url, "explain"), b'{"class": 1}', headers)
        assert urllib.request.urlopen(question).status == 200
        assert running.stream.explain == 1


def test_motion_jpeg_for_other_programs(running: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", running.page.port, timeout=20)
    connection.request("GET", "/overlay.mjpg")
    answer = connection.getresponse()
    assert answer.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
    assert answer.readline() == b"--frame\r\n"
    assert answer.readline() == b"Content-Type: image/jpeg\r\n"
    length = int(answer.readline().decode().rpartition(" ")[2])
    answer.readline()
    picture = Image.open(io.BytesIO(answer.read(length)))
    assert picture.size == (96, 64)
    connection.close()


def test_motion_jpeg_has_the_opacity_that_was_asked_for(session: Session) -> None:
    stream = Stream(session, Script([0]))
    page = Page(stream, drawing=Drawing(opacity=0.0))
    try:
        (frame,) = stream
        # A plain picture's heatmap is the same everywhere, and nothing of it is drawn.
        frame.result.heatmap[0, 0] += 1
        page.feeds[0].write(frame)
        connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=20)
        connection.request("GET", "/overlay.mjpg")
        answer = connection.getresponse()
        length = int([answer.readline() for _ in range(3)][2].decode().rpartition(" ")[2])
        answer.readline()
        found = np.asarray(Image.open(io.BytesIO(answer.read(length)))).astype(int)
        connection.close()
    finally:
        page.close()
    assert np.abs(found[:30] - frame.pixels()[:30]).max() <= 8
    assert np.abs(frame.result.overlay(frame.pixels())[:40].astype(int) - frame.pixels()[:40]).max() > 40


def test_large_pictures_are_made_smaller_for_the_page() -> None:
    assert Image.open(io.BytesIO(encode(coloured(0, (2160, 3840))))).size == (LARGEST, LARGEST * 9 // 16)
    assert Image.open(io.BytesIO(encode(coloured(0, (1, 1))))).size == (1, 1)


def test_a_port_in_use(running: Running) -> None:
    with pytest.raises(UsageError, match=f"expected a free port on 127.0.0.1, found {running.page.port}: Address"):
        Page(running.stream, running.page.port)
    with pytest.raises(UsageError, match="found 70000"):
        Page(running.stream, 70000)


def test_closing_ends_waiting_and_idle_clients_and_all_threads(session: Session) -> None:
    before = set(threading.enumerate())
    running = Running(session, Script(range(3)))
    version = running.until(lambda state: state["state"] == "ended")["version"]
    waiting = threading.Thread(target=lambda: running.ask(f"/frame?after={version}"))
    waiting.start()
    idle = socket.create_connection(("127.0.0.1", running.page.port))
    movie = socket.create_connection(("127.0.0.1", running.page.port))
    movie.sendall(f"GET /overlay.mjpg HTTP/1.1\r\nHost: localhost:{running.page.port}\r\n\r\n".encode())
    assert movie.recv(10)
    time.sleep(0.1)
    start = time.monotonic()
    running.close()
    assert time.monotonic() - start < _PATIENCE, "closing does not wait for clients"
    waiting.join(_PATIENCE)
    assert set(threading.enumerate()) <= before
    idle.close()
    movie.close()
    Page(running.stream, running.page.port).close()


def test_a_browser_that_goes_away_is_no_error(running: Running, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        connection = socket.create_connection(("127.0.0.1", running.page.port))
        connection.sendall(f"GET /overlay.mjpg HTTP/1.1\r\nHost: localhost:{running.page.port}\r\n\r\n".encode())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
    running.explain(1)
    running.until(lambda state: state["asked"] == 1)
    time.sleep(0.2)
    assert capfd.readouterr().err == ""


def test_a_client_that_never_reads_holds_no_frames(session: Session) -> None:
    class Noise(Script):
        """Each picture takes some 100 KB, more than the system's buffers have room for."""

        def read(self) -> SourceFrame | None:
            if super().read() is None:
                return None
            return SourceFrame(as_frame(np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)), "noise")

    stream = Stream(session, Noise(range(60), interval=0.01))
    page = Page(stream)
    clients = []
    try:
        for path in ("/overlay.mjpg", "/frame?after=-1", "/overlay.mjpg"):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", page.port))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            clients.append(client)
        begin = time.monotonic()
        for frame in stream:
            page.feeds[0].write(frame)
        assert time.monotonic() - begin < 10
        assert stream.metrics.snapshot().frames == 60
    finally:
        for client in clients:
            client.close()
        page.close()


def test_questions_about_what_is_not_there(running: Running) -> None:
    running.until(lambda state: state.get("frame") == 2)

    def post(path: str, **question: Any) -> tuple[int, str]:
        status, words, _ = running.ask(path, json.dumps(question), "POST", Content_Type="application/json")
        return status, words.decode()

    gone = "This picture is no longer kept here. Unfreeze, and freeze again.\n"
    assert post("/explain", **{"class": 1, "held": "elsewhere"}) == (410, gone)
    assert post("/explain", **{"class": 1, "feed": 1})[0] == 404
    assert post("/hold", feed=7) == (404, "There is no such source here.\n")
    assert post("/hold")[0] == 400
    assert post("/feedback", id=1, verdict="ok") == (403, "Verdicts are not recorded here.\n")
    for path in ("/snapshot.png", "/snapshot.json?feed=0&held=a"):
        assert running.ask(path)[0] == 410
    assert running.ask("/event?id=3")[0] == 410
    assert running.ask("/overlay.mjpg?feed=9")[0] == 404
    assert json.loads(running.ask("/events")[1]) == []


def test_before_the_first_picture_there_is_nothing_to_freeze(session: Session) -> None:
    page = Page(Stream(session, Script([])))
    try:
        connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=20)
        connection.request("POST", "/hold", '{"feed": 0}', {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (409, b"There is no picture yet.\n")
        connection.close()
    finally:
        page.close()


def test_versions_of_several_streams(session: Session) -> None:
    """One number says what a browser has of all of them."""
    running = Running(session, Script([0]), Script([1, 2]))
    try:
        seen: dict[int, int] = {}
        version = -1
        while seen != {0: 0, 1: 1}:
            body = running.ask(f"/frame?after={version}")[1]
            parts = []
            while body:
                length = int.from_bytes(body[:4], "little")
                parts.append(json.loads(body[4 : 4 + length]))
                body = body[4 + length + parts[-1]["picture_bytes"] :]
            assert len({part["feed"] for part in parts}) == len(parts) > 0
            assert min(part["version"] for part in parts) > version or version == -1
            version = max(part["version"] for part in parts)
            seen |= {part["feed"]: part["frame"] for part in parts if "frame" in part}
        # A browser that was open while the program was started again asks for what was not reached yet.
        status, body, _ = running.ask("/frame?after=999")
        assert (status, body.count(b'"feed": ')) == (200, 2)
    finally:
        running.close()

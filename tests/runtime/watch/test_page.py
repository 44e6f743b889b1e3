"""The server over real sockets, and the page in a real browser where one is installed."""

from __future__ import annotations

import base64
import dataclasses
import http.client
import io
import json
import math
import os
import re
import shutil
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
from PIL import Image
from reverse_proxy import reverse_proxy

from edgex.runtime import Session, Stream, UsageError
from edgex.runtime.classes import ClassIndex
from edgex.runtime.drawing import Drawing
from edgex.runtime.view import Fit
from edgex.runtime.watch.page import _PATIENCE, Page
from edgex.runtime.watch.page_feed import LARGEST, encode
from edgex.runtime.watch.source import SourceFrame
from streams import Script, coloured


class Running:
    """A stream of three pictures that stays, its page, and the thread that feeds it."""

    def __init__(self, session: Session, source: Any) -> None:
        self.stream = Stream(session, source, stay=True, notice=lambda text: self.page.feeds[0].notice(text))
        self.page = Page(self.stream)
        self.thread = threading.Thread(target=self.feed)
        self.thread.start()

    def feed(self) -> None:
        for seen in self.stream:
            self.page.feeds[0].write(seen)

    def ask(self, path: str, body: Any = None, method: str = "GET", **headers: str) -> tuple[int, bytes, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.page.port, timeout=20)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, names)
        answer = connection.getresponse()
        found = answer.status, answer.read(), answer.headers
        connection.close()
        return found

    def explain(self, value: Any, **headers: str) -> tuple[int, bytes]:
        body = json.dumps({"class": value})
        return self.ask("/explain", body, "POST", **{"Content_Type": "application/json", **headers})[:2]

    def frame(self, after: int = -1) -> tuple[dict[str, Any], np.ndarray]:
        """State and picture newer than `after`; before the first picture, one without pixels."""
        status, body, _ = self.ask(f"/frame?after={after}")
        assert status == 200
        length = int.from_bytes(body[:4], "little")
        picture = body[4 + length :]
        assert len(picture) == json.loads(body[4 : 4 + length])["picture_bytes"]
        pixels = np.asarray(Image.open(io.BytesIO(picture))) if picture else np.empty((0, 0, 3), np.uint8)
        return json.loads(body[4 : 4 + length]), pixels

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first state that fulfils a condition."""
        version = -1
        while True:
            state, _ = self.frame(version)
            if wanted(state):
                return state
            version = state["version"]

    def close(self) -> None:
        self.stream.stop()
        self.thread.join()
        self.page.close()


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
    for path in ("/", "/page.css", "/page.js"):
        status, body, _ = running.ask(path)
        assert status == 200
        assert b"//" not in body.replace(b"// ", b"")


def test_under_a_path_of_a_reverse_proxy(running: Running) -> None:
    """Every address in the page is relative to it, and a question through the proxy is no other site's."""
    running.until(lambda state: state["state"] == "ended")
    with reverse_proxy(running.page.url, "/cameras/door/") as url:
        page = urllib.request.urlopen(url).read().decode()
        script = urllib.request.urlopen(url + "page.js").read().decode()
        addresses = re.findall(r'(?:href|src)="(?!data:)([^"]*)"', page) + re.findall(
            r'(?:fetch|asked)\(["`](\w+)', script
        )
        assert sorted(addresses) == ["about", "explain", "frame", "page.css", "page.js"]
        for address in set(addresses) - {"explain"}:
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


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium."""
    pytest.importorskip("selenium", reason="selenium is not installed")
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium with chromedriver on this machine")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
        "window-size=1280,900",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chromium = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chromium
    chromium.quit()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_page_in_a_browser(browser: Any, session: Session, tmp_path: Path) -> None:
    """A video is the camera: it plays, questions change the heatmap, and the page says when it has ended."""
    pytest.importorskip("av")
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    from edgex import samples
    from edgex.runtime import open_source
    from edgex.runtime.watch.recording import VideoWriter

    writer = VideoWriter(tmp_path / "camera.mp4")
    for number, path in enumerate(samples.paths()):
        picture = np.asarray(Image.open(path).convert("RGB").resize((480, 320)))
        for step in range(4):
            writer.write(picture, (4 * number + step) / 10)
    writer.close()
    running = Running(session, open_source(str(tmp_path / "camera.mp4")))

    def text(name: str) -> str:
        return str(browser.find_element(By.ID, name).text)

    def until(condition: Callable[[], object]) -> None:
        WebDriverWait(browser, 30).until(lambda _: condition())

    def pixels(name: str) -> np.ndarray:
        url = browser.execute_script("return document.getElementById(arguments[0]).toDataURL()", name)
        image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
        return np.asarray(image.convert("RGBA"))

    try:
        browser.get(running.page.url)
        until(lambda: text("state") == "ended" and text("frames") == "20")
        state, picture = running.frame()
        result = session(picture)
        assert text("top").splitlines()[0] == session.classes[state["index"]]
        np.testing.assert_allclose(pixels("frame")[..., :3], picture, atol=6)

        # The heatmap that the browser draws is the one that Result.overlay draws.
        heat = pixels("heat").astype(float)
        alpha = heat[..., 3:] / 255
        drawn = picture * (1 - alpha) + heat[..., :3] * alpha
        wanted = session(picture, explain=state["index"]).overlay(picture).astype(float)
        assert np.abs(drawn - wanted).mean() < 3
        assert np.abs(wanted - picture).mean() > 8

        browser.execute_script(
            "const s = document.getElementById('opacity'); s.value = 0; s.dispatchEvent(new Event('input'))"
        )
        assert text("opacity-value") == "0%"
        top, left, bottom, right = state["seen"]
        inside = slice(math.ceil(top) + 2, math.floor(bottom) - 2), slice(math.ceil(left) + 2, math.floor(right) - 2)
        assert pixels("heat")[inside][..., 3].max() == 0
        browser.execute_script(
            "const s = document.getElementById('opacity'); s.value = 60; s.dispatchEvent(new Event('input'))"
        )

        buttons = browser.find_elements(By.CSS_SELECTOR, "#top button")
        assert len(buttons) == 4
        assert [button.get_attribute("aria-pressed") for button in buttons] == ["true", "false", "false", "false"]
        before = pixels("heat")
        buttons[1].click()
        asked = int(buttons[1].get_attribute("data-index"))
        until(lambda: text("explained") == session.classes[asked])
        assert running.stream.explain == asked
        assert "not predicted" in text("evidence")
        assert not np.array_equal(pixels("heat"), before)

        wanted_field = browser.find_element(By.ID, "wanted")
        wanted_field.send_keys("nobody")
        browser.find_element(By.CSS_SELECTOR, "#ask button").click()
        until(lambda: "called “nobody”" in text("problem"))
        wanted_field.clear()
        wanted_field.send_keys("nothing")
        browser.find_element(By.CSS_SELECTOR, "#ask button").click()
        until(lambda: text("explained") == "nothing" and text("problem") == "")
        browser.find_element(By.ID, "against").click()
        assert pixels("heat")[..., 3].max() > 0
        browser.find_element(By.ID, "predicted").click()
        until(lambda: running.stream.explain is None and text("explained") == result.label)
        wide = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0
        # A refused question is the browser's only complaint.
        messages = [entry["message"] for entry in browser.get_log("browser")]
        assert [message for message in messages if "/explain" not in message] == []
        if "EDGEX_SCREENSHOTS" in os.environ:
            browser.save_screenshot(str(Path(os.environ["EDGEX_SCREENSHOTS"]) / "page.png"))
    finally:
        running.close()
    until(lambda: text("state") == "disconnected")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_the_browser_draws_what_was_seen_of_a_wide_frame(
    browser: Any, model_path: Path, tmp_path: Path, fit: Fit
) -> None:
    """As Result.overlay does: nothing of the padding, and a line where the middle that is cropped ends."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    from edgex import samples
    from edgex.runtime import open_source

    Image.open(samples.paths()[0]).convert("RGB").resize((700, 180)).save(tmp_path / "wide.png")
    session = Session(model_path, "cpu", threads=1, fit=fit)
    running = Running(session, open_source(str(tmp_path / "wide.png")))
    try:
        browser.get(running.page.url)
        WebDriverWait(browser, 30).until(lambda _: browser.find_element(By.ID, "state").text == "ended")
        _, picture = running.frame()
        url = browser.execute_script("return document.getElementById('heat').toDataURL()")
        heat = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGBA")).astype(float)
        alpha = heat[..., 3:] / 255
        drawn = picture * (1 - alpha) + heat[..., :3] * alpha
        wanted = session(tmp_path / "wide.png").overlay(np.asarray(Image.open(tmp_path / "wide.png"))).astype(float)
        assert np.abs(wanted - picture).mean() > 2
        assert np.abs(drawn - wanted).mean() < 3
        assert (alpha[:, 1] > 0).any() == (fit == "pad")
    finally:
        running.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_tiles_and_regions_in_a_browser(browser: Any, model_path: Path, tmp_path: Path) -> None:
    """Heat inside the regions only, as Result.overlay draws it, and thin lines around them and the tiles."""
    from selenium.webdriver.support.ui import WebDriverWait

    from edgex.runtime import open_source
    from edgex.runtime.roi import mask

    pixels = np.random.default_rng(1).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((480, 320)).save(tmp_path / "frame.png")
    regions = [((30, 20), (300, 60), (90, 300)), ((200, 100), (460, 100), (460, 280), (200, 280))]
    session = Session(model_path, "cpu", tiles=(2, 3), roi=regions)
    running = Running(session, open_source(str(tmp_path / "frame.png")))
    try:
        browser.get(running.page.url)
        WebDriverWait(browser, 30).until(lambda _: browser.execute_script("return current !== null"))
        state, picture = running.frame()
        assert len(state["outlines"]) == 2 + 6
        assert state["tiles"][0]["box"] == [0, 0, 169, 172]
        url = browser.execute_script("return document.getElementById('heat').toDataURL()")
        heat = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGBA")).astype(float)
        alpha = heat[..., 3:] / 255
        drawn = picture * (1 - alpha) + heat[..., :3] * alpha
        wanted = session(picture, explain=state["index"]).overlay(picture).astype(float)
        inside = mask(regions, 320, 480)
        assert np.abs(drawn - wanted)[inside].mean() < 4
        assert np.abs(wanted - picture)[inside].mean() > 8
        assert 0 < (alpha[~inside] > 0).mean() < 0.1
        messages = [entry["message"] for entry in browser.get_log("browser")]
        assert [message for message in messages if running.page.url in message] == []
    finally:
        running.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_page_in_a_browser_behind_a_reverse_proxy(browser: Any, running: Running) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def until(condition: Callable[[], object]) -> None:
        WebDriverWait(browser, 30).until(lambda _: condition())

    with reverse_proxy(running.page.url, "/cameras/door/") as url:
        browser.get(url)
        until(lambda: browser.find_element(By.ID, "state").text == "ended")
        until(lambda: len(browser.find_elements(By.CSS_SELECTOR, "#top button")) == 4)
        browser.find_elements(By.CSS_SELECTOR, "#top button")[1].click()
        until(lambda: running.stream.explain is not None)
        until(lambda: "not predicted" in browser.find_element(By.ID, "evidence").text)
        running.page.close()
        until(lambda: browser.find_element(By.ID, "state").text == "disconnected")
        browser.get("about:blank")

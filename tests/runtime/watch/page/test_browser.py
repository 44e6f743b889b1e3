"""The page in a real browser, where one is installed: what a person sees, asks, saves and judges."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsers import Screen
from page_running import Running
from PIL import Image
from reverse_proxy import reverse_proxy

from edgex import samples
from edgex.runtime import Session, SourceError, open_source
from edgex.runtime.drawing.options import Drawing
from edgex.runtime.drift import DriftWarning
from edgex.runtime.frames import as_frame
from edgex.runtime.tiling.roi import mask
from edgex.runtime.view import Fit
from edgex.runtime.watch.page.feedback import Feedback
from edgex.runtime.watch.sources.source import SourceFrame
from edgex.runtime.watch.stream import FrameResult
from streams import Script, coloured

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

CALIBRATED = {
    "data": "plates",
    "pictures": 90,
    "alarm_classes": ["red thing"],
    "unsure": {"low": 0.0, "high": 1.0},
    "evidence": {"floor": 0.05, "full": 2.0},
}


class Photos:
    """A camera that sends photographs in a circle until it is cancelled, `interval` seconds apart."""

    live = True

    def __init__(self, name: str = "camera", interval: float = 0.05) -> None:
        self.name, self._interval, self._count, self._cancelled = name, interval, 0, False
        self._pictures = [Image.open(path).convert("RGB").resize((320, 240)) for path in samples.paths()]

    def open(self) -> None:
        pass

    def read(self) -> SourceFrame | None:
        import time

        time.sleep(self._interval)
        if self._cancelled:
            return None
        self._count += 1
        return SourceFrame(as_frame(self.picture(self._count)), f"frame {self._count}", self._count * self._interval)

    def picture(self, count: int) -> np.ndarray:
        """The one that comes as "frame {count}"."""
        return np.asarray(self._pictures[count // 4 % len(self._pictures)])

    def cancel(self) -> None:
        self._cancelled = True

    def close(self) -> None:
        pass


@pytest.fixture
def run(session: Session) -> Iterator[Callable[..., Running]]:
    """`run(*sources, session=..., **options of the page)`; closed at the end."""
    open_ones: list[Running] = []

    def start(*sources: Any, of: Session = session, **options: Any) -> Running:
        open_ones.append(Running(of, *sources, **options))
        return open_ones[-1]

    yield start
    for running in open_ones:
        running.close()


def keep(screen: Screen, name: str) -> None:
    """Keeps a picture of the screen for whoever asks for it with the variable EDGEX_SCREENSHOTS."""
    if folder := os.environ.get("EDGEX_SCREENSHOTS"):
        screen.driver.save_screenshot(str(Path(folder) / f"{name}.png"))


def test_the_heatmap_is_that_of_an_overlay(screen: Screen, session: Session, run: Any, tmp_path: Path) -> None:
    """A video is the camera: it plays, questions change the heatmap, and the page says when it has ended."""
    pytest.importorskip("av")
    from edgex.runtime.watch.recording import VideoWriter

    writer = VideoWriter(tmp_path / "camera.mp4")
    for number, path in enumerate(samples.paths()):
        picture = np.asarray(Image.open(path).convert("RGB").resize((480, 320)))
        for step in range(4):
            writer.write(picture, (4 * number + step) / 10)
    writer.close()
    running = run(open_source(str(tmp_path / "camera.mp4")))
    screen.open(running.page.url)
    screen.until(lambda: screen.text("state") == "ended" and screen.text("frames") == "20")
    state, picture = running.frame()
    result = session(picture)
    assert screen.text("top").splitlines()[0] == session.classes[state["index"]]
    np.testing.assert_allclose(screen.pixels("frame")[..., :3], picture, atol=6)
    wanted = session(picture, explain=state["index"]).overlay(picture).astype(float)
    assert np.abs(screen.drawn() - wanted).mean() < 3
    assert np.abs(wanted - picture).mean() > 8

    slide = "const s = document.getElementById('opacity'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))"
    screen.run(slide, 0)
    assert screen.text("opacity-value") == "0%"
    top, left, bottom, right = state["seen"]
    inside = slice(math.ceil(top) + 2, math.floor(bottom) - 2), slice(math.ceil(left) + 2, math.floor(right) - 2)
    assert screen.pixels("heat")[inside][..., 3].max() == 0
    screen.run(slide, 60)

    buttons = screen.all("#top button")
    assert [button.get_attribute("aria-pressed") for button in buttons] == ["true", "false", "false", "false"]
    assert not screen.run("return document.getElementById('against').checked")
    buttons[1].click()
    asked = int(buttons[1].get_attribute("data-index"))
    screen.until(lambda: screen.text("explained") == session.classes[asked])
    assert running.stream.explain == asked
    assert "not predicted" in screen.text("evidence")
    # A question why not is answered by what speaks against it, and the page shows that by itself.
    assert screen.run("return document.getElementById('against').checked")
    wanted = session(picture, explain=asked).overlay(picture, "signed").astype(float)
    assert np.abs(screen.drawn() - wanted).mean() < 3
    assert screen.text("low").startswith("against -")

    field = screen.driver.find_element("id", "wanted")
    field.send_keys("gren thing")
    screen.click("#ask button")
    screen.until(lambda: screen.text("problem").startswith("There is no class “gren thing”. Did you mean"))
    field.clear()
    field.send_keys("nothing")
    screen.click("#ask button")
    screen.until(lambda: screen.text("explained") == "nothing" and screen.text("problem") == "")
    screen.click("#predicted")
    screen.until(lambda: running.stream.explain is None and screen.text("explained") == result.label)
    assert not screen.run("return document.getElementById('against').checked")
    # A refused question is the browser's only complaint.
    assert screen.complaints(but="/explain") == []
    running.close()
    screen.until(lambda: screen.text("state") == "disconnected")


def test_a_page_that_runs_again_is_shown_anew(
    screen: Screen, make_model: Callable[..., Path], run: Any, tmp_path: Path
) -> None:
    """Another run counts its alarms from 1 again and may have another model: nothing of the one before is left."""
    Image.fromarray(coloured(0)).save(tmp_path / "red.png")
    Image.fromarray(coloured(2)).save(tmp_path / "blue.png")
    alarms = {**CALIBRATED, "alarm_classes": ["red thing", "blue thing"]}
    running = run(open_source(str(tmp_path / "red.png")), of=Session(make_model(calibration=alarms), "cpu"))
    screen.open(running.page.url)
    screen.until(lambda: len(screen.all("#events li")) == 1 and "red thing" in screen.text("events"))
    running.close()
    screen.until(lambda: screen.text("state") == "disconnected")
    classes = ["rouge", "vert", "bleu", "rien"]
    other = make_model("other.onnx", classes=classes, calibration={**alarms, "alarm_classes": ["rouge", "bleu"]})
    run(open_source(str(tmp_path / "blue.png")), of=Session(other, "cpu"), port=running.page.port)
    screen.until(lambda: len(screen.all("#events li")) == 1 and "bleu" in screen.text("events"))
    assert screen.all("#top button")[0].text.startswith("bleu")


def test_a_frozen_picture_stays_while_it_is_asked_about(screen: Screen, session: Session, run: Any) -> None:
    camera = Photos()
    running = run(camera)
    screen.open(running.page.url)
    screen.until(lambda: screen.run("return current !== null"))
    screen.click("#freeze")
    screen.until(lambda: screen.run("return frozen?.state.held !== undefined"))
    number, shown = screen.run("return current.frame"), screen.pixels("frame")
    assert screen.text("freeze") == "Unfreeze"
    count = screen.run("return views[0].state.frame")
    second = screen.all("#top button")[1]
    asked = int(second.get_attribute("data-index"))
    second.click()
    screen.until(lambda: screen.text("explained") == session.classes[asked])
    screen.until(lambda: screen.run("return views[0].state.frame") > count + 5)
    assert screen.run("return [current.frame, frozen !== null]") == [number, True]
    np.testing.assert_array_equal(screen.pixels("frame"), shown)
    # The question is about this picture alone: all others go on with the predicted class.
    assert running.stream.explain is None
    assert screen.run("return document.getElementById('against').checked")
    picture = camera.picture(int(screen.run("return current.name").split()[1]))
    wanted = session(picture, explain=asked).overlay(picture, "signed").astype(float)
    assert np.abs(screen.drawn() - wanted).mean() < 4
    field = screen.driver.find_element("id", "wanted")
    field.send_keys("nothing")
    screen.click("#ask button")
    screen.until(lambda: screen.text("explained") == "nothing")
    assert screen.run("return current.frame") == number
    screen.click("#freeze")
    screen.until(lambda: screen.run("return current.frame") > number)
    assert not screen.run("return document.getElementById('against').checked")
    assert screen.complaints() == []


def test_what_is_kept_for_a_frozen_picture_is_bounded(screen: Screen, run: Any) -> None:
    running = run(Photos())
    screen.open(running.page.url)
    screen.until(lambda: screen.run("return current !== null"))
    screen.click("#freeze")
    screen.until(lambda: screen.run("return frozen?.state.held !== undefined"))
    for _ in range(8):
        body = json.dumps({"feed": 0, "version": 0})
        assert running.ask("/hold", body, "POST", Content_Type="application/json")[0] == 200
    assert len(running.page.feeds[0]._held) == 4
    screen.all("#top button")[1].click()
    screen.until(lambda: screen.text("problem") != "")
    assert screen.text("problem") == "This picture is no longer kept here. Unfreeze, and freeze again."


def test_pictures_and_json_are_saved(screen: Screen, session: Session, run: Any) -> None:
    running = run(Script(range(3)))
    screen.open(running.page.url)
    screen.until(lambda: screen.text("state") == "ended" and screen.run("return current?.frame") == 2)
    screen.click("#freeze")
    screen.until(lambda: screen.run("return frozen?.state.held !== undefined"))
    screen.click("#save-picture")
    screen.click("#save-json")
    folder = screen.driver.downloads
    picture, text = folder / "edgex-1-000002.png", folder / "edgex-1-000002.json"
    screen.until(lambda: picture.exists() and text.exists())
    np.testing.assert_array_equal(
        np.asarray(Image.open(picture)), Drawing().captioned(session(coloured(2)), coloured(2))
    )
    found = json.loads(text.read_text())
    assert (found["frame"], found["name"], found["label"]) == (2, "picture 2", "blue thing")
    assert found["heatmap"] == session(coloured(2)).to_dict()["heatmap"]
    picture.unlink()
    text.unlink()
    # Of a running stream, the picture of the moment; by keys.
    screen.click("#freeze")
    screen.run("document.activeElement.blur()")
    screen.type("sj")
    screen.until(lambda: picture.exists() and text.exists())
    picture.unlink()
    text.unlink()
    running.close()
    screen.type("s")
    screen.until(lambda: screen.text("trouble") != "")
    assert screen.text("trouble") == "Not saved. The server does not answer. Is edgex watch still running?"


def test_alarms_and_unsure_frames_are_judged(
    screen: Screen, make_model: Callable[..., Path], run: Any, tmp_path: Path
) -> None:
    session = Session(make_model(calibration=CALIBRATED), "cpu")
    running = run(Script([0, 2]), of=session, feedback=Feedback(tmp_path / "verdicts.jsonl"))
    screen.open(running.page.url)
    screen.until(lambda: len(screen.all("#events li")) == 2)
    assert screen.text("decision") == "unsure"
    assert [item.text.splitlines()[0] for item in screen.all("#events strong")] == ["unsure", "alarm"]
    screen.until(lambda: screen.run("return entries.size") == 2)
    drawn = "return [...document.querySelectorAll('#events canvas')].map((canvas) => canvas.toDataURL().length)"
    assert min(screen.run(drawn)) > 1000
    screen.click("#events li:nth-child(1) [data-role='not-ok']")
    screen.until(lambda: screen.all("#events li:nth-child(1) [aria-pressed=true]"))
    # The keyboard's focus stays on the button.
    assert screen.run("return document.activeElement.dataset.role") == "not-ok"
    screen.click("#events li:nth-child(2) [data-role='ok']")
    screen.until(lambda: screen.all("#events li:nth-child(2) [aria-pressed=true]"))
    lines = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    assert [(line["frame"], line["label"], line["decision"], line["verdict"]) for line in lines] == [
        (1, "blue thing", "review", "not-ok"),
        (0, "red thing", "alarm", "ok"),
    ]
    assert lines[0]["score"] == pytest.approx(session(coloured(2)).score)
    assert all(line["time"].endswith("Z") and line["source"] == "script" for line in lines)
    # An entry opens frozen, with its heatmap; on a phone, the page goes up to it and stays there.
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": False}
    screen.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    screen.click("#events li:nth-child(1) .thumb")
    screen.until(lambda: screen.run("return current.frame") == 1)
    screen.run("stripVersion = -1; return updateStrip(99)")
    assert screen.run("return document.activeElement.dataset.role") == "open"
    assert screen.run("return document.getElementById('picture').getBoundingClientRect().top") > -2
    assert screen.text("freeze") == "Unfreeze"
    screen.all("#top button")[1].click()
    screen.until(lambda: screen.text("problem").startswith("This picture is kept as it was shown."))
    keep(screen, "strip")
    assert screen.complaints() == []


def test_rules_that_fired_and_drift_are_named(screen: Screen, session: Session, run: Any) -> None:
    running = run(Script([1]))
    screen.open(running.page.url)
    screen.until(lambda: screen.text("state") == "ended" and screen.run("return current !== null"))
    assert screen.text("decision") == screen.text("drift") == ""
    warning = DriftWarning("score", 0.5, 0.1, 500, "scores are lower than in validation")
    seen = FrameResult(1, SourceFrame(as_frame(coloured(0)), "one"), session(coloured(0)), 0.02, 0.01)
    running.page.feeds[0].write(dataclasses.replace(seen, alarms=("red thing>0.8",), drift=(warning,)))
    screen.until(lambda: screen.all("#events li"))
    assert screen.text("decision") == "alarm"
    assert screen.all("#events strong")[0].text == "alarm: red thing>0.8"
    assert screen.text("drift") == "scores are lower than in validation"
    running.page.feeds[0].write(dataclasses.replace(seen, number=2, alarms=()))
    screen.until(lambda: screen.text("drift") == screen.text("decision") == "")
    assert len(screen.all("#events li")) == 1


def test_without_a_file_for_verdicts_nobody_is_asked(screen: Screen, make_model: Callable[..., Path], run: Any) -> None:
    running = run(Script([0]), of=Session(make_model(calibration=CALIBRATED), "cpu"))
    screen.open(running.page.url)
    screen.until(lambda: screen.all("#events li"))
    assert screen.all("#events [data-role='ok']") == []
    body = json.dumps({"id": 1, "verdict": "ok"})
    status, words, _ = running.ask("/feedback", body, "POST", Content_Type="application/json")
    assert (status, words) == (403, b"Verdicts are not recorded here.\n")


def test_a_full_disk_is_told_to_whoever_judges(screen: Screen, make_model: Callable[..., Path], run: Any) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    running = run(Script([0]), of=Session(make_model(calibration=CALIBRATED), "cpu"), feedback=Feedback("/dev/full"))
    screen.open(running.page.url)
    screen.until(lambda: screen.all("#events li"))
    screen.click("#events [data-role='ok']")
    screen.until(lambda: screen.text("strip-problem") != "")
    assert screen.text("strip-problem").startswith("The verdict is not recorded: cannot write /dev/full (No space left")
    assert screen.all("#events [aria-pressed=true]") == []


def test_several_sources_side_by_side(screen: Screen, session: Session, run: Any) -> None:
    class Broken(Script):
        name = "broken camera"

        def open(self) -> None:
            raise SourceError("broken camera: no answer within 10 s")

    running = run(Photos("door"), Photos("yard", 0.5), Broken([]))
    screen.open(running.page.url)
    screen.until(lambda: screen.run("return views.filter((view) => view.bitmap !== null).length") == 2)
    assert [tile.text.splitlines()[0] for tile in screen.all(".tile")] == ["door", "yard", "broken camera"]
    # A slow source and a broken one hold none of the others; each has its own speed.
    before = screen.run("return views.slice(0, 2).map((view) => view.state.frame)")
    screen.until(lambda: screen.run("return views[1].state.frame") >= before[1] + 2)
    counts = screen.run("return views.slice(0, 2).map((view) => view.state.frame)")
    assert counts[0] - before[0] > 2 * (counts[1] - before[1])
    screen.click(".tile:nth-child(2)")
    assert "yard" in screen.text("about")
    screen.all("#top button")[1].click()
    screen.until(lambda: running.streams[1].explain is not None)
    assert running.streams[0].explain is None
    screen.run("document.activeElement.blur()")
    screen.type("]")
    assert "broken camera" in screen.text("about")
    assert screen.text("note") == "broken camera: no answer within 10 s"
    screen.type("[[")
    assert "door" in screen.text("about")
    screen.until(lambda: screen.run("return current.source") == "door")
    assert screen.run("return document.documentElement.scrollWidth - window.innerWidth") <= 0
    keep(screen, "sources")
    screen.open(running.page.url, width=390, height=800, dark=True)
    screen.until(lambda: screen.run("return views.filter((view) => view.bitmap !== null).length") == 2)
    assert screen.run("return document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert screen.small_targets() == screen.unreadable() == []
    keep(screen, "sources-390-dark")
    assert screen.complaints() == []


@pytest.mark.parametrize("width, dark", [(1280, False), (1280, True), (390, False), (390, True)])
def test_a_screen_of_800_pixels_and_fingers(
    screen: Screen, make_model: Callable[..., Path], run: Any, tmp_path: Path, width: int, dark: bool
) -> None:
    """The speed lies above the fold, targets are 44 pixels, texts have contrast, nothing is wider than the window."""
    session = Session(make_model(calibration=CALIBRATED), "cpu")
    running = run(Photos(), of=session, feedback=Feedback(tmp_path / "verdicts.jsonl"))
    screen.open(running.page.url, width=width, height=800, dark=dark)
    screen.until(lambda: screen.run("return current !== null && current.frame > 20"))
    for name in ("rate", "age", "queue", "model", "frames", "dropped", "frame"):
        box = screen.run("return document.getElementById(arguments[0]).getBoundingClientRect()", name)
        assert box["top"] >= 0 and box["top"] + min(box["height"], 100) <= 800
    age, queue, model = (float(screen.text(name).removesuffix(" ms")) for name in ("age", "queue", "model"))
    assert 0 < queue + model <= age + 0.2
    assert screen.small_targets() == []
    assert screen.unreadable() == []
    assert screen.run("return document.documentElement.scrollWidth - window.innerWidth") <= 0
    unnamed = (
        "return [...document.querySelectorAll('button, input')]"
        ".filter((e) => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map((e) => e.outerHTML)"
    )
    assert screen.run(unnamed) == []
    assert screen.run("return document.getElementById('spoken').getAttribute('aria-live')") == "polite"
    assert screen.run("return document.getElementById('spoken').textContent") in session.classes
    keep(screen, f"page-{width}-{'dark' if dark else 'light'}")
    screen.run("document.activeElement.blur()")
    screen.type("?")
    assert screen.text("help-title") == "Keys"
    assert screen.small_targets() == screen.unreadable() == []
    keep(screen, f"help-{width}-{'dark' if dark else 'light'}")
    screen.click("#close-help")
    assert screen.complaints() == []


def test_keys(screen: Screen, session: Session, run: Any) -> None:
    running = run(Photos())
    screen.open(running.page.url)
    screen.until(lambda: screen.run("return current !== null"))
    screen.type("f")
    screen.until(lambda: screen.run("return frozen?.state.held !== undefined"))
    names = [button.text.splitlines()[0] for button in screen.all("#top button")]
    screen.type("2")
    screen.until(lambda: screen.text("explained") == names[1])
    assert screen.run("return document.getElementById('against').checked")
    screen.type("a")
    assert not screen.run("return document.getElementById('against').checked")
    screen.type("0")
    screen.until(lambda: screen.text("explained") == names[0])
    screen.type("--+")
    assert screen.text("opacity-value") == "50%"
    # What is typed into the field is no key.
    screen.type("/fas")
    assert screen.run("return [document.getElementById('wanted').value, frozen !== null]") == ["fas", True]
    screen.run("document.activeElement.blur()")
    screen.type("?")
    assert screen.all("#help[open]")
    screen.click("#help label")
    screen.click("#close-help")
    screen.type("f")
    assert screen.run("return frozen !== null")
    screen.click("#freeze")
    assert screen.run("return frozen === null")


def test_a_multi_label_model(screen: Screen, make_model: Callable[..., Path], run: Any) -> None:
    session = Session(make_model(activation="sigmoid", thresholds=[0.9, 0.5, 0.2, 0.6]), "cpu")
    running = run(Script([0, 2]), of=session)
    screen.open(running.page.url)
    screen.until(lambda: screen.run("return current?.frame") == 1)
    result = session(coloured(2))
    present = result.present()
    buttons = screen.all("#top button")
    assert [int(button.get_attribute("data-index")) for button in buttons] == result.order(4)
    absent = [int(button.get_attribute("data-index")) for button in screen.all("#top button.absent")]
    assert 0 < len(present) < 4 and sorted([*absent, *present]) == [0, 1, 2, 3]
    assert "present, " in screen.text("evidence") and "not present" not in screen.text("evidence")
    assert screen.run("return document.getElementById('frame').ariaLabel").startswith(
        f"Picture 2: {', '.join(session.classes[number] for number in present)}, with"
    )
    said = ", ".join(f"{label} {100 * score:.1f}%" for label, score in result.labels())
    assert screen.run("return scored(current)") == said
    screen.click(f"#top [data-index='{absent[0]}']")
    screen.until(lambda: screen.text("explained") == session.classes[absent[0]])
    assert "not present, " in screen.text("evidence")
    assert screen.run("return document.getElementById('against').checked")
    screen.click("#predicted")
    screen.until(lambda: running.stream.explain is None)
    screen.until(lambda: not screen.run("return document.getElementById('against').checked"))
    assert screen.unreadable() == []
    keep(screen, "multi-label")
    assert screen.complaints() == []


def test_a_picture_without_any_label(screen: Screen, make_model: Callable[..., Path], run: Any, tmp_path: Path) -> None:
    Image.new("RGB", (96, 64), (9, 9, 9)).save(tmp_path / "dark.png")
    session = Session(make_model(activation="sigmoid", thresholds=[0.9] * 4), "cpu")
    running = run(open_source(str(tmp_path / "dark.png")), of=session)
    screen.open(running.page.url)
    screen.until(lambda: screen.run("return current !== null"))
    assert len(screen.all("#top button.absent")) == 4
    assert screen.run("return document.getElementById('frame').ariaLabel").startswith("Picture 1: no label, with")
    assert screen.run("return scored(current)") == "no label"


def test_the_calibrated_scale(screen: Screen, make_model: Callable[..., Path], run: Any, tmp_path: Path) -> None:
    """As Result.overlay draws it: a weak map looks weak."""
    Image.open(samples.paths()[0]).convert("RGB").resize((320, 240)).save(tmp_path / "a.png")
    session = Session(make_model(calibration=CALIBRATED), "cpu")
    running = run(open_source(str(tmp_path / "a.png")), of=session)
    screen.open(running.page.url)
    screen.until(lambda: screen.run("return current !== null"))
    assert [screen.text("low"), screen.text("high")] == ["0.05", "2"]
    assert "on the calibrated scale" in screen.text("scale-name")
    wanted = session(tmp_path / "a.png").overlay(np.asarray(Image.open(tmp_path / "a.png"))).astype(float)
    assert np.abs(screen.drawn() - wanted).mean() < 3
    # A map that stays below the scale is none that failed to be drawn.
    above = make_model("above.onnx", calibration={**CALIBRATED, "evidence": {"floor": 50.0, "full": 90.0}})
    running = run(open_source(str(tmp_path / "a.png")), of=Session(above, "cpu"))
    screen.open(running.page.url)
    screen.until(
        lambda: screen.text("scale-name").startswith("Nothing is painted: no patch stands out beyond 50 logit")
    )


def test_a_token_opens_the_page_to_other_machines(screen: Screen, run: Any) -> None:
    token = "a-token-of-more-than-16"
    running = run(Photos(), host="0.0.0.0", token=token)
    url = f"http://127.0.0.1:{running.page.port}/"
    screen.driver.delete_all_cookies()
    screen.open(f"{url}?token=wrong", width=390, height=800)
    assert "missing or not the right one" in screen.text("words")
    assert screen.small_targets() == screen.unreadable() == []
    keep(screen, "token-390")
    screen.driver.find_element("id", "token").send_keys(token)
    screen.click("button")
    screen.until(lambda: screen.run("return typeof current !== 'undefined' && current !== null"))
    # The address and what scripts can read hold no token.
    assert screen.driver.current_url == url
    assert screen.run("return document.cookie") == ""
    assert all(token not in str(cookie["value"]) for cookie in screen.driver.get_cookies())
    screen.open(url)
    screen.until(lambda: screen.run("return current !== null"))
    screen.driver.delete_all_cookies()
    screen.until(lambda: screen.text("trouble") != "")
    assert "asks for a token" in screen.text("trouble")


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_what_was_seen_of_a_wide_frame(screen: Screen, model_path: Path, run: Any, tmp_path: Path, fit: Fit) -> None:
    """As Result.overlay does: nothing of the padding, and a line where the middle that is cropped ends."""
    Image.open(samples.paths()[0]).convert("RGB").resize((700, 180)).save(tmp_path / "wide.png")
    session = Session(model_path, "cpu", threads=1, fit=fit)
    running = run(open_source(str(tmp_path / "wide.png")), of=session)
    screen.open(running.page.url)
    screen.until(lambda: screen.text("state") == "ended" and screen.run("return current !== null"))
    _, picture = running.frame()
    wanted = session(tmp_path / "wide.png").overlay(np.asarray(Image.open(tmp_path / "wide.png"))).astype(float)
    assert np.abs(wanted - picture).mean() > 2
    assert np.abs(screen.drawn() - wanted).mean() < 3
    assert (screen.pixels("heat")[:, 1, 3] > 0).any() == (fit == "pad")


def test_tiles_and_regions(screen: Screen, model_path: Path, run: Any, tmp_path: Path) -> None:
    """Heat inside the regions only, as Result.overlay draws it, and lines around them and the tiles."""
    pixels = np.random.default_rng(1).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((480, 320)).save(tmp_path / "frame.png")
    regions = [((30, 20), (300, 60), (90, 300)), ((200, 100), (460, 100), (460, 280), (200, 280))]
    session = Session(model_path, "cpu", tiles=(2, 3), roi=regions)
    running = run(open_source(str(tmp_path / "frame.png")), of=session)
    screen.open(running.page.url)
    screen.until(lambda: screen.run("return current !== null"))
    state, picture = running.frame()
    assert len(state["outlines"]) == 2 + 6
    assert state["tiles"][0]["box"] == [0, 0, 169, 172]
    wanted = session(picture, explain=state["index"]).overlay(picture).astype(float)
    inside = mask(regions, 320, 480)
    assert np.abs(screen.drawn() - wanted)[inside].mean() < 4
    assert np.abs(wanted - picture)[inside].mean() > 8
    assert 0 < (screen.pixels("heat")[..., 3] > 0)[~inside].mean() < 0.1
    assert screen.complaints() == []


def test_behind_a_reverse_proxy(screen: Screen, run: Any) -> None:
    running = run(Script(range(3)))
    with reverse_proxy(running.page.url, "/cameras/door/") as url:
        screen.open(url)
        screen.until(lambda: screen.text("state") == "ended" and len(screen.all("#top button")) == 4)
        screen.all("#top button")[1].click()
        screen.until(lambda: running.stream.explain is not None)
        screen.until(lambda: "not predicted" in screen.text("evidence"))
        running.page.close()
        screen.until(lambda: screen.text("state") == "disconnected")
        screen.open("about:blank")

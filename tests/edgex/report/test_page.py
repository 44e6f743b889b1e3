"""The whole page: of a real run, in a real browser, with hostile text, of a long run."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import small_model
from edgex.cli import main
from edgex.errors import DataError, UsageError
from edgex.report import write_report
from edgex.report.reading import SHOWN
from edgex.runtime import Session, Stream
from edgex.runtime.result import encode_heatmap
from edgex.runtime.watch.sinks import JsonLinesSink
from edgex.runtime.watch.sources.folder import FolderSource
from streams import LABELS, coloured

HOSTILE = "</style><script>document.title='no'</script><img src=x onerror=alert(1)>\u202e\x1b[2J'\"&{{ 7*7 }}"


class Tags(HTMLParser):
    """Every tag with its attributes, and the text outside of tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run over six pictures in `pictures`, with decisions, alarms and drift written into its lines."""
    small_model.write(tmp_path / "model.onnx")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(6):
        pixels = coloured(number, (240, 320)) // 2
        pixels[80:160, 60 + 30 * number : 160 + 30 * number] *= 2
        Image.fromarray(pixels).save(folder / f"{number}.png")
    path = tmp_path / "run.jsonl"
    sink = JsonLinesSink(path)
    with Session(tmp_path / "model.onnx", "cpu", threads=1) as session:
        for seen in Stream(session, FolderSource(folder)):
            sink.write(seen)
    sink.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["decision"] = "ok"
    lines[2] |= {"decision": "alarm", "alarms": ["blue thing>0.5"]}
    lines[3]["decision"] = "review"
    for line in lines[4:]:
        line["drift"] = [{"quantity": "score", "distance": 0.4, "message": "scores are lower than in validation"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_what_the_page_holds(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    found = write_report(run, out, snapshots=[tmp_path / "pictures"])
    assert found.frames == 6 and len(found.chosen) == 6
    page = Tags(out.read_text(encoding="utf-8"))
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 6 and all(str(image["src"]).startswith("data:image/jpeg;base64,") for image in images)
    assert all(str(image["alt"]).startswith("Frame ") for image in images)
    for words in ("blue thing>0.5", "scores are lower than in validation", "frames 5 to 6", *LABELS, "milliseconds"):
        assert words in page.text
    assert "not found" not in page.text


def test_nothing_is_loaded_and_nothing_runs(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    write_report(run, out)
    text = out.read_text(encoding="utf-8")
    page = Tags(text)
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "link", "object", "embed", "base", "form"}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") or name == "href" for name in attributes)
        assert str(attributes.get("src", "data:")).startswith("data:")
    assert "url(" not in text and "@import" not in text and "http://" not in text and "https://" not in text
    assert "default-src 'none'" in text


def test_hostile_text_is_text(run: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in run.read_text().splitlines()]
    for line in lines:
        line |= {
            "label": HOSTILE,
            "name": HOSTILE,
            "source": HOSTILE + str(line["frame"] % 2),
            "alarms": [HOSTILE],
            "decision": HOSTILE,
            "drift": [{"quantity": HOSTILE, "message": HOSTILE}],
            "explained": {"label": HOSTILE + "other"},
        }
    hostile = tmp_path / "<b>run.jsonl"
    hostile.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "page.html"
    plain = tmp_path / "plain.html"
    write_report(hostile, out)
    write_report(run, plain)
    text = out.read_text(encoding="utf-8")
    page, usual = Tags(text), Tags(plain.read_text(encoding="utf-8"))
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in usual.tags}
    for tag, attributes in page.tags:
        known = {name for other, names in usual.tags if other == tag for name in names}
        assert set(attributes) <= known
    assert "\u202e" not in text and "\x1b" not in text
    assert "{{ 7*7 }}" in page.text and "49" not in page.text.split("{{")[1][:10]
    assert html.escape("<script>document.title=") in text


def test_a_long_run_is_a_small_page(tmp_path: Path) -> None:
    heat = encode_heatmap(np.random.default_rng(0).random((14, 14)).astype(np.float32))
    path = tmp_path / "run.jsonl"
    with path.open("w") as file:
        for number in range(20_000):
            line = {"frame": number, "label": f"class {number % 500}", "score": (number % 97) / 97, "heatmap": heat}
            line |= {"decision": "alarm" if number % 3 else "ok", "alarms": ["a>0.5"], "latency_ms": 1.0 + number % 7}
            line |= {"drift": [{"quantity": "score", "message": f"message {number}"}]} if number % 10 < 5 else {}
            file.write(json.dumps(line) + "\n")
    out = tmp_path / "page.html"
    found = write_report(path, out)
    assert len(found.chosen) <= sum(SHOWN.values()) and len(found.drift) == 2000
    assert out.stat().st_size < 1_500_000
    text = Tags(out.read_text()).text
    assert "Shown here, of 20,000: 12 of 20,000 with an alarm" in text and "480 others" in text
    assert "and 1980 more" in text


def test_lines_of_earlier_versions(tmp_path: Path) -> None:
    """Without sources, decisions and the rest."""
    path = tmp_path / "run.jsonl"
    path.write_text('{"frame": 0, "name": "a.png", "label": "a", "score": 0.5}\n')
    write_report(path, tmp_path / "page.html")
    assert "no picture" in (tmp_path / "page.html").read_text()


def test_a_page_that_exists_is_kept(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    out.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        write_report(run, out)
    assert out.read_text() == "mine"
    write_report(run, out, force=True)
    assert "<!doctype html>" in out.read_text()
    before, lines = out.read_text(), run.read_bytes()
    with pytest.raises(UsageError, match="another file than the run itself"):
        write_report(run, run, force=True)
    assert run.read_bytes() == lines
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError):
        write_report(tmp_path / "empty.jsonl", out, force=True)
    assert out.read_text() == before


def edgex(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["edgex", "report", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def test_the_command(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(run.parent)
    code, out, err = edgex(monkeypatch, capsys, "run.jsonl", "--snapshots", "pictures")
    assert (code, out, err) == (0, "run.html: 6 frames, 6 of them shown\n", "")
    code, out, err = edgex(monkeypatch, capsys, "run.jsonl")
    assert code == 2 and err.startswith("edgex: error: --out: run.html exists already")
    with run.open("a") as file:
        file.write('{"frame": 6')
    code, out, err = edgex(monkeypatch, capsys, "run.jsonl", "--out", "other.html", "--json")
    assert code == 0 and json.loads(out)["classes"] == dict.fromkeys(LABELS, 2)
    assert err == "edgex: run.jsonl: The last line (7) is cut off, as by a run that was killed or still goes on.\n"
    for folder in ("pictures", "."):
        code, out, err = edgex(monkeypatch, capsys, folder)
        assert code == 1 and err.startswith(f"edgex: error: RUN: {folder}: expected a file that can be read")
    code, out, err = edgex(monkeypatch, capsys, "run.jsonl", "--out", "new.html", "--snapshots", "nowhere")
    assert code == 1 and err.startswith("edgex: error: --snapshots: expected a folder, found")
    assert not Path("new.html").exists()


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
    folder = tmp_path_factory.mktemp("chromium")
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking", f"user-data-dir={folder}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chromium = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chromium
    chromium.quit()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_page_in_a_browser(browser: Any, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    lines = [json.loads(line) for line in run.read_text().splitlines()]
    lines[5] |= {"label": HOSTILE, "name": "x" * 300}
    run.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_report(run, out, snapshots=[tmp_path / "pictures"])
    colours = set()
    for width in (390, 1280):
        for scheme in ("light", "dark"):
            media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            browser.get(out.as_uri())
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
            assert browser.title == "run.jsonl - edgex report"
            for image in browser.find_elements("css selector", "figure img"):
                browser.execute_script("arguments[0].loading = 'eager'; return arguments[0].decode()", image)
                assert browser.execute_script("return arguments[0].naturalWidth", image) == 320
            colours.add((scheme, browser.execute_script("return getComputedStyle(document.body).backgroundColor")))
            smallest = browser.execute_script(
                "return Math.min(...[...document.querySelectorAll('figcaption, td, p, li, .axis')]"
                ".map(e => parseFloat(getComputedStyle(e).fontSize)))"
            )
            assert smallest >= 12
            height = browser.execute_script("return document.querySelector('svg').getBoundingClientRect().height")
            assert height > 100
            assert browser.get_log("browser") == []
            if "EDGEX_SCREENSHOTS" in os.environ:
                name = f"report-{width}-{scheme}.png"
                browser.save_screenshot(str(Path(os.environ["EDGEX_SCREENSHOTS"]) / name))
    assert len(colours) == 2
    text = browser.find_element("tag name", "body").text
    assert "<script>" in text and re.search(r"scores are lower than in validation\s+frames 5 to 6", text)

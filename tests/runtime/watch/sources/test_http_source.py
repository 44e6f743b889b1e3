"""Cameras that send a picture per request, and playlists on a server, on the loopback address."""

from __future__ import annotations

import functools
import http.server
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgex.runtime import Session, SourceError, Stream, open_source
from edgex.runtime.watch import stream as stream_module
from playlists import write_playlist
from servers import Server, answer, silent
from streams import LABELS, jpeg

pytest.importorskip("av")


class Snapshots:
    """Answers each request with the next picture; `rest` says what to do after them."""

    def __init__(self, *pictures: bytes, rest: object = silent) -> None:
        self.pictures, self.moments, self.rest = list(pictures), list[float](), rest

    def __call__(self, connection: object, closing: threading.Event) -> None:
        self.moments.append(time.monotonic())
        if len(self.moments) > len(self.pictures):
            self.rest(connection, closing)  # type: ignore[operator]
            return
        data = self.pictures[len(self.moments) - 1]
        answer(data, "image/jpeg", length=len(data))(connection, closing)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["snapshot.jpg", "cgi-bin/api.cgi?cmd=Snap&channel=0"])
def test_a_camera_that_sends_a_picture_per_request(session: Session, path: str) -> None:
    camera = Snapshots(*(jpeg(number) for number in range(6)))
    notices: list[str] = []
    with Server(camera) as server:
        source = open_source(f"http://{server.address}/{path}", interval=0.1)
        stream = Stream(session, source, policy="every", limit=6, notice=notices.append)
        seen = list(stream)
    assert [entry.result.label for entry in seen] == [LABELS[number % 3] for number in range(6)]
    assert [entry.source_frame.name.rpartition(" ")[2] for entry in seen] == ["1", "2", "3", "4", "5", "6"]
    times = [entry.source_frame.time for entry in seen]
    assert times == sorted(times)  # type: ignore[type-var]
    assert notices == [f"{source.name}: sends one picture per request; asked again every 0.1 s"]
    assert stream.metrics.snapshot().reconnections == 0
    # A busy machine may see the first request late.
    assert camera.moments[5] - camera.moments[0] > 5 * 0.1 / 2


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_a_snapshot_that_is_damaged_costs_only_itself(session: Session, part: float) -> None:
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)).save(noise, "JPEG")
    camera = Snapshots(jpeg(0), noise.getvalue()[: int(part * noise.tell())], jpeg(2), jpeg(0))
    notices: list[str] = []
    with Server(camera) as server:
        source = open_source(f"http://{server.address}/snapshot.jpg", interval=0.05)
        stream = Stream(session, source, policy="every", limit=3, notice=notices.append)
        assert [entry.result.label for entry in stream] == ["red thing", "blue thing", "red thing"]
    assert len(notices) == 2
    assert sum("sends one picture per request" in text for text in notices) == 1
    assert sum(text.startswith(f"{source.name}, picture 2: cannot be decoded") for text in notices) == 1


def test_a_snapshot_camera_that_falls_silent(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "FIRST_WAIT", 0.01)
    notices: list[str] = []
    with Server(Snapshots(jpeg(0), jpeg(1))) as server:
        source = open_source(f"http://{server.address}/snapshot.jpg", interval=0.05, timeout=0.3)
        stream = Stream(session, source, policy="every", retries=1, notice=notices.append)
        with pytest.raises(SourceError, match=r"/\.\.\.: no answer within 0\.3 s$"):
            list(stream)
    assert stream.metrics.snapshot().frames == 2
    assert ["opening it again" in text for text in notices] == [False, True]


def test_a_stream_that_is_stopped_between_two_snapshots(session: Session) -> None:
    with Server(Snapshots(jpeg(0), jpeg(1))) as server:
        stream = Stream(session, open_source(f"http://{server.address}/snapshot.jpg", interval=600))
        for entry in stream:
            assert entry.result.label == "red thing"
            threading.Timer(0.1, stream.stop).start()
    assert stream.metrics.snapshot().frames == 1
    deadline = time.monotonic() + 5
    while any(thread.name == "edgex source" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Standard error is for edgex."""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A web server of the test's folder."""
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_playlist_that_stops_growing_is_given_up(
    session: Session, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time that it is opened again, a server sends its last segments again."""
    monkeypatch.setattr(stream_module, "FIRST_WAIT", 0.01)
    write_playlist(tmp_path, range(3), ended=False)
    source = open_source(f"http://{address}/live.m3u8", timeout=0.5)
    notices: list[str] = []
    stream = Stream(session, source, policy="every", retries=2, notice=notices.append)
    seen: list[str] = []
    with pytest.raises(SourceError, match=r"live\.m3u8: no answer within 0\.5 s$"):
        seen.extend(entry.result.label for entry in stream)
    # FFmpeg's decoder keeps the last picture back.
    assert seen == [LABELS[number % 3] for number in range(29)]
    assert [text.partition("; ")[2] for text in notices] == [
        "opening it again in 0.01 s (1 of 2)",
        "opening it again in 0.02 s (2 of 2)",
    ]


def test_a_playlist_that_grows_goes_on_where_it_was(
    session: Session, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "FIRST_WAIT", 0.01)
    write_playlist(tmp_path, range(3), ended=False)

    def grow(text: str) -> None:
        write_playlist(tmp_path, range(6), ended=False)

    source = open_source(f"http://{address}/live.m3u8", timeout=0.5)
    stream = Stream(session, source, policy="every", retries=2, limit=55, notice=grow)
    seen = [entry.result.label for entry in stream]
    # The decoder kept picture 29 back when the playlist fell silent.
    assert seen == [LABELS[number % 3] for number in (*range(29), *range(30, 56))]

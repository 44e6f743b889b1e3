"""Network sources that accept and never answer, that drip, and that fall silent after some pictures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from edgex.runtime import Session, SourceError, Stream, open_source
from edgex.runtime.watch import stream as stream_module
from edgex.runtime.watch.sources.open_source import PLAYLIST_TIMEOUT, TIMEOUT
from edgex.runtime.watch.sources.video import VideoSource
from playlists import write_playlist
from servers import MULTIPART, Behaviour, Server, answer, drip, multipart, silent
from streams import LABELS, jpeg, write_video

av = pytest.importorskip("av")


@pytest.mark.parametrize("behaviour", [silent, drip])
@pytest.mark.parametrize("url", ["rtsp://{}/cam", "http://{}/x.mjpg", "http://{}/x.mp4", "tcp://{}", "rtmp://{}/live"])
def test_a_server_that_never_answers(behaviour: Behaviour, url: str) -> None:
    with Server(behaviour) as server:
        source = open_source(url.format(server.address), timeout=0.4)
        begin = time.monotonic()
        with pytest.raises(SourceError) as error:
            source.open()
        assert str(error.value) == f"{source.name}: no answer within 0.4 s"
        # Both the connection and the search for streams may take that long.
        assert time.monotonic() - begin < TIMEOUT


def test_every_network_source_has_a_time_out(tmp_path: Path) -> None:
    for name in ("a.m3u8", "a.sdp"):
        (tmp_path / name).write_text("")
    limits = {
        "rtsp://127.0.0.1/a": TIMEOUT,
        "http://127.0.0.1/a.mp4": TIMEOUT,
        "camera:0": TIMEOUT,
        "https://127.0.0.1/live.m3u8?key=1": PLAYLIST_TIMEOUT,
        str(tmp_path / "a.m3u8"): PLAYLIST_TIMEOUT,
        str(tmp_path / "a.sdp"): TIMEOUT,
    }
    for name, wanted in limits.items():
        source, given = open_source(name), open_source(name, timeout=3)
        assert isinstance(source, VideoSource) and isinstance(given, VideoSource)
        assert (source._timeout, given._timeout) == (wanted, 3)
    local = open_source(str(write_video(tmp_path / "a.mp4", count=1)), timeout=3)
    assert isinstance(local, VideoSource)
    assert local._timeout is None


def test_a_camera_that_falls_silent_is_opened_again_and_then_given_up(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "FIRST_WAIT", 0.01)
    seen: list[str] = []
    notices: list[str] = []
    pictures = answer(multipart([jpeg(number) for number in range(5)]), MULTIPART, then=silent)
    with Server(lambda *given: (pictures if server.connections == 1 else silent)(*given)) as server:
        source = open_source(f"http://{server.address}/stream", timeout=0.4)
        stream = Stream(session, source, policy="every", retries=2, notice=notices.append)
        with pytest.raises(SourceError) as error:
            seen.extend(entry.result.label for entry in stream)
    assert seen == [LABELS[number % 3] for number in range(5)]
    silence = f"http://{server.address}/stream: no answer within 0.4 s"
    assert str(error.value) == silence
    assert notices == [f"{silence}; opening it again in {wait:g} s ({n} of 2)" for n, wait in ((1, 0.01), (2, 0.02))]


@pytest.mark.parametrize("rest", [silent, drip])
def test_a_recording_on_a_server_that_falls_silent(session: Session, tmp_path: Path, rest: Any) -> None:
    """Nothing that was read is lost, and the run ends."""
    data = write_video(tmp_path / "a.mkv", count=60, size=(128, 128)).read_bytes()
    seen: list[str] = []
    with Server(answer(data[: len(data) // 2], "video/x-matroska", length=len(data), then=rest)) as server:
        source = open_source(f"http://{server.address}/a.mkv", timeout=0.4)
        assert not source.live
        with pytest.raises(SourceError, match=r"a\.mkv: no answer within 0\.4 s$"):
            seen.extend(entry.result.label for entry in Stream(session, source))
    assert 5 < len(seen) < 60


def test_a_local_playlist_without_an_end(session: Session, tmp_path: Path) -> None:
    path = write_playlist(tmp_path, range(2))
    seen = [entry.result.label for entry in Stream(session, open_source(path, timeout=0.5))]
    assert seen == [LABELS[number % 3] for number in range(20)]
    write_playlist(tmp_path, range(2), ended=False)
    again: list[str] = []
    with pytest.raises(SourceError) as error:
        again.extend(entry.result.label for entry in Stream(session, open_source(path, timeout=0.5)))
    assert again == seen
    assert str(error.value) == f"{path}: no answer within 0.5 s"

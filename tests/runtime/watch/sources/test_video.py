"""Real FFmpeg on real files and sockets, and on the camera that FFmpeg makes up: none is at hand in tests."""

from __future__ import annotations

import io
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgex.runtime import MissingExtraError, Session, SourceError, Stream, open_source
from edgex.runtime.watch import stream as stream_module
from edgex.runtime.watch.recording import VideoWriter
from edgex.runtime.watch.sources import video as module
from edgex.runtime.watch.sources.video import VideoSource, displayed
from streams import COLOURS, LABELS, coloured, read_all, write_video

av = pytest.importorskip("av")


IDENTITY = (1, 0, 0, 1)
MATRICES = [(1, 0, 0, 1), (-1, 0, 0, 1), (-1, 0, 0, -1), (1, 0, 0, -1), (0, 1, 1, 0), (0, 1, -1, 0)]
MATRICES += [(0, -1, -1, 0), (0, -1, 1, 0)]
"""Identity, mirrored, half a turn, upside down, transposed, a quarter turn, the other diagonal, a quarter turn back."""


def placed(pixels: np.ndarray, matrix: tuple[int, ...]) -> np.ndarray:
    """Pixel by pixel: a stored position (p, q) is shown at (a p + c q, b p + d q), moved to begin at 0."""
    a, b, c, d = matrix
    height, width = pixels.shape[:2]
    found = {(b * p + d * q, a * p + c * q): pixels[q, p] for q in range(height) for p in range(width)}
    top, left = min(row for row, _ in found), min(column for _, column in found)
    shown = np.zeros((height, width, 3) if a else (width, height, 3), np.uint8)
    for (row, column), value in found.items():
        shown[row - top, column - left] = value
    return shown


def nine(matrix: tuple[int, ...], unit: int = 1 << 16) -> tuple[int, ...]:
    a, b, c, d = (value * unit for value in matrix)
    return a, b, 0, c, d, 0, 0, 0, 1 << 30


@pytest.mark.parametrize("matrix", MATRICES)
def test_every_orientation_of_a_display_matrix(matrix: tuple[int, ...]) -> None:
    pixels = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    np.testing.assert_array_equal(displayed(pixels, nine(matrix)), placed(pixels, matrix))


@pytest.mark.parametrize("matrix", [(0, 0, 0, 0), (1, 0, 0, 0), (0, 0, 0, 1), (1, 1, 1, 1), (0, 1, 0, 0)])
def test_a_matrix_that_shows_nothing_counts_as_none(matrix: tuple[int, ...]) -> None:
    pixels = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    assert displayed(pixels, nine(matrix)) is pixels


def test_the_nearest_orientation_counts() -> None:
    """Ten degrees off a quarter turn, at a scale of two."""
    pixels = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    cosine, sine = np.cos(np.radians(100)), np.sin(np.radians(100))
    matrix = nine((cosine, sine, -sine, cosine), 1 << 17)
    np.testing.assert_array_equal(displayed(pixels, matrix), placed(pixels, (0, 1, -1, 0)))


@pytest.mark.parametrize("matrix", [*MATRICES, (0, 0, 0, 0)])
def test_recordings_are_shown_as_their_matrix_says(tmp_path: Path, matrix: tuple[int, ...]) -> None:
    """The track header's matrix, ISO/IEC 14496-12 section 8.3.2, in a file whose upper left corner is red."""
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:32, :48], pixels[32:, 48:] = COLOURS[0], COLOURS[1]
    writer = VideoWriter(tmp_path / "a.mp4")
    writer.write(pixels, 0)
    writer.close()
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    place = data.index(struct.pack(">9i", *nine(IDENTITY)), data.rindex(b"tkhd"))
    data[place : place + 36] = struct.pack(">9i", *nine(matrix))
    (tmp_path / "a.mp4").write_bytes(data)
    (picture,), _, _ = read_all(open_source(str(tmp_path / "a.mp4")))
    wanted = placed(pixels, matrix) if any(matrix) else pixels
    assert picture.shape == wanted.shape
    assert np.abs(picture.astype(int) - wanted).mean() < 10


@pytest.mark.parametrize("content", [b"", b"no video" * 100, bytes(5000)])
def test_an_unreadable_video(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    source = open_source(str(tmp_path / "a.mp4"))
    with pytest.raises(SourceError, match=r"a\.mp4: expected a video that FFmpeg reads, found: ") as error:
        source.open()
    assert "\n" not in str(error.value)


def test_a_truncated_video_gives_what_is_there(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", count=60, size=(128, 128))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    pictures, _, _ = read_all(open_source(str(path)))
    assert 5 < len(pictures) < 60


def test_damaged_pictures_are_told_apart_from_the_end(tmp_path: Path) -> None:
    """An AVI of JPEG pictures, a third of which are overwritten."""
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for number in range(9):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(coloured(number), format="rgb24")))
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    place = -1
    for number in range(9):
        place = data.index(b"\xff\xd8\xff", place + 1)
        if number % 3 == 1:
            end = data.index(b"\xff\xd9", place)
            data[place:end] = b"x" * (end - place)
    path.write_bytes(data)
    pictures, _, bad = read_all(open_source(str(path)))
    assert (len(pictures), bad) == (6, 3)


def test_a_sound_file_has_no_pictures(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(SourceError, match="without pictures in it"):
        open_source(str(tmp_path / "a.wav")).open()


def test_no_camera() -> None:
    if sys.platform != "linux" or Path("/dev/video63").exists():
        pytest.skip("a camera may be there")
    with pytest.raises(SourceError, match="camera:63: expected a camera or stream that answers, found: No such file"):
        open_source("camera:63").open()


def test_a_port_where_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(SourceError, match="Connection refused"):
        open_source(f"rtsp://127.0.0.1:{port}/live").open()


def transport_stream(first: int, count: int) -> bytes:
    """MPEG-TS of pictures that are red, green, blue, ..., each a key frame."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 96, 64, "yuv420p", 1
        for number in range(first, first + count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(coloured(number), format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


class RtspCamera:
    """A camera that speaks RTSP (RFC 2326) with MPEG-TS in RTP (RFC 2250) over the same connection.

    Each connection gets the next of `recordings` and is then cut, as by a pulled plug; after the last one, nobody
    answers.
    """

    def __init__(self, *recordings: bytes) -> None:
        self.recordings = list(recordings)
        self.server = socket.socket()
        self.server.bind(("127.0.0.1", 0))
        self.server.listen()
        self.url = f"rtsp://127.0.0.1:{self.server.getsockname()[1]}/live"
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        for recording in self.recordings:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as talk:
                self.talk(talk, recording)
        self.server.close()

    def talk(self, talk: Any, recording: bytes) -> None:
        while line := talk.readline().decode():
            method = line.split()[0]
            headers = {}
            while (entry := talk.readline().decode().strip()) != "":
                name, _, value = entry.partition(":")
                headers[name.lower()] = value.strip()
            extra, body = "", ""
            if method == "DESCRIBE":
                body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:v\r\n"
                extra = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
            elif method == "SETUP":
                extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 7\r\n"
            answer = f"RTSP/1.0 200 OK\r\nCSeq: {headers['cseq']}\r\n{extra}\r\n{body}"
            talk.write(answer.encode())
            talk.flush()
            if method == "PLAY":
                break
        for number, start in enumerate(range(0, len(recording), 7 * 188)):
            part = recording[start : start + 7 * 188]
            packet = bytes([0x80, 33]) + number.to_bytes(2, "big") + (number * 90).to_bytes(4, "big") + bytes(4) + part
            talk.write(b"$\0" + len(packet).to_bytes(2, "big") + packet)
        talk.flush()

    def close(self) -> None:
        self.server.close()
        self.thread.join(10)


@pytest.fixture
def camera() -> Iterator[Callable[..., RtspCamera]]:
    made: list[RtspCamera] = []

    def make(*recordings: bytes) -> RtspCamera:
        made.append(RtspCamera(*recordings))
        return made[-1]

    yield make
    for entry in made:
        entry.close()


def test_an_rtsp_camera_that_is_unplugged_and_comes_back(
    session: Session, camera: Callable[..., RtspCamera], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "FIRST_WAIT", 0.05)
    # More pictures than FFmpeg looks at before it hands out the first one.
    url = camera(transport_stream(0, 90), transport_stream(0, 90)).url
    notices: list[str] = []
    stream = Stream(session, open_source(url), policy="every", retries=2, notice=notices.append)
    assert stream.source.live
    seen: list[str] = []
    with pytest.raises(SourceError, match="Connection refused"):
        for entry in stream:
            seen.append(entry.result.label)
    assert len(seen) > 100
    assert set(seen) == set(LABELS)
    assert stream.metrics.snapshot().reconnections == 1
    assert len(notices) == 4 - 1
    assert session(coloured(1)).label == "green thing"


@pytest.mark.skipif("lavfi" not in av.formats_available, reason="this FFmpeg has no virtual camera")
def test_a_virtual_camera_of_ffmpeg_drops_what_is_late_and_is_opened_again(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device that FFmpeg makes up delivers pictures in real time, as a camera's driver does, and then is gone."""
    monkeypatch.setattr(stream_module, "FIRST_WAIT", 0.01)
    source = VideoSource(
        "smptebars=size=1280x720:rate=60:duration=0.6,realtime", "camera:virtual", live=True, device="lavfi"
    )
    notices: list[str] = []
    stream = Stream(session, source, policy="latest", limit=12, notice=notices.append)
    names = []
    for entry in stream:
        assert (entry.source_frame.frame.height, entry.source_frame.frame.width) == (720, 1280)
        names.append(entry.source_frame.name)
        time.sleep(0.08)
    snapshot = stream.metrics.snapshot()
    assert snapshot.frames == len(names) == 12
    assert snapshot.reconnections >= 1
    assert snapshot.dropped >= 12
    assert any("camera:virtual" in text and "opening it again" in text for text in notices)


def test_without_pyav_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[camera\]'"):
        open_source(str(path)).open()
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[camera\]'"):
        VideoWriter(tmp_path / "b.mp4")


def test_pictures_that_would_take_too_much_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4")
    monkeypatch.setattr(module, "_MAX_PIXELS", 64 * 96)
    assert len(read_all(open_source(path))[0]) == 9
    monkeypatch.setattr(module, "_MAX_PIXELS", 64 * 96 - 1)
    with pytest.raises(SourceError, match=r"a\.mp4: expected pictures of at most 6143 pixels, found 96x64$"):
        open_source(path).open()


def test_files_are_closed(tmp_path: Path) -> None:
    import os

    source = VideoSource(str(write_video(tmp_path / "a.mp4")), "a", live=False)
    read_all(source)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        read_all(source)
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208

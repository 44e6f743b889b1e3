"""Recordings that were cut off, made and cut here: what is there is read, and the run says what is missing."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgex.runtime import ImageError, Session, SourceError, Stream, open_source
from servers import Server, answer
from streams import jpeg

av = pytest.importorskip("av")

COUNT = 40
FORMATS: dict[str, tuple[str, str, dict[str, str], dict[str, str]]] = {
    # name: container, codec, options of the container, options of the codec
    "a.mp4": ("mp4", "mpeg4", {}, {}),
    "index first.mp4": ("mp4", "mpeg4", {"movflags": "faststart"}, {}),
    "fragments.mp4": ("mp4", "mpeg4", {"movflags": "empty_moov+default_base_moof", "frag_duration": "1000000"}, {}),
    "a.mkv": ("matroska", "mpeg4", {}, {}),
    "reordered.mkv": ("matroska", "mpeg4", {}, {"bf": "2"}),
    "a.avi": ("avi", "mpeg4", {}, {}),
    "jpegs.avi": ("avi", "mjpeg", {}, {}),
    "a.ts": ("mpegts", "mpeg2video", {}, {}),
}


def record(path: Path, *, sound: float = 0.0, count: int = COUNT, times: np.ndarray | None = None) -> Path:
    """A video of noise, each picture large enough to be cut in two.

    sound: seconds of silence beside it. times: when pictures begin, in seconds; defaults to ten a second.
    """
    name, codec, options, codec_options = FORMATS[path.name]
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", format=name, options=options) as container:
        stream = container.add_stream(codec, rate=10, options=codec_options)
        stream.width, stream.height = 96, 64
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        silence = container.add_stream("aac", rate=8000, layout="mono") if sound else None
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(count):
            pixels = rng.integers(0, 256, (8, 12, 3), np.uint8).repeat(8, 0).repeat(8, 1)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.pts = round(1000 * times[number])
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if silence is not None:
            for _ in range(int(8 * sound)):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), "fltp", "mono")
                frame.sample_rate = 8000
                container.mux(silence.encode(frame))
            container.mux(silence.encode(None))
    return path


def read(path: str | Path) -> tuple[int, list[str]]:
    """How many pictures a source gives, and what it says of the others."""
    source = open_source(path)
    source.open()
    pictures = 0
    messages: list[str] = []
    while True:
        try:
            if source.read() is None:
                return pictures, messages
            pictures += 1
        except ImageError as error:
            messages.append(str(error))


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_recording_ends_without_a_word(tmp_path: Path, name: str) -> None:
    assert read(record(tmp_path / name)) == (COUNT, [])


@pytest.mark.parametrize("name", ["index first.mp4", "a.mkv", "fragments.mp4"])
def test_sound_that_is_longer_than_the_pictures(tmp_path: Path, name: str) -> None:
    assert read(record(tmp_path / name, sound=6.0)) == (COUNT, [])


@pytest.mark.parametrize("name", ["a.mp4", "index first.mp4", "fragments.mp4", "a.mkv", "a.avi", "jpegs.avi"])
@pytest.mark.parametrize("first", [0.0, 10.0])
def test_pictures_that_last_unequally_long(tmp_path: Path, name: str, first: float) -> None:
    times = first + np.cumsum(np.random.default_rng(0).uniform(0.02, 3, COUNT))
    assert read(record(tmp_path / name, times=times)) == (COUNT, [])


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "a.mp4"])
def test_a_recording_that_was_cut_off(tmp_path: Path, name: str, share: float) -> None:
    path = record(tmp_path / name)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    pictures, messages = read(path)
    assert 0 < pictures < COUNT
    if name == "a.ts":
        # Nothing in it says how long it is, and its last packet is no picture.
        return
    assert messages[-1].startswith(f"{path}: the video ends early: ")
    if name in ("index first.mp4", "a.avi", "jpegs.avi"):
        assert messages[-1].endswith(f": {pictures} of {COUNT} pictures")


@pytest.mark.parametrize("name", ["index first.mp4", "a.mkv", "a.avi"])
def test_a_recording_that_was_cut_between_two_pictures(tmp_path: Path, name: str) -> None:
    path = record(tmp_path / name)
    with av.open(str(path)) as container:
        ends = [packet.pos + packet.size for packet in container.demux(video=0) if packet.size]
    data = path.read_bytes()
    for kept in (2, COUNT - 1):
        path.write_bytes(data[: ends[kept - 1]])
        pictures, messages = read(path)
        # Matroska's last picture is lost with its end.
        assert kept - 1 <= pictures <= kept
        assert [message.startswith(f"{path}: the video ends early: ") for message in messages] == [True]


def test_two_of_three_pictures(session: Session, tmp_path: Path) -> None:
    path = record(tmp_path / "a.avi", count=3)
    path.write_bytes(path.read_bytes().replace(b"01dc", b"00dc"))
    with av.open(str(path)) as container:
        ends = [packet.pos + packet.size for packet in container.demux(video=0) if packet.size]
    path.write_bytes(path.read_bytes()[: ends[1]])
    notices: list[str] = []
    stream = Stream(session, open_source(path), notice=notices.append)
    assert len(list(stream)) == 2
    assert notices == [f"{path}: the video ends early: 2 of 3 pictures"]
    assert stream.metrics.snapshot().unusable == 1


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_an_index_at_the_end_that_is_missing(tmp_path: Path, share: float) -> None:
    path = record(tmp_path / "a.mp4")
    size = int(share * path.stat().st_size)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(SourceError, match=f"found: the file ends early, after {size} bytes and before the end of its"):
        open_source(path).open()


def test_a_file_that_ends_in_the_head_of_a_fragment(tmp_path: Path) -> None:
    """FFmpeg does not open it."""
    path = record(tmp_path / "fragments.mp4")
    size = path.read_bytes().rindex(b"moof") + 40
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(SourceError, match=f"found: the file ends early, after {size} bytes$"):
        open_source(path).open()


def test_an_avi_without_pictures(tmp_path: Path) -> None:
    path = record(tmp_path / "a.avi")
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(SourceError, match=rf"found: the file ends early: 3000 of {whole} bytes"):
        open_source(path).open()


@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
@pytest.mark.parametrize("place", [2, 4])
def test_a_broken_jpeg_among_others_costs_only_itself(tmp_path: Path, end: bytes, place: int) -> None:
    rng = np.random.default_rng(1)
    pictures = []
    for _ in range(5):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (64, 96, 3), np.uint8)).save(buffer, format="JPEG")
        pictures.append(buffer.getvalue())
    pictures[place] = pictures[place][: len(pictures[place]) // 2] + end
    path = tmp_path / "a.mjpeg"
    path.write_bytes(b"".join(pictures))
    assert read(path) == (
        4,
        [f"{path}, picture {place + 1}: cannot be decoded: Invalid data found when processing input"],
    )


def test_jpegs_without_an_end_marker_are_whole(tmp_path: Path) -> None:
    """As some cameras send them."""
    path = tmp_path / "a.mjpeg"
    path.write_bytes(b"".join(jpeg(number)[:-2] for number in range(5)))
    assert read(path) == (5, [])


def test_a_server_that_sends_half(tmp_path: Path) -> None:
    data = record(tmp_path / "index first.mp4").read_bytes()
    for length in (len(data), None):
        with Server(answer(data[: len(data) // 2], "video/mp4", length=length)) as server:
            source = open_source(f"http://{server.address}/a.mp4")
            source.open()
            pictures, error = 0, ""
            try:
                while not error:
                    try:
                        if source.read() is None:
                            break
                        pictures += 1
                    except ImageError as found:
                        error = str(found)
            except SourceError as found:
                error = str(found)
            assert 10 < pictures < COUNT
            assert error

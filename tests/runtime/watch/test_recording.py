"""Videos that are written: they play when finished, while they are written, and after the worst."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgex.runtime import ArtefactError, UsageError, open_source
from edgex.runtime.watch import recording as module
from edgex.runtime.watch.recording import VideoWriter, unfinished
from streams import coloured, is_colour, read_all, write_video

av = pytest.importorskip("av")

SUFFIXES = [".mp4", ".mkv", ".mov"]


def playable(path: Path) -> int:
    """How many pictures of a recording play, whatever its end looks like."""
    count = 0
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            try:
                count += len(packet.decode())
            except av.FFmpegError:
                return count
    return count


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"a{suffix}", count=7, fps=10)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    pictures, times, bad = read_all(open_source(str(path)))
    assert bad == 0
    assert [is_colour(picture, number) for number, picture in enumerate(pictures)] == [True] * 7
    assert pictures[0].shape == (64, 96, 3)
    np.testing.assert_allclose(times, np.arange(7) / 10, atol=0.002)


def test_browsers_play_it(tmp_path: Path) -> None:
    if "libx264" not in av.codecs_available:
        pytest.skip("this FFmpeg has no H.264 encoder")
    with av.open(str(write_video(tmp_path / "a.mp4"))) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")


def test_odd_and_changing_sizes_fit_into_the_first(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mkv")
    for number, size in enumerate([(65, 97), (64, 96), (32, 96), (300, 20)]):
        writer.write(coloured(number, size), number / 10)
    writer.close()
    pictures, _, _ = read_all(open_source(str(tmp_path / "a.mkv")))
    assert [picture.shape for picture in pictures] == [(64, 96, 3)] * 4
    # A wide picture is padded above and below.
    assert pictures[2][:10].max() < 40
    assert is_colour(pictures[2][24:40], 2)


def test_pictures_at_one_time_follow_each_other(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mkv")
    for number in range(4):
        writer.write(coloured(number), 0.5)
    writer.close()
    assert len(read_all(open_source(str(tmp_path / "a.mkv")))[0]) == 4


def test_a_video_of_nothing_is_no_file(tmp_path: Path) -> None:
    VideoWriter(tmp_path / "a.mp4").close()
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.mp4, \.mkv, \.mov, found"):
        VideoWriter(tmp_path / "a.gif")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_recorded_plays_before_it_is_finished(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    writer = VideoWriter(path)
    for number in range(45):
        writer.write(coloured(number), number / 10)
    (temporary,) = unfinished(path)
    assert temporary.name.startswith(f".a{suffix}.")
    shutil.copy(temporary, tmp_path / "copy")
    # At ten pictures a second.
    assert playable(tmp_path / "copy") >= (25 if suffix == ".mkv" else 44)
    writer.close()
    assert unfinished(path) == []
    assert playable(path) == 45


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_a_finished_file_has_an_ordinary_index(tmp_path: Path, suffix: str) -> None:
    with av.open(str(write_video(tmp_path / f"a{suffix}", count=30, fps=10))) as container:
        stream = container.streams.video[0]
        assert stream.frames == 30
        assert float(stream.duration * stream.time_base) == pytest.approx(3, abs=0.1)


class FullDisk(module._File):
    """Takes half of the write that goes past 20,000 bytes, and everything again after that one."""

    full = False

    def write(self, data: bytes) -> int:
        if not self.full and self.tell() + len(data) > 20_000:
            self.full = True
            super().write(data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return super().write(data)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_keeps_what_was_recorded(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_File", FullDisk)
    path, rng = tmp_path / f"a{suffix}", np.random.default_rng(0)
    writer = VideoWriter(path)
    with pytest.raises(ArtefactError) as error:
        for number in range(1000):
            noise = rng.integers(0, 256, (8, 12, 3), np.uint8).repeat(8, 0).repeat(8, 1)
            writer.write(noise, number / 10)
    assert str(error.value) == (
        f"cannot write {path} (No space left on device): what was recorded before is in it, free space or choose "
        "another folder"
    )
    writer.close()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_size <= 20_000
    assert playable(path) >= 10


def test_a_disk_that_was_full_before_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FullDisk, "tell", lambda self: 20_000)
    monkeypatch.setattr(module, "_File", FullDisk)
    writer = VideoWriter(tmp_path / "a.mp4")
    with pytest.raises(ArtefactError, match="No space left on device.*nothing was written"):
        for number in range(100):
            writer.write(coloured(number), number / 10)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_removed_meanwhile(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out" / "a.mp4")
    with pytest.raises(ArtefactError, match=r"cannot write .*a\.mp4 \(the file or its folder was removed meanwhile\)"):
        for number in range(100):
            writer.write(coloured(number), number / 10)
            if number == 15:
                shutil.rmtree(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_names_of_unfinished_recordings(tmp_path: Path) -> None:
    for name in (
        ".a.mp4.0123abcd.part",
        ".b.mp4.0123abcd.part",
        ".a.mp4.part",
        "a.mp4",
        ".a.mp4.0123abcd-0123abcd.part",
    ):
        (tmp_path / name).touch()
    assert unfinished(str(tmp_path / "a.mp4")) == [tmp_path / ".a.mp4.0123abcd.part"]
    assert unfinished(tmp_path / "absent" / "a.mp4") == []

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgex.runtime import EdgexError, ImageError, SourceError, UsageError, open_source
from edgex.runtime.watch.sources.folder import FolderSource
from edgex.runtime.watch.sources.pipe import PipeSource
from edgex.runtime.watch.sources.video import VideoSource
from streams import coloured, write_video


def test_a_folder_is_read_to_the_bottom_in_order(tmp_path: Path) -> None:
    for number, name in enumerate(("b/2.png", "a.PNG", "b/10.jpg", "c.txt", "d.jpeg")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if name.endswith("txt"):
            (tmp_path / name).write_text("no picture")
        else:
            Image.fromarray(coloured(number)).save(tmp_path / name)
    (tmp_path / "d.jpeg").write_bytes(b"no picture")
    source = open_source(str(tmp_path))
    assert isinstance(source, FolderSource)
    assert not source.live
    for _ in range(2):
        source.open()
        names = []
        for _ in range(3):
            shot = source.read()
            assert shot is not None
            names.append(Path(shot.name).relative_to(tmp_path).as_posix())
            pixels = shot.frame.rgb()
        assert names == ["a.PNG", "b/10.jpg", "b/2.png"]
        np.testing.assert_array_equal(pixels, coloured(0))
        with pytest.raises(ImageError, match="cannot identify"):
            source.read()
        assert source.read() is None
        source.close()


def test_one_picture(tmp_path: Path) -> None:
    Image.fromarray(coloured(1)).save(tmp_path / "a.png")
    source = open_source(str(tmp_path / "a.png"))
    source.open()
    shot = source.read()
    assert shot is not None
    assert shot.time is None
    assert source.read() is None


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    source = open_source(tmp_path)
    with pytest.raises(SourceError, match=r"expected pictures \(\.avif, \.bmp, .*\) in .*, found none"):
        source.open()


@pytest.mark.parametrize(
    "name, found",
    [
        ("nothing.jpg", "nothing"),
        ("nothing.mp4", "nothing"),
        ("a" * 300, "File name too long"),
        ("a" * 300 + ".jpg", ""),
    ],
)
@pytest.mark.parametrize("follow", [False, True])
def test_a_path_without_a_file(tmp_path: Path, name: str, found: str, follow: bool) -> None:
    with pytest.raises(EdgexError, match=f"expected .*, found {found}") as caught:
        open_source(tmp_path / name, follow=follow)
    assert caught.value.argument == ("follow" if follow else "source")


def test_a_pipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Image.fromarray(coloured(1)).save(tmp_path / "a.png")
    with (tmp_path / "a.png").open() as given:
        monkeypatch.setattr(sys, "stdin", given)
        source = open_source("-")
        assert isinstance(source, PipeSource)
        shot = source.read()
        assert shot is not None
        np.testing.assert_array_equal(shot.frame.rgb(), coloured(1))
        assert source.read() is None
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SourceError, match="on standard input, found it closed"):
        open_source("-")


def test_a_file_named_by_a_url_ends(tmp_path: Path) -> None:
    pytest.importorskip("av")
    source = open_source(write_video(tmp_path / "a.mp4", count=2).as_uri())
    assert not source.live
    source.open()
    assert [source.read() is None for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(
    "platform, name, url, device",
    [
        ("linux", "camera:0", "/dev/video0", "v4l2"),
        ("linux", "camera:/dev/video7", "/dev/video7", "v4l2"),
        ("darwin", "camera:1", "1", "avfoundation"),
        ("win32", "camera:Integrated Camera", "video=Integrated Camera", "dshow"),
        ("linux", "rtsp://10.0.0.2/live", "rtsp://10.0.0.2/live", None),
        ("linux", "HTTP://10.0.0.2/mjpeg", "HTTP://10.0.0.2/mjpeg", None),
    ],
)
def test_live_sources(monkeypatch: pytest.MonkeyPatch, platform: str, name: str, url: str, device: str | None) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    source = open_source(name)
    assert isinstance(source, VideoSource)
    assert source.live
    assert (source._url, source._device, source.name) == (url, device, name)
    assert source._options == ({"rtsp_transport": "tcp"} if name.startswith("rtsp") else {})


@pytest.mark.parametrize("name", ["https://example.org/a/door.MP4?key=1", "file:///tmp/door.mp4"])
def test_a_url_of_a_whole_video_is_not_live(name: str) -> None:
    assert not open_source(name).live


def test_passwords_stay_out_of_names_and_errors() -> None:
    source = open_source("rtsp://user:s3cret@10.0.0.2:554/live?pwd=s3cret")
    assert isinstance(source, VideoSource)
    assert source.name == "rtsp://10.0.0.2:554/live"
    assert source._url == "rtsp://user:s3cret@10.0.0.2:554/live?pwd=s3cret"
    pytest.importorskip("av")
    for url in ("rtsp://user:s3cret@127.0.0.1:9/live", "http://127.0.0.1:9/videostream.cgi?usr=admin&pwd=s3cret"):
        with pytest.raises(SourceError, match="Connection refused") as error:
            open_source(url).open()
        assert "s3cret" not in str(error.value)


def test_a_url_that_cannot_be_taken_apart() -> None:
    with pytest.raises(UsageError, match=r"expected a URL such as .*, found rtsp://\.\.\.$") as error:
        open_source("rtsp://user:s3cret@[10.0.0.2/live")
    assert error.value.argument == "source"


def test_names_that_mean_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"expected camera:0, a URL .* found nothing at '.*none\.mp4'"):
        open_source(str(tmp_path / "none.mp4"))
    with pytest.raises(UsageError, match="no number after the colon"):
        open_source("camera:")
    monkeypatch.setattr(sys, "platform", "sunos5")
    with pytest.raises(UsageError, match="found sunos5"):
        open_source("camera:0")

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngInfo

from edgex.runtime import ImageError, UsageError
from edgex.runtime import frames as module
from edgex.runtime.frames import as_frame, decode_picture, read_picture

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)


def test_array_picture_and_path_give_the_same_pixels(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    for source in (PIXELS, Image.fromarray(PIXELS), tmp_path / "a.png", str(tmp_path / "a.png")):
        frame = as_frame(source)
        assert (frame.height, frame.width) == (7, 9)
        assert np.array_equal(frame.rgb(), PIXELS)
        assert np.array_equal(frame.region(2, 5, 1, 4), PIXELS[2:5, 1:4])


def test_a_frame_passes_through() -> None:
    frame = as_frame(PIXELS)
    assert as_frame(frame) is frame


def test_bgr_arrays_are_turned_round() -> None:
    assert np.array_equal(as_frame(PIXELS[..., ::-1], "bgr").rgb(), PIXELS)


def test_bgr_does_not_touch_files_and_pictures(tmp_path: Path) -> None:
    assert np.array_equal(as_frame(Image.fromarray(PIXELS), "bgr").rgb(), PIXELS)


def test_alpha_of_arrays_is_dropped() -> None:
    rgba = np.dstack([PIXELS, np.full(PIXELS.shape[:2], 3, np.uint8)])
    assert np.array_equal(as_frame(rgba).rgb(), PIXELS)
    assert np.array_equal(as_frame(rgba[..., [2, 1, 0, 3]], "bgr").rgb(), PIXELS)


@pytest.mark.parametrize("grey", [PIXELS[..., 0], PIXELS[..., :1]])
def test_grey_arrays_are_spread_over_the_channels(grey: np.ndarray) -> None:
    assert np.array_equal(as_frame(grey).rgb(), np.repeat(PIXELS[..., :1], 3, axis=2))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "RGBX", "PA"])
def test_modes_of_pictures_convert_as_pillow_does(mode: str) -> None:
    image = Image.fromarray(PIXELS).convert("L" if mode == "LA" else "RGB")
    image = image.convert("P").convert("PA") if mode == "PA" else image.convert(mode)
    assert np.array_equal(as_frame(image).rgb(), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("transparency", [3, bytes(range(16))])
def test_transparent_palettes_convert_without_warning(tmp_path: Path, transparency: int | bytes) -> None:
    image = Image.fromarray(PIXELS).convert("P")
    wanted = np.asarray(image.convert("RGB"))
    image.save(tmp_path / "a.png", transparency=transparency)
    assert np.array_equal(as_frame(tmp_path / "a.png").rgb(), wanted)


def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path) -> None:
    deep = np.array([[0, 128, 257, 32768, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", Image.fromarray(deep), Image.fromarray(deep.astype(np.int32))):
        assert as_frame(source).rgb()[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    wanted = np.rot90(PIXELS, -1)
    frame = as_frame(tmp_path / "a.png")
    assert (frame.height, frame.width) == (9, 7)
    assert np.array_equal(frame.rgb(), wanted)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_picture_turns_and_mirrors_as_exif_says(tmp_path: Path, orientation: int) -> None:
    """The eight orientations of the EXIF specification: what lies in row 0 and column 0 of the stored picture."""
    upright = {
        1: PIXELS,
        2: PIXELS[:, ::-1],
        3: PIXELS[::-1, ::-1],
        4: PIXELS[::-1],
        5: PIXELS.transpose(1, 0, 2),
        6: PIXELS[::-1].transpose(1, 0, 2),
        7: PIXELS[::-1, ::-1].transpose(1, 0, 2),
        8: PIXELS[:, ::-1].transpose(1, 0, 2),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    pixels = read_picture(str(tmp_path / "a.png"))
    np.testing.assert_array_equal(pixels, upright[orientation])


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "I;16"])
def test_read_picture_gives_bytes_of_its_own(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
        wanted = np.repeat(PIXELS[..., :1], 3, axis=2)
    else:
        image = Image.fromarray(PIXELS).convert("L" if mode == "LA" else "RGB").convert(mode)
        wanted = np.asarray(image.convert("RGB"))
    image.save(tmp_path / "a.png")
    pixels = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels, wanted)
    assert pixels.dtype == np.uint8 and pixels.flags.writeable and pixels.flags.c_contiguous


def test_the_first_picture_of_an_animation_counts(tmp_path: Path) -> None:
    first, second = Image.new("P", (4, 4), 0), Image.new("P", (4, 4), 1)
    for image in (first, second):
        image.putpalette([255, 0, 0, 0, 255, 0])
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert (as_frame(tmp_path / "a.gif").rgb() == (255, 0, 0)).all()


@pytest.mark.parametrize(
    "source, words",
    [
        (np.zeros((4, 4, 3), np.float32), "scale it to 0..255"),
        (np.full((4, 4, 3), np.nan), "float64 with NaN"),
        (np.zeros((4, 4, 3), np.uint16), "uint16; scale the camera's bit depth"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.zeros((4, 4, 3), bool), "bool"),
        (np.zeros((0, 4, 3), np.uint8), "at least 1x1 pixels, found 0x4x3"),
        (np.zeros((4, 0, 3), np.uint8), "4x0x3"),
        (np.zeros((4, 4, 2), np.uint8), "1, 3 or 4 channels"),
        (np.zeros((3, 40, 50), np.uint8), "transpose it to height x width x channels"),
        (np.zeros((2, 4, 4, 3), np.uint8), "pass a batch as a list"),
        (np.zeros(4, np.uint8), "found 4"),
        (np.array(4, np.uint8), "a scalar"),
        (Image.new("F", (3, 3)), "PIL mode F"),
        (Image.new("I", (3, 3), 70000), "16-bit values 0 to 65535"),
        (Image.new("I", (3, 3), -1), "found -1 to -1"),
        (Image.new("La", (3, 3)), "PIL mode La"),
        (Image.new("RGB", (0, 3)), "at least 1x1"),
        (None, "NoneType"),
        (b"bytes", "bytes"),
        ([[0]], "list"),
    ],
)
def test_unusable_frames_are_refused(source: object, words: str) -> None:
    with pytest.raises(ImageError, match=words) as error:
        as_frame(source)
    assert "\n" not in str(error.value)


def test_unknown_channel_order_is_refused() -> None:
    with pytest.raises(UsageError, match="'rgb' or 'bgr', found 'gbr'"):
        as_frame(PIXELS, "gbr")  # type: ignore[arg-type]


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="found nothing"):
        as_frame(tmp_path / "none.png")
    with pytest.raises(ImageError, match="found a folder"):
        as_frame(tmp_path)
    with pytest.raises(ImageError, match="found the pattern of an image sequence"):
        as_frame(tmp_path / "frame_%04d.png")


def test_a_file_that_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(ImageError, match="cannot identify"):
        as_frame(tmp_path / "a.jpg")


def test_a_truncated_picture(tmp_path: Path) -> None:
    Image.fromarray(np.repeat(np.repeat(PIXELS, 20, 0), 20, 1)).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"a\.jpg: cannot be decoded"):
        as_frame(tmp_path / "a.jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(ImageError, match=r"a\.png"):
        as_frame(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(20_000, 20_000), (13_000, 14_000)])
def test_a_huge_file_is_refused_before_it_is_decoded(tmp_path: Path, size: tuple[int, int]) -> None:
    """The header says the size; the pixels are not there at all, so decoding them would fail otherwise."""
    Image.new("1", (8, 8)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    header = size[0].to_bytes(4, "big") + size[1].to_bytes(4, "big") + data[24:29]
    check = zlib.crc32(b"IHDR" + header).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data[:16] + header + check + data[33:])
    with pytest.raises(ImageError, match="at most 178956970 pixels, found"):
        as_frame(tmp_path / "a.png")


def claiming(width: int, height: int, colour: int) -> bytes:
    """The beginning of a PNG file: a header, and next to no pixels. colour: 0 grey, 2 RGB, 6 RGBA."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, colour, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("colour, most", [(2, 134_217_728), (6, 134_217_728), (0, 178_956_970)])
def test_memory_is_known_before_it_is_taken(tmp_path: Path, colour: int, most: int) -> None:
    (tmp_path / "a.png").write_bytes(claiming(1, most + 1, colour))
    for source in (tmp_path / "a.png", str(tmp_path / "a.png")):
        tracemalloc.start()
        try:
            with warnings.catch_warnings(action="ignore"), pytest.raises(ImageError) as error:
                as_frame(source)
            assert tracemalloc.get_traced_memory()[1] < 1e6
        finally:
            tracemalloc.stop()
        # Pillow itself refuses what exceeds its own limit, and does not say by how much.
        start = f"{source}: expected at most {most} pixels, found "
        assert str(error.value) in {f"{start}{found}; scale it down first" for found in ("more", f"1x{most + 1}")}
    # What is claimed to be smaller is decoded, and found to end too early.
    (tmp_path / "b.png").write_bytes(claiming(1, 3000, colour))
    with pytest.raises(ImageError, match=r"b\.png: cannot be decoded: "):
        as_frame(tmp_path / "b.png")


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n"


def test_a_file_that_pillow_would_hand_to_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cat.jpg").write_bytes(POSTSCRIPT)
    with Image.open(tmp_path / "cat.jpg") as image:
        assert image.format == "EPS", "Pillow opens it by its content"
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    for call in (as_frame, read_picture):
        with pytest.raises(ImageError, match=r"cat\.jpg: expected a picture \(JPEG, PNG, .*cannot identify as one"):
            call(tmp_path / "cat.jpg")
    with pytest.raises(ImageError, match="pipe: expected a picture"):
        decode_picture(POSTSCRIPT, "pipe")


def test_a_fresh_interpreter_reads_and_refuses_the_same(tmp_path: Path) -> None:
    """Pillow loads most of its plugins late: what is refused stays refused when they come."""
    (tmp_path / "cat.jpg").write_bytes(POSTSCRIPT)
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", format="TIFF")
    program = """
import subprocess, sys
from edgex.runtime import ImageError
from edgex.runtime.frames import read_picture
subprocess.Popen = None
try:
    read_picture(sys.argv[1])
except ImageError as error:
    print(error)
print(read_picture(sys.argv[2]).shape)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "cat.jpg"), str(tmp_path / "a.jpg")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    first, second = done.stdout.splitlines()
    assert "found a file that Pillow cannot identify as one" in first
    assert second == "(7, 9, 3)"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF"])
def test_the_formats_that_are_read(tmp_path: Path, kind: str) -> None:
    if not features.check({"JPEG2000": "jpg_2000", "AVIF": "avif", "WEBP": "webp"}.get(kind, "jpg")):
        pytest.skip("this Pillow was built without it")
    Image.fromarray(PIXELS).save(tmp_path / "a", format=kind)
    with Image.open(tmp_path / "a") as image:
        wanted = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read_picture(tmp_path / "a"), wanted)


def test_a_header_that_pillow_refuses(tmp_path: Path) -> None:
    """A text chunk that unpacks to more than Pillow takes: ValueError as soon as the file is opened."""
    text = PngInfo()
    text.add_text("a", "b" * (2 << 20), zip=True)
    Image.fromarray(PIXELS).save(tmp_path / "a.png", pnginfo=text)
    with pytest.raises(ImageError, match=r"a\.png: expected a picture .*found Decompressed data too large"):
        as_frame(tmp_path / "a.png")


@pytest.mark.parametrize(
    "error",
    [ValueError("one\ntwo"), MemoryError(), RecursionError("deep"), struct.error("short"), ZeroDivisionError("size")],
)
@pytest.mark.parametrize("where", ["open", "load", "convert"])
def test_every_failure_of_a_decoder_is_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, where: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    Image.fromarray(PIXELS).convert("CMYK").save(tmp_path / "a.jpg")
    monkeypatch.setattr(Image if where == "open" else Image.Image, where, fail)
    if where == "load":
        monkeypatch.setattr(JpegImageFile, "load", fail)
    with pytest.raises(ImageError) as caught:
        as_frame(tmp_path / "a.jpg")
    assert len(str(caught.value).splitlines()) == 1
    assert where == "convert" or (str(error).splitlines() or [type(error).__name__])[0] in str(caught.value)


def test_pixels_between_pillows_warning_and_the_limit_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    with pytest.warns(Image.DecompressionBombWarning):
        assert as_frame(tmp_path / "a.png").width == 9
    with pytest.raises(ImageError, match="scale it down first"):
        as_frame(tmp_path / "a.png")  # warnings are errors here
    monkeypatch.setattr(module, "MAX_FILE_PIXELS", 62)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match="found 9x7"):
        as_frame(tmp_path / "a.png")


def test_files_are_closed(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    kept = [as_frame(tmp_path / "a.png") for _ in range(20)]
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # noqa: PTH208
    assert len(kept) == 20

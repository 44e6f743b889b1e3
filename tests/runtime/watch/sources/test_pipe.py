from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgex import samples
from edgex.runtime import ImageError, SourceError
from edgex.runtime.watch.sources.pipe import MAX_GAP, PipeSource

RNG = np.random.default_rng(0)


class Drip(io.RawIOBase):
    """Hands out a few bytes at a time, as pipes do."""

    def __init__(self, data: bytes, step: int) -> None:
        self.data, self.step = data, step

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        part, self.data = self.data[: self.step], self.data[self.step :]
        return part


def encoded(kind: str, size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    buffer = io.BytesIO()
    pixels = RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, format=kind, **options)
    return buffer.getvalue()


def read_all(data: bytes, step: int = 1 << 16) -> list[np.ndarray | str]:
    """The pictures; messages of those that cannot be read."""
    source = PipeSource(Drip(data, step))  # type: ignore[arg-type]
    source.open()
    found: list[np.ndarray | str] = []
    while True:
        try:
            shot = source.read()
        except ImageError as error:
            found.append(str(error))
            continue
        if shot is None:
            return found
        found.append(shot.frame.rgb())


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


PICTURES = [
    encoded("JPEG"),
    encoded("PNG"),
    encoded("JPEG", progressive=True, quality=30),
    encoded("JPEG", (8, 8), restart_marker_rows=1),
    # A preview inside: a whole JPEG in a segment of the JPEG around it.
    encoded("JPEG", comment=encoded("JPEG", (16, 16))),
    encoded("PNG", (1, 1)),
]


@pytest.mark.parametrize("step", [1, 7, 1000, 1 << 16])
def test_pictures_one_behind_the_other(step: int) -> None:
    found = read_all(b"".join(PICTURES), step)
    assert len(found) == len(PICTURES)
    for picture, data in zip(found, PICTURES, strict=True):
        np.testing.assert_array_equal(picture, decoded(data))


def test_the_samples_as_cat_gives_them() -> None:
    found = read_all(b"".join(path.read_bytes() for path in samples.paths()))
    for picture, path in zip(found, samples.paths(), strict=True):
        np.testing.assert_array_equal(picture, np.asarray(Image.open(path)))


def test_multipart_headers_are_stepped_over() -> None:
    parts = (b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 9\r\n\r\n" + data + b"\r\n" for data in PICTURES)
    assert len(read_all(b"".join(parts), 100)) == len(PICTURES)


def test_a_damaged_picture_costs_only_itself() -> None:
    broken = bytearray(PICTURES[1])
    broken[45:60] = bytes(15)
    found = read_all(PICTURES[0] + bytes(broken) + PICTURES[2])
    assert [isinstance(entry, str) for entry in found] == [False, True, False]
    assert str(found[1]).startswith("standard input, picture 2: cannot be decoded")


@pytest.mark.parametrize("number", range(len(PICTURES)))
def test_a_pipe_that_ends_in_a_picture(number: int) -> None:
    found = read_all(PICTURES[0] + PICTURES[number][:-3])
    assert len(found) == 2
    assert "expected a whole picture, found the end of the pipe" in str(found[1])


def test_paths_one_a_line(tmp_path: Path) -> None:
    for number, data in enumerate(PICTURES[:2]):
        (tmp_path / f"ä {number}.img").write_bytes(data)
    lines = [os.fsencode(tmp_path / f"ä {number}.img") for number in (0, 1)]
    found = read_all(b"\r\n".join([lines[0], b"", b"none.png", lines[1]]) + b"\n" * 3000, 5)
    np.testing.assert_array_equal(found[0], decoded(PICTURES[0]))
    assert found[1] == "none.png: expected a picture file, found nothing"
    np.testing.assert_array_equal(found[2], decoded(PICTURES[1]))
    assert len(found) == 3
    assert len(read_all(lines[0])) == 1


def test_nothing_at_all() -> None:
    assert read_all(b"") == []
    assert read_all(b"\n") == []


@pytest.mark.parametrize("data", [bytes(100), b"x" * 40_000, b"GIF89a\0\0 a line\n"])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(SourceError, match="standard input: expected JPEG or PNG pictures, or one path a line"):
        read_all(data)


def test_a_gap_without_end_is_refused() -> None:
    with pytest.raises(SourceError, match="expected a JPEG or PNG picture, found"):
        read_all(PICTURES[0] + bytes(MAX_GAP + 100_000))


def test_a_picture_that_claims_to_be_huge_is_refused() -> None:
    with pytest.raises(SourceError, match="at most 256 MiB"):
        read_all(PICTURES[1][:8] + b"\x7f\xff\xff\xffIDAT" + bytes(100))


def test_a_pipe_cannot_begin_again() -> None:
    source = PipeSource(io.BytesIO(PICTURES[0]))
    source.open()
    assert source.read() is not None
    source.close()
    with pytest.raises(SourceError, match="found a pipe"):
        source.open()

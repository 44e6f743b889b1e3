"""One bad picture costs only itself and the exit code, starts no program and takes no memory to speak of.

As real processes: on a folder, on pictures and paths in a pipe, and with `edgex predict`.
"""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

import small_model
from streams import coloured, jpeg

PROGRAM = """
import atexit, pathlib, sys
status = pathlib.Path("/proc/self/status")
if status.exists():
    atexit.register(lambda: pathlib.Path("status").write_text(status.read_text()))
def refuse(event, arguments):
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"):
        raise SystemExit(f"started {arguments}")
sys.addaudithook(refuse)
from edgex.cli import main
main()
"""
MEMORY = 500 << 20
"""Bytes that each may take: the process alone takes about 90 MB."""


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG file (W3C PNG, section 5) that claims a size and holds a few bytes of pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"".join((b"\x89PNG\r\n\x1a\n", header, *chunks, pixels, chunk(b"IEND", b"")))


def good(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(coloured(number)).save(buffer, format="PNG")
    return buffer.getvalue()


BAD = {
    "bomb.png": png(1, 170_000_000),
    "text.png": png(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80 << 20), 9))),
    "half.jpg": jpeg(1, (640, 960))[:2000],
    "short.png": png(300, 300),
    "empty.png": b"",
    "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch started) (w) file\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Good, bad and good pictures."""
    small_model.write(tmp_path / "model.onnx")
    (tmp_path / "in").mkdir()
    for name, data in {"a.png": good(0), **BAD, "z.png": good(1)}.items():
        (tmp_path / "in" / name).write_bytes(data)
    return tmp_path


def run(folder: Path, *arguments: str, given: bytes = b"") -> tuple[int, list[str], list[str]]:
    """Exit code, lines of standard output, lines of standard error."""
    files = [folder / name for name in ("given", "out", "err")]
    files[0].write_bytes(given)
    with files[0].open("rb") as stdin, files[1].open("wb") as stdout, files[2].open("wb") as stderr:
        command = [sys.executable, "-c", PROGRAM, *arguments]
        code = subprocess.run(command, cwd=folder, stdin=stdin, stdout=stdout, stderr=stderr, check=False).returncode
    if (folder / "status").exists():
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", (folder / "status").read_text())
        assert 1024 * int(peak) < MEMORY
    assert not (folder / "started").exists()
    return code, files[1].read_text().splitlines(), files[2].read_text().splitlines()


@pytest.mark.parametrize("source", ["folder", "paths", "predict"])
def test_bad_pictures_among_good_ones(folder: Path, source: str) -> None:
    paths = sorted(path.relative_to(folder) for path in (folder / "in").iterdir())
    if source == "predict":
        code, out, err = run(folder, "predict", "model.onnx", "in")
    elif source == "folder":
        code, out, err = run(folder, "watch", "model.onnx", "--source", "in")
    else:
        given = "".join(f"{path}\n" for path in paths).encode()
        code, out, err = run(folder, "watch", "model.onnx", "--source", "-", given=given)
    assert code == 1
    assert [line.partition(" thing")[0] for line in out] == ["in/a.png: red", "in/z.png: green"]
    for name in BAD:
        assert sum(f"in/{name}: " in line for line in err) == 1
    assert len(err) == len(BAD) + (source != "predict")
    assert source == "predict" or f"{len(BAD)} unreadable" in err[-1]


def test_bad_pictures_in_a_pipe(folder: Path) -> None:
    bad = [BAD[name] for name in ("bomb.png", "text.png", "short.png")]
    code, out, err = run(folder, "watch", "model.onnx", "--source", "-", given=b"".join((good(0), *bad, good(1))))
    assert code == 1
    assert [line.partition(" thing")[0].rpartition(" ")[2] for line in out] == ["red", "green"]
    assert len(err) == len(bad) + 1
    assert "3 unreadable" in err[-1]


@pytest.mark.parametrize("name", ["bomb.png", "large.mjpeg"])
def test_a_video_that_claims_huge_pictures(folder: Path, name: str) -> None:
    pytest.importorskip("av")
    data = bytearray(jpeg(0))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", 20_000, 20_000)
    (folder / "large.mjpeg").write_bytes(bytes(data) * 3)
    (folder / "bomb.mkv").write_bytes(BAD["bomb.png"])
    code, out, err = run(folder, "watch", "model.onnx", "--source", name.replace(".png", ".mkv"))
    assert (code, out) == (1, [])
    assert 1 <= len(err) <= 3

"""Standard output and error: names of every kind, in terminals and redirections of every encoding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgex.cli.console import read_image_size
from edgex.errors import UsageError

ENCODINGS = ["utf-8:strict", "ascii:strict", "cp1252:strict"]
NAMES = ["Käfer", "猫 🚗", "caf\udce9", "\x1b[2J\x1b]0;title\x07", "a\u202eb\nc", "[bold]red[/nothing]"]


def run(code: str, encoding: str) -> subprocess.CompletedProcess[bytes]:
    """Code in an interpreter whose standard streams have this encoding, with `names` defined."""
    code = f"from edgex.cli import console, ending; ending.prepare_streams(); names = {NAMES!a}; {code}"
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)


def text(data: bytes, encoding: str) -> str:
    """The bytes as a terminal reads them, each character of which is safe."""
    found = data.decode(encoding.partition(":")[0])
    assert found.replace("\n", "").isprintable()
    return found


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_lines_for_people(encoding: str) -> None:
    done = run(
        "[(console.say(name), console.note(name), console.print_error(Exception(name))) for name in names]", encoding
    )
    assert done.returncode == 0, done.stderr
    said, noted = text(done.stdout, encoding).splitlines(), text(done.stderr, encoding).splitlines()
    assert noted[::2] == said
    assert said[2:4] == [r"caf\udce9", r"\x1b[2J\x1b]0;title\x07"]
    assert said[4:] == [r"a\u202eb\nc", NAMES[5]]
    assert said[0] == (r"K\xe4fer" if encoding.startswith("ascii") else "Käfer")
    assert noted[5] == r"edgex: error: caf\udce9"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tables_show_names_as_they_are(encoding: str) -> None:
    done = run("console.print_table(names[3], names[:2], [names[2:4], names[4:]])", encoding)
    assert done.returncode == 0, done.stderr
    shown = text(done.stdout, encoding)
    assert all(name in shown for name in (r"caf\udce9", r"\x1b[2J\x1b]0;title\x07", r"a\u202eb\nc", NAMES[5]))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_for_programs(encoding: str) -> None:
    done = run("console.print_json({name: name for name in names})", encoding)
    assert done.returncode == 0, done.stderr
    assert json.loads(text(done.stdout, encoding)) == {name: name for name in NAMES}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_error_about_a_name_that_is_no_utf8(encoding: str, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9\x1b[2J.onnx"
    done = subprocess.run(
        [sys.executable, "-m", "edgex", "inspect", path],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert r"caf\udce9\x1b[2J.onnx" in text(done.stderr, encoding)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("text, size", [(None, None), ("256", 256), ("256x448", (256, 448)), ("256X448", (256, 448))])
def test_image_sizes(text: str | None, size: Any) -> None:
    assert read_image_size(text) == size


@pytest.mark.parametrize("text", ["", "256x", "x256", "1x2x3", "-4", "2.5", "256 x 448", "²", "9" * 40])
def test_unusable_image_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected a size in pixels such as 256, or HEIGHTxWIDTH") as caught:
        read_image_size(text)
    assert caught.value.argument == "image_size"

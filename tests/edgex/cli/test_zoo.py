"""`edgex zoo`: paths of names and of files, the list."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from edgex.files import zoo


def test_a_name_and_an_existing_file_have_a_path(run: Callable[..., str], tmp_path: Path) -> None:
    assert run("zoo", "path", "cars").strip() == str(zoo.BUILT_IN / "cars.safetensors")
    (tmp_path / "own.safetensors").write_bytes(b"anything")
    assert run("zoo", "path", "own.safetensors").strip() == "own.safetensors"
    assert "found nothing: check the path" in run("zoo", "path", "absent.safetensors", code=1)
    assert "nothing named 'carz' in the zoo; did you mean cars?" in run("zoo", "path", "carz", code=2)


def test_the_list_says_what_each_name_is(run: Callable[..., str]) -> None:
    rows = {row["name"]: row for row in json.loads(run("zoo", "list", "--json"))}
    assert {name: row["kind"] for name, row in rows.items()} == {
        "cars": "model",
        "imagenet": "vector",
        "imagenet-1k": "self-explaining model",
    }
    assert (rows["cars"]["classes"], rows["imagenet"]["classes"]) == (196, None)
    assert all(Path(row["path"]).stat().st_size == row["bytes"] for row in rows.values())
    table = run("zoo", "list")
    assert all(name in table for name in rows)

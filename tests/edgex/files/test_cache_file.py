from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgex.errors import ArtefactError
from edgex.files import cache_file, torch_file

KIND = "test 1"


def content() -> dict[str, Any]:
    return {"weights": torch.arange(600).reshape(20, 30) / 7, "rows": [{"step": 1, "rate": (0.5, None, True)}], "n": 3}


def equal(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    return bool(first == second)


def test_what_was_saved_is_loaded_by_this_and_other_readers(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    cache_file.save(path, content(), KIND)
    assert equal(cache_file.load(path, KIND), content())
    assert equal(cache_file.find(path, KIND, pytest.fail), content())
    assert equal(torch_file.load(path), content())
    assert equal(torch.load(path, weights_only=True), content())
    # The digest is that of what stands before it.
    mark = b"edgex test 1 sha256 "
    data = path.read_bytes()
    assert zipfile.ZipFile(path).comment == mark + hashlib.sha256(data[: -len(mark) - 64]).hexdigest().encode()


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    cache_file.save(path, content(), KIND)
    with pytest.raises(AttributeError):
        cache_file.save(path, {"function": lambda: None}, KIND)
    assert equal(cache_file.load(path, KIND), content())
    assert [file.name for file in tmp_path.iterdir()] == ["c.pt"]


def test_no_damage_passes(tmp_path: Path) -> None:
    """Every kind of damage, wherever it lies, is refused in one line before a tensor is read."""
    path = tmp_path / "c.pt"
    cache_file.save(path, content(), KIND)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    damaged = [whole[:length] for length in (0, 1, 22, 83, 84, 85, len(whole) // 2, len(whole) - 1)]
    damaged += [whole + b"\0", b"\0" + whole, whole[: len(whole) // 2] + whole[len(whole) // 2 + 64 :]]
    for place in generator.choice(len(whole), 300, replace=False):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << generator.integers(8)
        damaged.append(bytes(flipped))
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(
            ArtefactError, match=r"c\.pt is (damaged|no file of edgex's of the kind 'test 1')"
        ) as caught:
            cache_file.load(path, KIND)
        assert "\n" not in str(caught.value)


def test_foreign_files_are_made_anew_with_one_line(tmp_path: Path) -> None:
    torch.save(content(), tmp_path / "earlier.pt")
    cache_file.save(tmp_path / "other kind.pt", content(), "other 1")
    cache_file.save(tmp_path / "later.pt", content(), "test 11")
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "folder.pt").mkdir()
    for path in tmp_path.iterdir():
        said: list[str] = []
        assert cache_file.find(path, KIND, said.append) is None
        assert len(said) == 1 and said[0].startswith(str(path)) and said[0].endswith(": it is made anew")
    assert cache_file.find(tmp_path / "absent.pt", KIND, pytest.fail) is None

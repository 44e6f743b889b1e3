from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgex.runtime import ArtefactError, Session
from edgex.runtime.metadata import load
from edgex.runtime.metadata_update import update_metadata

CALIBRATION = {"data": "val", "pictures": 40, "temperature": 2.0}
TENSORRT = {"package": "tensorrt_rtx", "version": "1.2.3", "compute_capabilities": ["8.9"]}


def test_only_the_entry_of_an_onnx_file_changes(model_path: Path, frame: np.ndarray) -> None:
    before, was = onnx.load(model_path), Session(model_path, "cpu", threads=1)(frame)
    metadata = update_metadata(model_path, {"calibration": CALIBRATION})
    assert metadata.calibration is not None and metadata.calibration.temperature == 2
    after = onnx.load(model_path)
    assert after.graph == before.graph and after.opset_import == before.opset_import
    entries = {entry.key: entry.value for entry in after.metadata_props}
    assert entries["other"] == "entry" and json.loads(entries["edgex"])["calibration"] == CALIBRATION
    assert np.array_equal(Session(model_path, "cpu", threads=1)(frame).logits, was.logits)


def test_again_and_to_another_file(model_path: Path, tmp_path: Path) -> None:
    content = model_path.read_bytes()
    first = update_metadata(model_path, {"calibration": CALIBRATION}, tmp_path / "a.onnx")
    assert model_path.read_bytes() == content, "the file it came from stays"
    second = update_metadata(tmp_path / "a.onnx", {"calibration": None}, tmp_path / "b.onnx")
    third = update_metadata(tmp_path / "b.onnx", {"calibration": CALIBRATION}, tmp_path / "c.onnx")
    assert first.file_sha256 == third.file_sha256 != second.file_sha256
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "c.onnx").read_bytes()


@pytest.mark.skipif(os.name != "posix", reason="permissions and links of POSIX")
def test_the_file_behind_a_link_is_replaced_and_keeps_its_permissions(model_path: Path, tmp_path: Path) -> None:
    model_path.chmod(0o640)
    link = tmp_path / "folder" / "newest.onnx"
    link.parent.mkdir()
    link.symlink_to(model_path)
    update_metadata(link, {"calibration": {"data": "val", "pictures": 40}})
    assert link.is_symlink() and stat.S_IMODE(model_path.stat().st_mode) == 0o640
    calibration = load(model_path)[0].calibration
    assert calibration is not None and calibration.pictures == 40


def test_an_engine_keeps_its_plan_and_keys_of_other_versions(
    tmp_path: Path, make_metadata: Callable[..., dict[str, Any]], seal_file: Callable[[bytes], bytes]
) -> None:
    text = json.dumps(make_metadata(tensorrt=TENSORRT, of_tomorrow="ä")).encode()
    path = tmp_path / "model.engine"
    path.write_bytes(seal_file(len(text).to_bytes(4, "little") + text + b"plan \0 bytes"))
    update_metadata(path, {"calibration": CALIBRATION})
    metadata, plan = load(path)
    assert plan == b"plan \0 bytes" and metadata.calibration is not None
    assert '"of_tomorrow": "ä"'.encode() in path.read_bytes()


def test_a_damaged_file_and_a_change_that_the_contract_refuses_write_nothing(model_path: Path) -> None:
    content = model_path.read_bytes()
    with pytest.raises(ArtefactError, match="calibration.temperature: expected a number above 0"):
        update_metadata(model_path, {"calibration": {**CALIBRATION, "temperature": 0}})
    assert model_path.read_bytes() == content
    model_path.write_bytes(content[:-200] + bytes([content[-200] ^ 1]) + content[-199:])
    with pytest.raises(ArtefactError, match="damaged"):
        update_metadata(model_path, {"calibration": CALIBRATION})

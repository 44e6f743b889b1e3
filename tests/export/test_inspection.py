"""`edgex.inspection` and the device's session on whole, truncated and tampered files of every exported kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wrong_values import with_wrong_values

from edgex.cli.inspect import show
from edgex.errors import ArtefactError
from edgex.export import metadata
from edgex.inspection import inspect
from edgex.runtime import Session
from edgex.runtime.metadata import load


@pytest.fixture(scope="module")
def engine(exported: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine file as `export_tensorrt` writes it, around a plan that only a GPU would ever open."""
    built = {"package": "tensorrt_rtx", "version": "1", "compute_capabilities": []}
    described = inspect(exported("fp32")[0])["metadata"] | {"tensorrt": built}
    header = metadata.encode(described).encode()
    path = tmp_path_factory.mktemp("engine") / "m.engine"
    path.write_bytes(len(header).to_bytes(4, "little") + header + b"plan" * 1000)
    metadata.seal(path)
    return path


@pytest.fixture(params=["onnx", "engine"])
def whole(request: pytest.FixtureRequest, exported: Callable[[str], Any], engine: Path) -> Path:
    return exported("fp32")[0] if request.param == "onnx" else engine


def test_numbers_that_json_does_not_know_are_none(exported: Callable[[str], Any]) -> None:
    described = inspect(exported("fp32")[0])["metadata"] | {"extra": {"budget": [float("inf"), float("nan"), 1.5]}}
    assert json.loads(metadata.encode(described))["extra"] == {"budget": [None, None, 1.5]}


def test_every_kind_says_what_it_is(exported: Callable[[str], Any], engine: Path, small: Any) -> None:
    model, card = small
    for path, kind in ((exported("fp32")[0], "onnx"), (engine, "engine")):
        found = inspect(path)
        assert found["file_kind"] == kind and found["bytes"] == path.stat().st_size
        described = found["metadata"]
        assert described["classes"] == list(card.classes) and described["grid"] == list(model.backbone.grid)
        assert described["alpha"] == 1.0 and described["gate"]["passed"] is True
        assert json.dumps(found)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.999])
def test_a_truncated_file_is_refused(whole: Path, tmp_path: Path, share: float) -> None:
    data = whole.read_bytes()
    path = tmp_path / whole.name
    path.write_bytes(data[: int(share * len(data))])
    for opened in (inspect, load, Session):
        with pytest.raises(ArtefactError, match="m.engine|fp32.onnx") as caught:
            opened(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [0.02, 0.3, 0.9, 0.9995])
def test_a_tampered_file_is_refused(whole: Path, tmp_path: Path, place: float) -> None:
    data = bytearray(whole.read_bytes())
    data[int(place * len(data))] ^= 1
    path = tmp_path / whole.name
    path.write_bytes(data)
    for opened in (inspect, load, Session):
        with pytest.raises(ArtefactError):
            opened(path)


def test_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="found nothing: check the path"):
        inspect(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ArtefactError, match="text.onnx"):
        inspect(tmp_path / "text.onnx")


def test_wrong_values_in_a_fused_file_are_shown_or_refused_in_one_line(
    exported: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"metrics": {"a": 1}, "base": {"name": "n", "fingerprint": "f"}, "source": "s", "name": "n", "extra": {}}
    described = inspect(exported("fp32")[0])["metadata"]
    path = tmp_path / "m.engine"
    for what, changed in with_wrong_values(more):
        built = {"package": "tensorrt_rtx", "version": "1", "compute_capabilities": []}
        header = metadata.encode({**described, "tensorrt": built, **changed}).encode(errors="replace")
        path.write_bytes(len(header).to_bytes(4, "little") + header + b"plan")
        metadata.seal(path)
        try:
            show(path, as_json=False)
        except ArtefactError as error:
            assert str(path) in str(error) and "\n" not in str(error), what
    assert "fingerprint f" in capsys.readouterr().out

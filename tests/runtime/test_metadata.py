from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgex.runtime import ArtefactError
from edgex.runtime.metadata import Metadata, file_digest, load

TENSORRT = {"package": "tensorrt_rtx", "version": "1.2.3", "compute_capabilities": ["8.9"]}


def test_loads_an_onnx_file(model_path: Path) -> None:
    metadata, plan = load(model_path)
    assert plan is None
    assert metadata.classes[0] == "red thing"
    assert metadata.grid == (2, 3)
    assert metadata.preprocessing.image_size == (32, 48)
    assert metadata.alpha == 0.8
    assert metadata.tensorrt is None


def test_loads_an_engine_file(
    tmp_path: Path, make_metadata: Callable[..., dict[str, Any]], seal_file: Callable[[bytes], bytes]
) -> None:
    text = json.dumps(make_metadata(tensorrt=TENSORRT)).encode()
    path = tmp_path / "model.engine"
    path.write_bytes(seal_file(len(text).to_bytes(4, "little") + text + b"plan \0 bytes"))
    metadata, plan = load(path)
    assert plan == b"plan \0 bytes"
    assert metadata.tensorrt == TENSORRT


def test_an_engine_must_say_what_built_it(tmp_path: Path, make_metadata: Callable[..., dict[str, Any]]) -> None:
    text = json.dumps(make_metadata()).encode()
    (tmp_path / "model.engine").write_bytes(len(text).to_bytes(4, "little") + text + b"plan")
    with pytest.raises(ArtefactError, match="the key tensorrt"):
        load(tmp_path / "model.engine")


def test_alpha_may_be_missing_from_the_model_but_not_from_the_metadata(
    make_model: Callable[..., Path],
) -> None:
    assert load(make_model(alpha=None))[0].alpha is None
    with pytest.raises(ArtefactError, match="alpha"):
        load(make_model(alpha=...))


def test_a_file_from_before_multi_label_heads_has_a_softmax(make_model: Callable[..., Path]) -> None:
    metadata = load(make_model())[0]
    assert metadata.activation == "softmax" and metadata.thresholds is None
    metadata = load(make_model(activation="sigmoid", thresholds=[0.1, 0.2, 0.3, 1]))[0]
    assert metadata.activation == "sigmoid" and metadata.thresholds == (0.1, 0.2, 0.3, 1.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"activation": "relu"}, "activation: expected 'softmax' or 'sigmoid', found 'relu'"),
        ({"activation": "sigmoid", "thresholds": [0.5]}, "expected a threshold for each of 4 classes, found 1"),
        ({"thresholds": [0.5] * 4}, "expected no thresholds with the activation softmax, found 4"),
        ({"activation": "sigmoid", "thresholds": [0.5, 0.5, 0.5, 1.5]}, "a number from 0 to 1, found 1.5"),
    ],
)
def test_an_activation_that_is_none(make_model: Callable[..., Path], changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ArtefactError) as found:
        load(make_model(**changes))
    assert said in str(found.value) and "\n" not in str(found.value)


def test_digest_is_sha256_of_the_file_with_its_own_digits_zeroed(model_path: Path) -> None:
    data = model_path.read_bytes()
    recorded = load(model_path)[0].file_sha256
    assert data.count(recorded.encode()) == 1
    plain = hashlib.sha256(data.replace(recorded.encode(), b"0" * 64)).hexdigest()
    assert file_digest(data, recorded) == recorded == plain
    assert file_digest(data, "0" * 64) == hashlib.sha256(data).hexdigest()


def test_digest_of_a_file_that_repeats_it() -> None:
    recorded = "ab" * 32
    data = b"x" + recorded.encode() + b"y" + recorded.encode()
    assert file_digest(data, recorded) == hashlib.sha256(b"x" + b"0" * 64 + b"y" + b"0" * 64).hexdigest()


@pytest.mark.parametrize("recorded", ["", "ab", "AB" * 32, "g" * 64, None])
def test_digest_refuses_what_is_no_sha256(recorded: Any) -> None:
    with pytest.raises(ArtefactError, match="64 hexadecimal digits"):
        file_digest(b"data", recorded)


def test_any_changed_byte_is_noticed(model_path: Path) -> None:
    data = model_path.read_bytes()
    position = data.index(b"red thing")
    model_path.write_bytes(data[:position] + b"r" + b"o" + data[position + 2 :])
    with pytest.raises(ArtefactError, match="the file was changed or damaged after export"):
        load(model_path)
    assert load(model_path, verify=False)[0].classes[0] == "rod thing"


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"format": "edgex-fused/2"}, "found the newer edgex-fused/2; update edgex"),
        ({"format": "edgex-fused/0"}, "found 'edgex-fused/0'"),
        ({"format": "other/7"}, "found 'other/7'"),
        ({"format": 3}, "found 3"),
        ({"format": ...}, "found None"),
        ({"grid": ..., "classes": ...}, "found none of classes, grid"),
        ({"preprocessing": ...}, "preprocessing"),
        ({"preprocessing": {"resize": 3}}, "image_size, interpolation, mean, std"),
        ({"preprocessing": [1]}, "preprocessing: expected an object, found a list of 1"),
        ({"classes": []}, "classes: expected a list of at least 1, found a list of 0"),
        ({"classes": "cat"}, "classes: expected a list of at least 1, found 'cat'"),
        ({"classes": ["a", 2]}, r"classes\[1\]: expected text, found 2; export it again"),
        ({"grid": [2]}, "grid: expected a list of 2, found a list of 1"),
        ({"grid": [2, 0]}, r"grid\[1\]: expected a whole number from 1 to \d+, found 0"),
        ({"grid": [2.0, 3]}, r"grid\[0\]: expected a whole number .* found 2.0"),
        ({"max_batch": 0}, "max_batch"),
        ({"max_batch": True}, "max_batch"),
        ({"alpha": "much"}, "alpha: expected a number, found 'much'"),
        ({"precision": 16}, "precision: expected text, found 16"),
        ({"provenance": {}}, "provenance: expected a list, found an object of 0"),
        ({"gate": None}, "gate: expected an object, found null"),
        ({"tensorrt": "yes"}, "tensorrt: expected an object, found 'yes'"),
    ],
)
def test_a_broken_contract_is_named(make_model: Callable[..., Path], changes: dict[str, Any], words: str) -> None:
    path = make_model(**changes)
    with pytest.raises(ArtefactError, match=words) as error:
        load(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"classes": ["a", "b"]},
            r"logits as tensor\(float\) \[N, 2\], found .* \[N, 4\]; export it again",
        ),
        ({"grid": [2, 2]}, r"heatmap as .* \[M, 2, 2\], found .* \[N, 2, 3\]"),
        ({"grid": [16384, 16384]}, "heatmap as"),
    ],
)
def test_metadata_and_graph_must_agree(make_model: Callable[..., Path], changes: dict[str, Any], words: str) -> None:
    """Known from the file alone: nothing is run, and no memory taken, for one that contradicts itself."""
    with pytest.raises(ArtefactError, match=f"expected {words}"):
        load(make_model(**changes))


def test_a_digest_that_is_none(make_metadata: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(ArtefactError, match="file_sha256"):
        Metadata.from_dict({**make_metadata(), "file_sha256": "none"})


def test_metadata_that_is_no_object() -> None:
    with pytest.raises(ArtefactError, match="metadata: expected an object, found a list of 0"):
        Metadata.from_dict([])


def test_text_that_is_no_json(model_path: Path) -> None:
    data = model_path.read_bytes()
    model_path.write_bytes(data.replace(b'{"format"', b'["format"'))
    with pytest.raises(ArtefactError, match="expected JSON"):
        load(model_path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="found No such file"):
        load(tmp_path / "none.onnx")
    with pytest.raises(ArtefactError, match="found Is a directory"):
        load(tmp_path)

"""Other people's files: wrappers, prefixes, types, and pickles that are not plain tensors."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from edgex.errors import ArtefactError
from edgex.importers.weights import read_state_dict

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(3)}


def test_safetensors_and_torch_files_read_alike(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "w.safetensors")
    torch.save(TENSORS, tmp_path / "w.pth")
    torch.save(TENSORS, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    for name in ("w.safetensors", "w.pth", "old.bin"):
        found = read_state_dict(tmp_path / name)
        assert found.keys() == TENSORS.keys()
        assert torch.equal(found["a.weight"], TENSORS["a.weight"])
        assert found["steps"].dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_every_float_becomes_float32(tmp_path: Path, dtype: torch.dtype, suffix: str) -> None:
    tensors = {"w": torch.tensor([1.5, -0.25], dtype=dtype)}
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    found = read_state_dict(path)["w"]
    assert found.dtype == torch.float32
    assert found.tolist() == [1.5, -0.25]


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "state_dict_ema", "model_ema", "model_state_dict"])
def test_wrapped_state_dicts_are_unwrapped(tmp_path: Path, wrapper: str) -> None:
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}, wrapper: TENSORS}, tmp_path / "c.pth")
    assert read_state_dict(tmp_path / "c.pth").keys() == TENSORS.keys()


def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.zeros(1)}, "model_ema": {"w": torch.ones(1)}}, tmp_path / "c.pth")
    assert read_state_dict(tmp_path / "c.pth")["w"].item() == 1


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrapped_modules_are_removed(tmp_path: Path, prefix: str) -> None:
    torch.save({prefix + name: tensor for name, tensor in TENSORS.items()}, tmp_path / "c.pth")
    assert read_state_dict(tmp_path / "c.pth").keys() == TENSORS.keys()


class Harmful:
    """Unpickling this would run a command of the file's choosing."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("harmed"),))


@pytest.mark.parametrize("content", [{"w": Harmful()}, torch.nn.Linear(2, 2)])
def test_pickled_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(
        ArtefactError, match="is not a checkpoint of plain tensors: edgex loads no pickled code"
    ) as caught:
        read_state_dict(tmp_path / "c.pth")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "harmed").exists()


def test_plain_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "c.pkl").write_bytes(pickle.dumps({"w": Harmful()}))
    with pytest.raises(ArtefactError, match="plain tensors"):
        read_state_dict(tmp_path / "c.pkl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "expected a dictionary of named tensors, found Tensor"),
        ({}, "expected a dictionary of named tensors, found dict"),
        ({"w": torch.zeros(2), "epoch": 3}, "expected tensors only, found int under 'epoch'"),
    ],
)
def test_other_contents_are_named(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(ArtefactError, match=message):
        read_state_dict(tmp_path / "c.pth")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_damaged_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:4], b"", b"not weights at all, but some text"):
        path.write_bytes(damaged)
        with pytest.raises(ArtefactError) as caught:
            read_state_dict(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"found nothing: check the path"):
        read_state_dict(tmp_path / "none.pth")
    with pytest.raises(ArtefactError, match="expected a checkpoint in the folder .*, found no file that ends in"):
        read_state_dict(tmp_path)

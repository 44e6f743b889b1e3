"""Which files a checkpoint consists of: files, folders, shards, and files of other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from edgex.errors import ArtefactError
from edgex.importers import checkpoint_files
from edgex.importers.weights import read_weights

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.weight": torch.ones(2), "c.weight": torch.zeros(1)}


def sharded(folder: Path, *, suffix: str = ".safetensors", stem: str = "model") -> Path:
    names = [f"{stem}-0000{number}-of-00002{suffix}" for number in (1, 2)]
    owners = {"a.weight": names[0], "b.weight": names[1], "c.weight": names[0]}
    for name in names:
        part = {key: tensor for key, tensor in TENSORS.items() if owners[key] == name}
        if suffix == ".safetensors":
            save_file(part, folder / name)
        else:
            torch.save(part, folder / name)
    index = folder / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 36}, "weight_map": owners}), encoding="utf-8")
    return index


@pytest.mark.parametrize(("suffix", "stem"), [(".safetensors", "model"), (".bin", "pytorch_model")])
def test_shards_are_read_by_their_index_and_by_their_folder(tmp_path: Path, suffix: str, stem: str) -> None:
    index = sharded(tmp_path, suffix=suffix, stem=stem)
    for path in (index, tmp_path, str(tmp_path)):
        found = read_weights(path).tensors
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    assert [file.name for file in checkpoint_files.parts(index)] == [
        index.name,
        f"{stem}-00001-of-00002{suffix}",
        f"{stem}-00002-of-00002{suffix}",
    ]


def test_a_single_shard_names_the_index(tmp_path: Path) -> None:
    sharded(tmp_path)
    with pytest.raises(
        ArtefactError, match=r"one of several shards .*: give their index, .*model.safetensors.index.js"
    ):
        read_weights(tmp_path / "model-00002-of-00002.safetensors")


def test_one_of_one_shard_is_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "model-00001-of-00001.safetensors"
    save_file(TENSORS, path)
    assert read_weights(path).tensors.keys() == TENSORS.keys()


def test_missing_shards_and_tensors_are_named(tmp_path: Path) -> None:
    index = sharded(tmp_path)
    save_file({"other": torch.zeros(1)}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(ArtefactError, match="00002-of-00002.safetensors lacks the tensor 'b.weight'"):
        read_weights(index)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ArtefactError, match="its shard model-00002-of-00002.safetensors is missing"):
        read_weights(index)


@pytest.mark.parametrize(
    "weight_map", [None, {}, [], {"a": 3}, {"a": "../secret.pth"}, {"a": "/etc/passwd"}, {"a": ".."}]
)
def test_an_index_names_files_of_its_own_folder(tmp_path: Path, weight_map: Any) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    with pytest.raises(ArtefactError, match="index.json: (weight_map|expected)"):
        read_weights(index)


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["checkpoint.pth.tar"], "checkpoint.pth.tar"),
        (["last.ckpt", "metrics.csv", ".hidden.pth"], "last.ckpt"),
        (["model.safetensors", "pytorch_model.bin", "optimizer.pt", "training_args.bin"], "model.safetensors"),
        (["pytorch_model.bin", "optimizer.pt", "rng_state.pth", "training_args.bin"], "pytorch_model.bin"),
        (["model-00001-of-00001.safetensors", "config.json"], "model-00001-of-00001.safetensors"),
        (["open_clip_model.safetensors", "open_clip_pytorch_model.bin"], "open_clip_model.safetensors"),
    ],
)
def test_a_folder_with_one_checkpoint_stands_for_it(tmp_path: Path, files: list[str], chosen: str) -> None:
    for name in files:
        (tmp_path / name).touch()
    assert checkpoint_files.find(tmp_path) == tmp_path / chosen


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["b.pth", "a.pth"], r"expected one checkpoint in the folder .*, found 2 \(a.pth, b.pth\): name one"),
        (["picture.jpg"], "found no file that ends in .safetensors, .pth"),
        (["__0_0.distcp", ".metadata"], "torch.distributed.checkpoint.format_utils dcp_to_torch"),
        (["zero_to_fp32.py", "latest"], "is a DeepSpeed checkpoint in shards"),
    ],
)
def test_other_folders_say_what_they_are(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(ArtefactError, match=message):
        read_weights(tmp_path)


def test_files_are_known_by_their_content(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "w.pth")
    torch.save(TENSORS, tmp_path / "w.bin")
    for name in ("w.pth", "w.bin"):
        assert read_weights(tmp_path / name).tensors.keys() == TENSORS.keys()
    (tmp_path / "w.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(ArtefactError, match="w.h5 is an HDF5 file, as Keras writes it; edgex imports safetensors and"):
        read_weights(tmp_path / "w.h5")

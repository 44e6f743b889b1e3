"""What people have of transformers' models: a Trainer's output, a repository, a wrapped state dict, old files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_hub
import torch
import transformers_models
from libraries import CLASSES, TOLERANCE, pictures
from transformers_models import MODELS, rewrite

from edgex.errors import ArtefactError, MismatchError, UnsupportedError, UsageError
from edgex.files.model_file import load_model
from edgex.importers import checkpoint_files
from edgex.importers.workflow import import_weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A tiny ViT of transformers, and its folder."""
    folder = tmp_path_factory.mktemp("vit")
    module = transformers_models.make(MODELS["ViT"])
    transformers_models.save(module, folder)
    return module, folder


def assert_same(file: Path, module: Any) -> None:
    images = pictures(32)
    with torch.no_grad():
        assert (load_model(file).network(images).logits - module(images).logits).abs().max() < TOLERANCE


class TestTrainer:
    def checkpoint(self, vit: tuple[Any, Path], folder: Path, best: str | None = None, **other: float) -> None:
        """A folder as the Trainer writes it; other: a value that all biases of the head have."""
        shutil.copytree(vit[1], folder)
        state = {"best_model_checkpoint": best, "global_step": 7}
        (folder / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
            torch.save({"step": torch.zeros(3)}, folder / name)

    def test_one_checkpoint_is_taken_wherever_its_processor_lies(self, vit: tuple[Any, Path], tmp_path: Path) -> None:
        self.checkpoint(vit, tmp_path / "run" / "checkpoint-12")
        for weights in (tmp_path / "run", tmp_path / "run" / "checkpoint-12"):
            said: list[str] = []
            result = import_weights(weights=weights, out=tmp_path / "m.safetensors", report=said.append, force=True)
            assert_same(result.path, vit[0])
            assert result.card.preprocessing.resize == (32, 32)
            in_folder = ["weights taken from checkpoint-12/model.safetensors"] if weights.name == "run" else []
            assert said[: len(in_folder)] == in_folder
            own = tmp_path / "run" / "checkpoint-12" / "preprocessor_config.json"
            if own.is_file():
                own.rename(tmp_path / "run" / own.name)

    @pytest.mark.parametrize("best", ["out/checkpoint-20", "C:\\runs\\out\\checkpoint-20"])
    def test_of_several_the_best_is_taken(self, vit: tuple[Any, Path], tmp_path: Path, best: str) -> None:
        for step in (8, 20, 100):
            self.checkpoint(vit, tmp_path / f"checkpoint-{step}", best)
        assert checkpoint_files.find(tmp_path) == tmp_path / "checkpoint-20" / "model.safetensors"
        shutil.copy(vit[1] / "model.safetensors", tmp_path)
        assert checkpoint_files.find(tmp_path) == tmp_path / "model.safetensors", "what save_model wrote"

    @pytest.mark.parametrize("best", [None, "out/checkpoint-50"])
    def test_without_a_best_one_they_are_named(self, vit: tuple[Any, Path], tmp_path: Path, best: str | None) -> None:
        for step in (8, 20, 100):
            self.checkpoint(vit, tmp_path / f"checkpoint-{step}", best)
        message = r"found 3 \(checkpoint-8, checkpoint-20, checkpoint-100\), and no trainer_state\.json .*best"
        with pytest.raises(ArtefactError, match=message):
            checkpoint_files.find(tmp_path)
        (tmp_path / "checkpoint-100" / "trainer_state.json").write_text('{"best_model_checkpoint": 7}')
        with pytest.raises(ArtefactError, match=r"trainer_state\.json: best_model_checkpoint: expected text, found 7"):
            checkpoint_files.find(tmp_path)


class TestRepositories:
    @pytest.fixture
    def hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        with small_hub.serve() as hub:
            small_hub.point_client(monkeypatch, tmp_path, hub.address)
            yield hub

    def test_the_name_alone_gives_configuration_processor_and_weights(
        self, vit: tuple[Any, Path], hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.publish(COMMIT, {file.name: file.read_bytes() for file in vit[1].iterdir()})
        monkeypatch.chdir(tmp_path)
        for name in ("hf://org/repo", "hf://org/repo@main", f"hf://org/repo@{COMMIT}"):
            result = import_weights(weights=name, force=True)
            assert result.path == Path("repo.safetensors")
            assert_same(result.path, vit[0])
            assert result.card.classes == CLASSES
        inputs = result.card.provenance[0]["inputs"]
        files = ("model.safetensors", "config.json", "preprocessor_config.json")
        assert [entry["hub"] for entry in inputs] == [f"hf://org/repo/{file}@{COMMIT}" for file in files]
        assert all(len(entry["sha256"]) == 64 for entry in inputs)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", small_hub.NO_HUB)
        import_weights(weights=f"hf://org/repo@{COMMIT}", out=tmp_path / "offline.safetensors")

    @pytest.mark.parametrize("form", ["shards", "bin"])
    def test_shards_and_old_files_are_taken(self, vit: tuple[Any, Path], hub: Any, tmp_path: Path, form: str) -> None:
        folder = tmp_path / "saved"
        transformers_models.save(vit[0], folder)
        if form == "shards":
            (folder / "model.safetensors").unlink()
            vit[0].save_pretrained(folder, max_shard_size="100KB")
            assert len(list(folder.glob("model-*"))) > 1
        else:
            (folder / "model.safetensors").unlink()
            torch.save(vit[0].state_dict(), folder / "pytorch_model.bin")
        hub.publish(COMMIT, {file.name: file.read_bytes() for file in folder.iterdir()})
        for weights in (folder, "hf://org/repo"):
            result = import_weights(weights=weights, out=tmp_path / "m.safetensors", force=True)
            assert_same(result.path, vit[0])

    def test_a_model_that_is_refused_costs_no_download_of_its_weights(
        self, vit: tuple[Any, Path], hub: Any, tmp_path: Path
    ) -> None:
        config = json.loads((vit[1] / "config.json").read_text())
        swin = json.dumps({**config, "architectures": ["SwinForImageClassification"]}).encode()
        hub.publish(COMMIT, {"config.json": swin, "model.safetensors": b"not asked for"})
        with pytest.raises(UnsupportedError, match="SwinForImageClassification"):
            import_weights(weights="hf://org/repo", out=tmp_path / "m.safetensors")
        assert not list((tmp_path / "cache").rglob("model.safetensors"))

    def test_a_repository_without_weights_is_named(self, hub: Any, tmp_path: Path) -> None:
        hub.publish(COMMIT, {"README.md": b"# Soon"})
        with pytest.raises(ArtefactError, match=r"hub repository org/repo has no file model\.safetensors or "):
            import_weights(weights="hf://org/repo", out=tmp_path / "m.safetensors")
        for name in ("hf://org", "hf://org/repo/", "hf://org/repo@", "hf:///repo"):
            with pytest.raises(UsageError, match="or hf://organisation/repository for all of it, found"):
                import_weights(weights=name, out=tmp_path / "m.safetensors")


@pytest.mark.parametrize("name", MODELS)
def test_a_training_modules_prefix_is_taken_off(name: str, tmp_path: Path) -> None:
    """As Lightning saves a module that holds the model."""
    module = transformers_models.make(MODELS[name])
    transformers_models.save(module, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    tensors = {f"net.model.{key}": tensor for key, tensor in module.state_dict().items()}
    torch.save({"state_dict": tensors | {"criterion.weight": torch.ones(3)}, "epoch": 3}, tmp_path / "last.ckpt")
    result = import_weights(weights=tmp_path, out=tmp_path / "m.safetensors")
    assert_same(result.path, module)


def test_tensors_of_pre_training_are_passed_over(vit: tuple[Any, Path], tmp_path: Path) -> None:
    shutil.copytree(vit[1], tmp_path / "old")
    (tmp_path / "old" / "model.safetensors").unlink()
    extra = {"vit.pooler.dense.weight": torch.ones(64, 64), "vit.pooler.dense.bias": torch.ones(64)}
    torch.save(vit[0].state_dict() | extra, tmp_path / "old" / "pytorch_model.bin")
    assert_same(import_weights(weights=tmp_path / "old", out=tmp_path / "m.safetensors").path, vit[0])


def test_the_command_needs_the_folder_alone(vit: tuple[Any, Path], run: Callable[..., str]) -> None:
    said = run("import", str(vit[1]), "--name", "mine")
    assert "mine.safetensors: timm/vit_tiny_patch16_224 (32x32 px, token pooling, depth=2, embed_dim=64, " in said
    assert "3 classes, linear head" in said
    assert "taken from config.json: arch, image_size, pooling, classes" in said
    shown = run("inspect", "mine.safetensors")
    assert "settings: arch config.json" in shown


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_hidden_layers": 3}, r"missing tensor 'blocks\.2.* needs: the weights are of another model than config"),
        ({"hidden_size": 32}, r"tensor 'cls_token' has shape .*: the weights are of another model than config\.json"),
        ({"id2label": {"0": "a", "1": "b"}}, r"one row for each of 3 classes, found 2 class names in config\.json"),
    ],
)
def test_a_configuration_that_contradicts_the_weights_is_named(
    vit: tuple[Any, Path], tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    shutil.copytree(vit[1], tmp_path / "vit")
    rewrite(tmp_path / "vit" / "config.json", **values)
    with pytest.raises(MismatchError, match=message):
        import_weights(weights=tmp_path / "vit")


def test_a_processor_of_another_size_needs_the_size_and_keeps_its_own_resize(
    vit: tuple[Any, Path], tmp_path: Path
) -> None:
    shutil.copytree(vit[1], tmp_path / "vit")
    rewrite(tmp_path / "vit" / "preprocessor_config.json", size={"height": 48, "width": 48})
    with pytest.raises(UnsupportedError, match=r"crops to 48x48 pixels, config\.json says 32x32: give the image size"):
        import_weights(weights=tmp_path / "vit")
    card = import_weights(weights=tmp_path / "vit", image_size=48, out=tmp_path / "m.safetensors").card
    assert (card.preprocessing.fit, card.preprocessing.resize) == ("squash", (48, 48))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_channels": 2}, r"config\.json: in_chans: expected 1 or 3, found 2"),
        ({"num_hidden_layers": 300}, r"config\.json: depth: expected a whole number from 1 to 256, found 300"),
    ],
)
def test_the_file_of_an_unusable_value_is_named(
    vit: tuple[Any, Path], tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    shutil.copytree(vit[1], tmp_path / "vit")
    rewrite(tmp_path / "vit" / "config.json", **values)
    with pytest.raises(ArtefactError, match=message):
        import_weights(weights=tmp_path / "vit")


def test_the_processor_of_pictures_may_lie_in_one_of_pictures_and_texts(vit: tuple[Any, Path], tmp_path: Path) -> None:
    shutil.copytree(vit[1], tmp_path / "vit")
    own = tmp_path / "vit" / "preprocessor_config.json"
    whole = {"image_processor": json.loads(own.read_text(encoding="utf-8")), "processor_class": "CLIPProcessor"}
    own.with_name("processor_config.json").write_text(json.dumps(whole), encoding="utf-8")
    own.unlink()
    card = import_weights(weights=tmp_path / "vit", out=tmp_path / "m.safetensors").card
    assert (card.preprocessing.resize, card.preprocessing.mean) == ((32, 32), (0.5, 0.5, 0.5))
    assert card.provenance[0]["taken_from"]["mean"] == "processor_config.json"

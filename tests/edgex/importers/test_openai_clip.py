"""CLIP models whose name in open_clip follows from their shape: OpenAI's archives, transformers' folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from libraries import CLASSES, pictures, saved, shaken
from torch import Tensor, nn

from edgex.errors import ArtefactError, UsageError
from edgex.files.model_file import load_model
from edgex.importers import openai_clip
from edgex.importers.clip_shapes import Shape, open_clip_name
from edgex.importers.configuration import Stated
from edgex.importers.workflow import import_weights


class Holder(nn.Module):
    """Tensors under names with dots, as a module that can be scripted."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        inner: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            first, dot, rest = name.partition(".")
            if dot:
                inner.setdefault(first, {})[rest] = tensor
            else:
                self.register_buffer(name, tensor)
        for name, own in inner.items():
            self.add_module(name, Holder(own))

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.fixture(scope="module")
def openai(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of the form of OpenAI's: quick GELU and heads of 64 numbers in both towers."""
    import open_clip

    folder = tmp_path_factory.mktemp("open_clip")
    config = {
        "embed_dim": 48,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 128, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 1},
    }
    (folder / "tiny-openai.json").write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    return shaken(open_clip.create_model("tiny-openai"))


@pytest.fixture(scope="module")
def tensors(openai: Any) -> dict[str, Tensor]:
    numbers = {"input_resolution": 64, "context_length": 77, "vocab_size": 49408}
    return openai.state_dict() | {name: torch.tensor(value) for name, value in numbers.items()}


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_an_archive_needs_its_classes_alone(openai: Any, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    import open_clip

    torch.jit.save(torch.jit.script(Holder(tensors)), tmp_path / "ViT-T-16.pt")
    said: list[str] = []
    result = import_weights(
        classes=",".join(CLASSES), weights=tmp_path / "ViT-T-16.pt", out=tmp_path / "m.safetensors", report=said.append
    )
    assert result.card.architecture.name == "open_clip/tiny-openai"
    assert "taken from OpenAI's archive: arch, image_size" in said
    weight = open_clip.build_zero_shot_classifier(
        openai, open_clip.get_tokenizer("tiny-openai"), CLASSES, ["a photo of a {}."]
    )
    images = pictures(64)
    with torch.no_grad():
        expected = openai.logit_scale.exp() * openai.encode_image(images, normalize=True) @ weight
        assert (load_model(result.path).network(images).logits - expected).abs().max() < 1e-4


def test_tensors_of_others_say_nothing(openai: Any, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    assert not openai_clip.state(openai.state_dict(), Stated()).values
    for name in ("ln_final.weight", "visual.class_embedding", "vocab_size"):
        assert not openai_clip.state({n: t for n, t in tensors.items() if n != name}, Stated()).values
    file = saved(tmp_path / "plain.safetensors", openai.state_dict())
    with pytest.raises(UsageError, match="states the architecture"):
        import_weights(classes="a,b", weights=file)


@pytest.mark.parametrize(
    ("shape", "size", "name"),
    [
        (Shape(512, True, (768, 12, 12), 32, (512, 12, 8, 49408, 77)), 224, "open_clip/ViT-B-32-quickgelu"),
        (Shape(512, False, (768, 12, 12), 16, (512, 12, 8, 49408, 77)), 224, "open_clip/ViT-B-16"),
        (Shape(768, True, (1024, 24, 16), 14, (768, 12, 12, 49408, 77)), 336, "open_clip/ViT-L-14-336-quickgelu"),
        (Shape(1024, False, (1280, 32, 16), 14, None), 224, "open_clip/ViT-H-14"),
        (Shape(512, False, (768, 12, 12), 32, (512, 12, 8, 49408, 77)), 256, "open_clip/ViT-B-32-256"),
        (Shape(513, False, (768, 12, 12), 32, None), 224, None),
    ],
)
def test_published_models_have_their_names(shape: Shape, size: int, name: str | None) -> None:
    assert open_clip_name(shape, size) == name


@pytest.mark.usefixtures("tiny_clips")
class TestTransformers:
    def test_a_folder_states_the_model(self, hf_config: Any, tmp_path: Path) -> None:
        from transformers import CLIPModel

        torch.manual_seed(0)
        module = shaken(CLIPModel(hf_config))
        module.save_pretrained(tmp_path / "hf")
        said: list[str] = []
        result = import_weights(
            classes=",".join(CLASSES), weights=tmp_path / "hf", out=tmp_path / "m.safetensors", report=said.append
        )
        assert result.card.architecture.name == "open_clip/tiny-quickgelu"
        assert result.card.head_kind == "cosine"
        assert said[0] == "taken from config.json: arch, image_size"
        network, images = load_model(result.path).network, pictures(64)
        with torch.no_grad():
            own = nn.functional.normalize(module.get_image_features(pixel_values=images).pooler_output, dim=-1)
            expected = module.logit_scale.exp() * own @ network.head.weight.T
            assert (network(images).logits - expected).abs().max() < 1e-4

    def test_a_mistyped_text_tower_is_named(self, hf_config: Any, tmp_path: Path) -> None:
        from transformers import CLIPModel

        CLIPModel(hf_config).save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        config["text_config"]["hidden_size"] = "wide"
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ArtefactError, match=r"config\.json: text_config: hidden_size: expected a whole number"):
            import_weights(classes="a,b", weights=tmp_path)

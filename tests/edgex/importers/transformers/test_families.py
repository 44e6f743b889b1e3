"""Every model of transformers that edgex imports scores pictures as transformers does, from its folder alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers_models
from libraries import CLASSES, TOLERANCE
from PIL import Image
from transformers_models import BACKBONES, MODELS

from edgex import samples
from edgex.errors import ArtefactError, UnsupportedError
from edgex.files.model_file import load_model
from edgex.importers.transformers import registry
from edgex.importers.workflow import import_weights
from edgex.models.backbones import Architecture
from edgex.models.backbones import timm as timm_family
from edgex.models.self_explaining import normalise


def picture() -> Image.Image:
    return Image.open(samples.paths()[0]).convert("RGB")


def explained(path: Path) -> Any:
    """Logits, heatmap and base of an imported model for a photograph, read as the device reads it."""
    network, card = load_model(path)
    pixels = torch.from_numpy(card.preprocessing.array(picture())[None])
    return network(normalise(pixels, card.preprocessing.mean, card.preprocessing.std))


@pytest.mark.parametrize("name", MODELS)
def test_a_classifiers_folder_alone_gives_its_own_logits(
    name: str, tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    module = transformers_models.make(MODELS[name])
    process = transformers_models.save(module, tmp_path / "hf")
    result = import_weights(weights=tmp_path / "hf", out=tmp_path / "m.safetensors")
    assert result.card.classes == CLASSES
    with torch.no_grad():
        expected = module(process(picture())).logits
    found = explained(result.path)
    difference = (found.logits - expected).abs().max().item()
    record_property("max_abs_difference", difference)
    assert expected.std() > 0.01
    assert difference < TOLERANCE
    score = found.logits[0].max() - found.logits[0].mean()
    assert (found.heatmap.sum() + found.base - score).abs() < 1e-4


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_and_a_head_give_the_logits_of_its_pooled_output(
    name: str, tmp_path: Path, linear_head: Callable[[int], tuple[Path, Any]]
) -> None:
    module = transformers_models.make(BACKBONES[name])
    process = transformers_models.save(module, tmp_path / "hf")
    file, head = linear_head(64)
    result = import_weights(
        weights=tmp_path / "hf", classes=",".join(CLASSES), head=file, out=tmp_path / "m.safetensors"
    )
    with torch.no_grad():
        found = module(process(picture()))
        # A ViT's own pooled output goes through a layer of pre-training: its class token is what classifiers read.
        expected = head(found.last_hidden_state[:, 0] if name == "ViT" else found.pooler_output)
    assert (explained(result.path).logits - expected).abs().max() < TOLERANCE


BASES = {name: own for family in registry.families().values() for name, own in family.bases.items()}


@pytest.mark.parametrize("name", BASES)
def test_the_options_of_timms_own_models_are_as_the_tables_say(name: str) -> None:
    """Given again, they change neither a tensor's shape nor a norm or an activation."""
    import timm

    def described(options: dict[str, Any]) -> tuple[Any, ...]:
        arguments = timm_family.arguments(Architecture(f"timm/{name}", (224, 224), "", options))
        arguments["global_pool"] = timm.create_model(name).global_pool
        module: Any = timm.create_model(name, num_classes=0, **arguments)
        parts = [part for part in module.modules() if not list(part.children())]
        shapes = {key: tensor.shape for key, tensor in module.state_dict().items()}
        kinds = [(type(part).__name__, getattr(part, "eps", None)) for part in parts]
        return shapes, kinds, module.blocks[0].attn.num_heads

    with torch.device("meta"):
        assert described(dict(BASES[name])) == described({})


@pytest.mark.parametrize(
    "family", {id(f): f for f in registry.families().values()}.values(), ids=lambda f: next(iter(f.classes))
)
def test_what_a_configuration_leaves_out_is_transformers_own_default(family: Any) -> None:
    import transformers

    for name in family.classes:
        config = getattr(transformers, name).config_class()
        config = getattr(config, "vision_config", config)
        own = config.to_dict()
        assert {key: own[key] for key in family.defaults} == dict(family.defaults), name
        assert family.values({}, "config.json") == family.values(own, "config.json")


class TestRefusals:
    def describe(self, name: str, **values: Any) -> Any:
        return registry.describe(name, values, "config.json")

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("SwinForImageClassification", r"stages of several resolutions .*; nearest: "),
            ("ConvNextV2ForImageClassification", r"stages of several resolutions"),
            ("Siglip2ForImageClassification", r"NaFlex.* a SiglipForImageClassification$"),
            ("ViTMAEForPreTraining", r"without a classifier: fine-tune it as a ViTForImageClassification$"),
            ("BertForSequenceClassification", r"is not supported: expected .*Dinov2ForImageClassification"),
        ],
    )
    def test_another_class_is_named_in_one_line_with_the_nearest_that_works(self, name: str, message: str) -> None:
        with pytest.raises(UnsupportedError, match=rf"config.json: {name} \(transformers\) .*{message}") as caught:
            self.describe(name)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "values", "message"),
        [
            ("ViTForImageClassification", {"num_attention_heads": 7}, "a hidden_size that is a multiple of 7"),
            ("ViTForImageClassification", {"hidden_act": "mish"}, "expected hidden_act gelu, .*, found 'mish'"),
            ("SiglipModel", {"vision_config": {"vision_use_head": False}}, "vision_use_head true, found false"),
            ("DINOv3ViTModel", {"key_bias": True}, "expected key_bias false, found true"),
            ("BeitForImageClassification", {}, "expected use_relative_position_bias true, found false"),
        ],
    )
    def test_a_configuration_that_timm_cannot_build_is_named(
        self, name: str, values: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(UnsupportedError, match=f"config.json: {name}: .*{message}"):
            self.describe(name, **values)

    @pytest.mark.parametrize(
        "values",
        [
            {"hidden_size": "wide"},
            {"hidden_size": 0},
            {"patch_size": [16]},
            {"layer_norm_eps": -1},
            {"qkv_bias": 1},
            {"hidden_act": {}},
            {"num_channels": 4},
        ],
    )
    def test_a_mistyped_value_is_named(self, values: dict[str, Any]) -> None:
        with pytest.raises(ArtefactError, match=f"config.json: {next(iter(values))}"):
            self.describe("ViTForImageClassification", **values)

    def test_a_mistyped_list_of_classes_is_refused(self, tmp_path: Path) -> None:
        transformers_models.save(transformers_models.make(MODELS["ViT"]), tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        for named in (None, [], 7, [7]):
            (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": named}))
            with pytest.raises(UnsupportedError, match="expected architectures with the name of a class"):
                import_weights(weights=tmp_path, out=tmp_path / "m.safetensors")

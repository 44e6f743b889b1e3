"""CLIP models of transformers, renamed and packed, against the library's own logits; foreign weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from libraries import CLASSES, TINY, TINY_QUICK, assert_same_logits, pictures, saved, shaken
from torch import nn

from edgex.errors import ArtefactError, MismatchError
from edgex.importers.assembly import import_model
from edgex.importers.base_weights import load_base
from edgex.models.backbones import architecture

pytestmark = pytest.mark.usefixtures("tiny_clips")


class TestTransformers:
    def test_a_whole_clip_model(
        self, hf_config: Any, tmp_path: Path, record_property: Callable[[str, Any], None]
    ) -> None:
        import open_clip
        from transformers import CLIPModel

        module = shaken(CLIPModel(hf_config))
        module.save_pretrained(tmp_path)
        model, card = import_model(tmp_path / "model.safetensors", TINY_QUICK, CLASSES, name="m", templates=["a {}"])
        tokens = open_clip.get_tokenizer("tiny-quickgelu")([f"a {name}" for name in CLASSES])
        images = pictures(64)
        with torch.no_grad():
            expected = module(input_ids=tokens, pixel_values=images).logits_per_image
            assert_same_logits(model, images, expected, record_property)
        assert card.head_kind == "cosine"

    def test_a_vision_model_with_projection(
        self,
        hf_config: Any,
        tmp_path: Path,
        linear_head: Callable[[int], tuple[Path, nn.Linear]],
        record_property: Callable[[str, Any], None],
    ) -> None:
        from transformers import CLIPVisionModelWithProjection

        module = shaken(CLIPVisionModelWithProjection(hf_config.vision_config))
        module.save_pretrained(tmp_path)
        head_file, head = linear_head(32)
        model, _ = import_model(tmp_path / "model.safetensors", TINY_QUICK, CLASSES, name="m", head=head_file)
        images = pictures(64)
        with torch.no_grad():
            assert_same_logits(model, images, head(module(images).image_embeds), record_property)

    @pytest.mark.parametrize(
        ("prefix", "name", "dimensions"),
        [
            ("", "vit_base_patch32_clip_quickgelu_224", (768, 3072, 12, 12, 32, "quick_gelu")),
            ("vision_model.", "vit_xsmall_patch16_clip_224", (256, 1024, 10, 4, 16, "gelu")),
        ],
    )
    def test_a_vision_model_without_projection_goes_to_timm(
        self,
        prefix: str,
        name: str,
        dimensions: tuple[Any, ...],
        tmp_path: Path,
        linear_head: Callable[[int], tuple[Path, nn.Linear]],
        record_property: Callable[[str, Any], None],
    ) -> None:
        from transformers import CLIPVisionConfig, CLIPVisionModel

        keys = (
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "patch_size",
            "hidden_act",
        )
        module = shaken(CLIPVisionModel(CLIPVisionConfig(**dict(zip(keys, dimensions, strict=True)))))
        tensors = {prefix + key: tensor for key, tensor in module.state_dict().items()}
        tensors[f"{prefix}embeddings.position_ids"] = torch.arange(50)[None]
        file = saved(tmp_path / "vision.safetensors", tensors)
        head_file, head = linear_head(dimensions[0])
        model, _ = import_model(file, architecture(f"timm/{name}"), CLASSES, name="m", head=head_file)
        images = pictures(224)
        with torch.no_grad():
            assert_same_logits(model, images, head(module(images).pooler_output), record_property)

    def test_no_projection_for_open_clip(self, hf_config: Any, tmp_path: Path) -> None:
        from transformers import CLIPVisionModel

        CLIPVisionModel(hf_config.vision_config).save_pretrained(tmp_path)
        with pytest.raises(MismatchError, match=r"missing tensor 'visual_projection.weight'.*timm"):
            import_model(tmp_path / "model.safetensors", TINY_QUICK, CLASSES, name="m")

    def test_the_configuration_beside_the_weights_is_compared(self, hf_config: Any, tmp_path: Path) -> None:
        from transformers import CLIPVisionModelWithProjection

        CLIPVisionModelWithProjection(hf_config.vision_config).save_pretrained(tmp_path)
        path = tmp_path / "config.json"
        own = json.loads(path.read_text())
        wrong = {"hidden_act": "gelu", "num_attention_heads": 4, "layer_norm_eps": 1e-6}
        for key, value in wrong.items():
            path.write_text(json.dumps({**own, key: value}))
            with pytest.raises(MismatchError, match=f"config.json says {key} {value}, open_clip/tiny-quickgelu has"):
                load_base(TINY_QUICK, tmp_path / "model.safetensors")
        path.write_text('["of another program"]')
        load_base(TINY_QUICK, tmp_path / "model.safetensors")
        path.write_text(json.dumps(own)[:-9])
        with pytest.raises(ArtefactError, match=r"config\.json: expected JSON"):
            load_base(TINY_QUICK, tmp_path / "model.safetensors")

    def test_an_incomplete_triple_is_named(self, hf_config: Any, tmp_path: Path) -> None:
        from transformers import CLIPVisionModelWithProjection

        weights = CLIPVisionModelWithProjection(hf_config.vision_config).state_dict()
        del weights["vision_model.encoder.layers.1.self_attn.k_proj.bias"]
        file = saved(tmp_path / "m.safetensors", weights)
        with pytest.raises(MismatchError, match=r"missing tensor 'transformer\.resblocks\.1\.attn\.in_proj_bias'"):
            load_base(TINY_QUICK, file)


def test_weights_of_another_library_are_refused(timm_vit: Any, clip: Any, tmp_path: Path) -> None:
    file = saved(tmp_path / "vit.safetensors", timm_vit.state_dict())
    with pytest.raises(MismatchError, match=r"expected the weights of open_clip.*found tensors of timm"):
        import_model(file, TINY, CLASSES, name="mine")
    file = saved(tmp_path / "clip.safetensors", clip.state_dict())
    with pytest.raises(MismatchError, match=r"expected the weights of timm.*found tensors of open_clip"):
        import_model(file, architecture("timm/test_vit"), CLASSES, name="mine")
    file = saved(tmp_path / "other.safetensors", {"layer1.weight": torch.zeros(2)})
    with pytest.raises(MismatchError, match=r"found tensors like 'layer1\.weight'"):
        import_model(file, TINY, CLASSES, name="mine")
    file = saved(tmp_path / "resnet.safetensors", {"conv1.weight": torch.zeros(2), "fc.weight": torch.zeros(2)})
    with pytest.raises(MismatchError, match=r"found tensors like 'conv1\.weight'"):
        import_model(file, TINY, CLASSES, name="mine")

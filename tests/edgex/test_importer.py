"""Imported models against the libraries they came from: the same logits, strict names, clear refusals."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgex import checkpoint
from edgex.backbones import Architecture, architecture
from edgex.errors import ArtefactError, MismatchError, UnsupportedError, UsageError
from edgex.importer import import_model, load_base, parse_classes

CLASSES = ("cat", "traffic light", "teapot")
TEMPLATES = ("a photo of a {}.", "a blurry picture of the {}, from above.")
TOLERANCE = 1e-5


def shaken(module: nn.Module, seed: int = 0) -> Any:
    """Moves every parameter away from its neutral start, so that no tensor could be swapped unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name == "logit_scale":
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_((0.02 if parameter.ndim > 1 else 0.1) * noise)
    return module.eval()


def pictures(size: int, seed: int = 1) -> Tensor:
    """Normalised pictures [2, 3, size, size]."""
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


def saved(path: Path, tensors: dict[str, Tensor]) -> Path:
    """Writes tensors as safetensors, or with torch.save where the suffix says so."""
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)
    else:
        torch.save(tensors, path)
    return path


@torch.no_grad()
def assert_same_logits(model: Any, images: Tensor, expected: Tensor, record: Callable[[str, Any], None]) -> None:
    found = model(images).logits
    difference = (found - expected).abs().max().item()
    record("max_abs_difference", difference)
    assert found.std() > 0.01
    assert difference <= TOLERANCE, difference


@pytest.fixture
def timm_vit() -> Any:
    import timm

    torch.manual_seed(0)
    return shaken(timm.create_model("test_vit", num_classes=len(CLASSES)))


@pytest.fixture(scope="module")
def clip(tiny_clips: None) -> Any:
    import open_clip

    torch.manual_seed(0)
    return shaken(open_clip.create_model("tiny-token"))


@pytest.fixture(scope="module")
def hf_config() -> Any:
    """transformers' configuration with the dimensions of open_clip/tiny-quickgelu."""
    from transformers import CLIPConfig

    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 16,
    }
    text = {
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "eos_token_id": 49407,
    }
    shared = {"projection_dim": 32, "hidden_act": "quick_gelu"}
    return CLIPConfig(vision_config={**vision, **shared}, text_config={**text, **shared}, projection_dim=32)


@pytest.fixture
def linear_head(tmp_path: Path) -> Callable[[int], tuple[Path, nn.Linear]]:
    """Makes a random linear head of a width, and its file."""

    def make(width: int) -> tuple[Path, nn.Linear]:
        torch.manual_seed(3)
        head = nn.Linear(width, len(CLASSES))
        return saved(tmp_path / "head.safetensors", dict(head.state_dict())), head

    return make


TINY = Architecture("open_clip/tiny-token", (64, 64), "token")
TINY_QUICK = Architecture("open_clip/tiny-quickgelu", (64, 64), "token")


class TestTimm:
    @pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
    def test_logits_equal_timms(
        self, timm_vit: Any, tmp_path: Path, suffix: str, record_property: Callable[[str, Any], None]
    ) -> None:
        file = saved(tmp_path / f"vit{suffix}", timm_vit.state_dict())
        model, card = import_model(file, architecture("timm/test_vit"), CLASSES, name="mine")
        images = pictures(160)
        with torch.no_grad():
            assert_same_logits(model, images, timm_vit(images), record_property)
        assert card.classes == CLASSES
        assert card.head_kind == "linear"
        assert card.base.fingerprint == checkpoint.fingerprint(model.backbone.tensors())
        assert card.base.name == card.name == "mine"
        assert card.alpha is None

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("test_vit2", {}),  # layer scale and a register token, average pooling
            ("test_vit", {"global_pool": "avg"}),
            ("vit_small_patch14_reg4_dinov2", {"img_size": 56}),
        ],
    )
    def test_logits_of_variants_equal_timms(
        self, name: str, options: dict[str, Any], tmp_path: Path, record_property: Callable[[str, Any], None]
    ) -> None:
        import timm

        module = shaken(timm.create_model(name, num_classes=len(CLASSES), **options))
        file = saved(tmp_path / "vit.safetensors", module.state_dict())
        wanted = architecture(f"timm/{name}", image_size=options.get("img_size"), pooling=options.get("global_pool"))
        model, _ = import_model(file, wanted, CLASSES, name="mine")
        images = pictures(wanted.image_size[0])
        with torch.no_grad():
            assert_same_logits(model, images, module(images), record_property)

    @pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_ema", "model_state_dict"])
    def test_wrapped_checkpoints_are_unwrapped(self, timm_vit: Any, tmp_path: Path, wrapper: str) -> None:
        prefixed = {f"module.{name}": tensor for name, tensor in timm_vit.state_dict().items()}
        file = tmp_path / "checkpoint.pth.tar"
        torch.save({wrapper: prefixed, "epoch": 7}, file)
        model, _ = import_model(file, architecture("timm/test_vit"), CLASSES, name="mine")
        assert torch.equal(model.head.weight, timm_vit.head.weight)

    def test_real_deit_tiny(self, shared: Path, record_property: Callable[[str, Any], None]) -> None:
        import timm

        file = shared / "weights" / "deit_tiny_patch16_224.safetensors"
        reference = timm.create_model("deit_tiny_patch16_224", checkpoint_path=str(file)).eval()
        classes = [str(index) for index in range(1000)]
        model, card = import_model(file, architecture("timm/deit_tiny_patch16_224"), classes, name="deit-tiny")
        images = pictures(224)
        with torch.no_grad():
            assert_same_logits(model, images, reference(images), record_property)
        assert card.base == dataclasses.replace(
            load_base(architecture("timm/deit_tiny_patch16_224"), file)[1], name="deit-tiny"
        )

    def test_missing_extra_and_misshapen_tensors_are_named(self, timm_vit: Any, tmp_path: Path) -> None:
        weights = timm_vit.state_dict()
        cases = {
            "missing tensor 'norm.bias'": {n: t for n, t in weights.items() if n != "norm.bias"},
            "extra tensor 'surplus'": {**weights, "surplus": torch.zeros(2)},
            "'cls_token' has shape [1, 1, 3]": {**weights, "cls_token": torch.zeros(1, 1, 3)},
            "missing tensor 'head.weight'": {n: t for n, t in weights.items() if n != "head.weight"},
            "'head.bias' holds NaN": {**weights, "head.bias": torch.full((3,), math.nan)},
            "'blocks.0.attn.qkv.weight' holds NaN": {
                **weights,
                "blocks.0.attn.qkv.weight": torch.full_like(weights["blocks.0.attn.qkv.weight"], math.inf),
            },
        }
        for message, tensors in cases.items():
            file = saved(tmp_path / "vit.safetensors", tensors)
            with pytest.raises(ArtefactError) as caught:
                import_model(file, architecture("timm/test_vit"), CLASSES, name="mine")
            assert message in str(caught.value)
            assert "\n" not in str(caught.value)

    def test_classes_must_match_the_head(self, timm_vit: Any, tmp_path: Path) -> None:
        file = saved(tmp_path / "vit.safetensors", timm_vit.state_dict())
        arch = architecture("timm/test_vit")
        with pytest.raises(MismatchError, match=r"shape \[3, 64\], expected \[2, 64\] for 2 classes"):
            import_model(file, arch, ("a", "b"), name="mine")
        with pytest.raises(UsageError, match="class 'a' is named twice"):
            import_model(file, arch, ("a", "b", "a"), name="mine")
        with pytest.raises(UsageError, match="at least one class"):
            import_model(file, arch, (), name="mine")
        with pytest.raises(UsageError, match="at least one class"):
            import_model(file, arch, ("a", " ", "b"), name="mine")

    def test_a_linear_head_takes_no_templates(self, timm_vit: Any, tmp_path: Path) -> None:
        file = saved(tmp_path / "vit.safetensors", timm_vit.state_dict())
        with pytest.raises(UsageError, match="has a linear one"):
            import_model(file, architecture("timm/test_vit"), CLASSES, name="mine", templates=["a {}"])

    def test_a_separate_head_replaces_the_own_one(
        self, timm_vit: Any, tmp_path: Path, linear_head: Callable[[int], tuple[Path, nn.Linear]]
    ) -> None:
        file = saved(tmp_path / "vit.safetensors", timm_vit.state_dict())
        head_file, head = linear_head(64)
        model, card = import_model(file, architecture("timm/test_vit"), CLASSES, name="mine", head=head_file)
        assert torch.equal(model.head.weight, head.weight)
        assert [entry["role"] for entry in card.provenance[0]["inputs"]] == ["weights", "head"]


class TestOpenClip:
    @pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
    def test_zero_shot_logits_equal_open_clips(
        self, clip: Any, tmp_path: Path, suffix: str, record_property: Callable[[str, Any], None]
    ) -> None:
        import open_clip

        file = saved(tmp_path / f"clip{suffix}", clip.state_dict())
        model, card = import_model(file, TINY, CLASSES, name="mine", templates=TEMPLATES)
        tokenizer = open_clip.get_tokenizer("tiny-token")
        weight = open_clip.build_zero_shot_classifier(clip, tokenizer, CLASSES, TEMPLATES)
        images = pictures(64)
        with torch.no_grad():
            expected = clip.logit_scale.exp() * clip.encode_image(images, normalize=True) @ weight
            assert_same_logits(model, images, expected, record_property)
        assert card.head_kind == "cosine"
        assert card.head_scale == pytest.approx(clip.logit_scale.exp().item())
        assert card.provenance[0]["templates"] == list(TEMPLATES)

    @pytest.mark.parametrize("name", ["tiny-quickgelu", "tiny-layerscale", "tiny-avg", "tiny-avg-norm-first"])
    def test_logits_of_variants_equal_open_clips(
        self, name: str, tmp_path: Path, record_property: Callable[[str, Any], None]
    ) -> None:
        import open_clip

        module = shaken(open_clip.create_model(name))
        file = saved(tmp_path / "clip.safetensors", module.state_dict())
        model, card = import_model(file, architecture(f"open_clip/{name}"), CLASSES, name="mine")
        assert card.architecture.pooling == ("avg" if "avg" in name else "token")
        weight = open_clip.build_zero_shot_classifier(
            module, open_clip.get_tokenizer(name), CLASSES, ["a photo of a {}."]
        )
        images = pictures(64)
        with torch.no_grad():
            expected = module.logit_scale.exp() * module.encode_image(images, normalize=True) @ weight
            assert_same_logits(model, images, expected, record_property)

    def test_a_published_configuration(self, tmp_path: Path, record_property: Callable[[str, Any], None]) -> None:
        import open_clip

        module = shaken(open_clip.create_model("ViT-S-32-alt"))
        file = saved(tmp_path / "clip.safetensors", module.state_dict())
        model, _ = import_model(file, architecture("open_clip/ViT-S-32-alt"), CLASSES, name="mine")
        tokens = open_clip.get_tokenizer("ViT-S-32-alt")([f"a photo of a {name}." for name in CLASSES])
        images = pictures(224)
        with torch.no_grad():
            assert_same_logits(model, images, module.get_logits(images, tokens)[0], record_property)

    def test_custom_text_models_name_their_text_tower(self, clip: Any, tmp_path: Path) -> None:
        text = ("transformer.", "token_embedding", "positional_embedding", "ln_final", "text_projection")
        renamed = {f"text.{n}" if n.startswith(text) else n: t for n, t in clip.state_dict().items()}
        model, _ = import_model(saved(tmp_path / "c.safetensors", renamed), TINY, CLASSES, name="mine")
        plain = import_model(saved(tmp_path / "p.safetensors", clip.state_dict()), TINY, CLASSES, name="mine")[0]
        assert torch.equal(model.head.weight, plain.head.weight)

    def test_a_linear_head_from_a_file(
        self,
        clip: Any,
        tmp_path: Path,
        linear_head: Callable[[int], tuple[Path, nn.Linear]],
        record_property: Callable[[str, Any], None],
    ) -> None:
        head_file, head = linear_head(32)
        images = pictures(64)
        with torch.no_grad():
            expected = head(clip.encode_image(images))
        for tensors in (
            clip.state_dict(),
            clip.visual.state_dict(),
        ):  # the whole CLIP, or its image tower alone
            file = saved(tmp_path / "clip.safetensors", tensors)
            model, card = import_model(file, TINY, CLASSES, name="mine", head=head_file)
            assert_same_logits(model, images, expected, record_property)
            assert card.head_kind == "linear"

    def test_missing_and_extra_tensors_of_either_tower_are_named(self, clip: Any, tmp_path: Path) -> None:
        weights = clip.state_dict()
        cases = {
            "missing tensor 'logit_scale'": {n: t for n, t in weights.items() if n != "logit_scale"},
            "missing tensor 'ln_final.bias'": {n: t for n, t in weights.items() if n != "ln_final.bias"},
            "missing tensor 'proj'": {n: t for n, t in weights.items() if n != "visual.proj"},
            "extra tensor 'logit_bias'": {**weights, "logit_bias": torch.zeros(())},
            "extra tensor 'surplus'": {**weights, "surplus": torch.zeros(1)},
            "'ln_final.bias' holds NaN": {**weights, "ln_final.bias": torch.full((64,), math.nan)},
        }
        for message, tensors in cases.items():
            file = saved(tmp_path / "clip.safetensors", tensors)
            with pytest.raises(ArtefactError) as caught:
                import_model(file, TINY, CLASSES, name="mine")
            assert message in str(caught.value)

    def test_constants_of_openai_checkpoints_are_no_weights(self, clip: Any, tmp_path: Path) -> None:
        constants = {n: torch.tensor(1) for n in ("input_resolution", "context_length", "vocab_size")}
        file = saved(tmp_path / "clip.safetensors", {**clip.state_dict(), **constants})
        import_model(file, TINY, CLASSES, name="mine")

    @pytest.mark.parametrize("template", ["a photo", "a {} and a {}", "a {name}", "a {", "{0!r}"])
    def test_unusable_templates_are_refused(self, clip: Any, tmp_path: Path, template: str) -> None:
        file = saved(tmp_path / "clip.safetensors", clip.state_dict())
        with pytest.raises(UsageError, match="expected a prompt template"):
            import_model(file, TINY, CLASSES, name="mine", templates=[template])

    def test_no_text_tower_and_no_head(self, clip: Any, tmp_path: Path) -> None:
        file = saved(tmp_path / "clip.safetensors", clip.visual.state_dict())
        with pytest.raises(UsageError, match=r"neither a class head nor a text tower.*--head FILE"):
            import_model(file, TINY, CLASSES, name="mine")

    def test_a_text_tower_of_the_hub_is_refused(self) -> None:
        from edgex.zero_shot import zero_shot_head

        arch = Architecture("open_clip/roberta-ViT-B-32", (224, 224), "token")
        with pytest.raises(UnsupportedError, match=r"roberta.*--head"):
            zero_shot_head(arch, {"logit_scale": torch.ones(())}, CLASSES, TEMPLATES, source="file")


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
        path.write_text("not JSON")
        load_base(TINY_QUICK, tmp_path / "model.safetensors")

    def test_an_incomplete_triple_is_named(self, hf_config: Any, tmp_path: Path) -> None:
        from transformers import CLIPVisionModelWithProjection

        weights = CLIPVisionModelWithProjection(hf_config.vision_config).state_dict()
        del weights["vision_model.encoder.layers.1.self_attn.k_proj.bias"]
        file = saved(tmp_path / "m.safetensors", weights)
        with pytest.raises(MismatchError, match=r"resblocks\.1\.attn\.in_proj_bias' has shape \[256\]"):
            load_base(TINY_QUICK, file)


class TestRecognition:
    def test_weights_of_another_library_are_refused(self, timm_vit: Any, clip: Any, tmp_path: Path) -> None:
        file = saved(tmp_path / "vit.safetensors", timm_vit.state_dict())
        with pytest.raises(MismatchError, match=r"expected the weights of open_clip.*found tensors of timm"):
            import_model(file, TINY, CLASSES, name="mine")
        file = saved(tmp_path / "clip.safetensors", clip.state_dict())
        with pytest.raises(MismatchError, match=r"expected the weights of timm.*found tensors of open_clip"):
            import_model(file, architecture("timm/test_vit"), CLASSES, name="mine")
        file = saved(tmp_path / "other.safetensors", {"layer1.weight": torch.zeros(2)})
        with pytest.raises(MismatchError, match=r"found tensors like 'layer1\.weight'"):
            import_model(file, TINY, CLASSES, name="mine")

    def test_an_edgex_artefact_needs_no_import(self, random_model: Callable[..., Any], tmp_path: Path) -> None:
        model, card = random_model("timm/test_vit")
        checkpoint.save_model(tmp_path / "m.safetensors", model, card)
        with pytest.raises(UsageError, match="is an edgex artefact already"):
            import_model(tmp_path / "m.safetensors", card.architecture, CLASSES, name="mine")

    def test_unusable_head_files_are_refused(self, timm_vit: Any, tmp_path: Path) -> None:
        file = saved(tmp_path / "vit.safetensors", timm_vit.state_dict())
        arch = architecture("timm/test_vit")
        bad = [
            {"weight": torch.zeros(3)},
            {"bias": torch.zeros(3)},
            {"a.weight": torch.zeros(3, 64), "b.weight": torch.zeros(3, 64)},
            {"weight": torch.zeros(3, 64), "scale": torch.zeros(1)},
        ]
        for tensors in bad:
            head = saved(tmp_path / "head.safetensors", tensors)
            with pytest.raises(MismatchError, match=r"head.safetensors: expected a weight \[C, D\]"):
                import_model(file, arch, CLASSES, name="mine", head=head)
        head = saved(tmp_path / "head.safetensors", {"weight": torch.zeros(3, 64), "bias": torch.zeros(2)})
        with pytest.raises(MismatchError, match=r"bias has shape \[2\], expected \[3\]"):
            import_model(file, arch, CLASSES, name="mine", head=head)
        head = saved(tmp_path / "head.safetensors", {"fc.weight": torch.zeros(3, 65), "fc.bias": torch.zeros(3)})
        with pytest.raises(MismatchError, match=r"head.safetensors: the head's weight has shape \[3, 65\]"):
            import_model(file, arch, CLASSES, name="mine", head=head)


class TestCard:
    def test_provenance_base_and_round_trip(self, timm_vit: Any, tmp_path: Path) -> None:
        arch = architecture("timm/test_vit")
        base = {n: t + 1 for n, t in timm_vit.state_dict().items()}
        base_file = saved(tmp_path / "base.safetensors", base)
        file = saved(tmp_path / "tuned.pth", timm_vit.state_dict())
        model, card = import_model(file, arch, CLASSES, name="mine", base_weights=base_file)
        assert card.base.name == "base"
        del base["head.weight"], base["head.bias"]
        assert card.base.fingerprint == checkpoint.fingerprint(base)
        (step,) = card.provenance
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert step["step"] == "import"
        assert step["inputs"] == [{"role": "weights", "name": "tuned.pth", "sha256": digest}]

        checkpoint.save_model(tmp_path / "artefact.safetensors", model, card)
        loaded, loaded_card = checkpoint.load_model(tmp_path / "artefact.safetensors")
        assert loaded_card == card
        images = pictures(160)
        assert torch.equal(loaded(images).logits, model(images).logits)

    def test_preprocessing_can_be_given(self, timm_vit: Any, tmp_path: Path) -> None:
        file = saved(tmp_path / "vit.safetensors", timm_vit.state_dict())
        arch = architecture("timm/test_vit")
        own = import_model(file, arch, CLASSES, name="mine")[1].preprocessing
        given = dataclasses.replace(own, resize=200, interpolation="bilinear")
        card = import_model(file, arch, CLASSES, name="mine", preprocessing=given)[1]
        assert card.preprocessing == given
        card = import_model(file, arch, CLASSES, name="mine", resize=190)[1]
        assert card.preprocessing == dataclasses.replace(own, resize=190)
        wrong = dataclasses.replace(own, image_size=(96, 96))
        with pytest.raises(UsageError, match=r"expected preprocessing to \(160, 160\) px"):
            import_model(file, arch, CLASSES, name="mine", preprocessing=wrong)


class TestLoadBase:
    def test_from_library_weights(self, timm_vit: Any, tmp_path: Path) -> None:
        file = saved(tmp_path / "some_vit.safetensors", timm_vit.state_dict())
        backbone, base = load_base(architecture("timm/test_vit"), file)
        assert base.name == "some_vit"
        assert base.fingerprint == checkpoint.fingerprint(backbone.tensors())
        assert not any(t.is_meta for t in backbone.state_dict().values())
        assert all(p.requires_grad for p in backbone.parameters())

    def test_from_an_artefact_keeps_its_base(self, random_model: Callable[..., Any], tmp_path: Path) -> None:
        model, card = random_model("timm/test_vit")
        card = dataclasses.replace(card, base=checkpoint.Base("ancestor", "f" * 64))
        checkpoint.save_model(tmp_path / "m.safetensors", model, card)
        backbone, base = load_base(card.architecture, tmp_path / "m.safetensors")
        assert base == card.base
        assert all(p.requires_grad for p in backbone.parameters())
        for name, tensor in model.backbone.tensors().items():
            assert torch.equal(backbone.tensors()[name], tensor)

    def test_an_artefact_of_another_architecture(self, random_model: Callable[..., Any], tmp_path: Path) -> None:
        model, card = random_model("timm/test_vit")
        checkpoint.save_model(tmp_path / "m.safetensors", model, card)
        with pytest.raises(MismatchError, match=r"expected weights of timm/test_vit2.*found a model of timm/test_vit "):
            load_base(architecture("timm/test_vit2"), tmp_path / "m.safetensors")


class TestParseClasses:
    def test_forms(self, tmp_path: Path) -> None:
        assert parse_classes("cat, dog,traffic light") == ("cat", "dog", "traffic light")
        lines = tmp_path / "names.txt"
        lines.write_text("cat\n\ndog, large\n", encoding="utf-8")
        assert parse_classes(f"@{lines}") == ("cat", "dog, large")
        listed = tmp_path / "names.json"
        listed.write_text('["cat", "dog"]', encoding="utf-8")
        assert parse_classes(f"@{listed}") == ("cat", "dog")

    @pytest.mark.parametrize("content", ["{", '{"0": "cat"}', "[1, 2]"])
    def test_unusable_json_is_refused(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "names.json"
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UsageError, match="list of class names"):
            parse_classes(f"@{path}")

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="expected a text file with class names"):
            parse_classes(f"@{tmp_path / 'none.txt'}")

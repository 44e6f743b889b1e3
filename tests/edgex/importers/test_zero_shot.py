"""CLIP models of open_clip: zero-shot and linear heads against the library's own logits."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from libraries import CLASSES, TEMPLATES, TINY, assert_same_logits, pictures, saved, shaken
from torch import nn

from edgex.errors import ArtefactError, UnsupportedError, UsageError
from edgex.importers.assembly import import_model
from edgex.models.backbones import Architecture, architecture

pytestmark = pytest.mark.usefixtures("tiny_clips")


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

    @pytest.mark.parametrize("name", ["tiny-coca", "tiny-map", "tiny-timm-head", "tiny-timm-linear"])
    def test_logits_of_other_towers_equal_open_clips(
        self, name: str, tmp_path: Path, record_property: Callable[[str, Any], None]
    ) -> None:
        """CoCa's pooling with attention, and models of timm; SigLIP's logits have a bias, of all classes alike."""
        import open_clip

        module = shaken(open_clip.create_model(name))
        file = saved(tmp_path / "clip.safetensors", module.state_dict())
        model, card = import_model(file, architecture(f"open_clip/{name}"), CLASSES, name="mine")
        tokenizer = open_clip.get_tokenizer(name)
        weight = open_clip.build_zero_shot_classifier(module, tokenizer, CLASSES, ["a photo of a {}."])
        images = pictures(card.architecture.image_size[0])
        with torch.no_grad():
            expected = module.logit_scale.exp() * module.encode_image(images, normalize=True) @ weight
            if module.logit_bias is not None:
                expected = expected + module.logit_bias
            assert_same_logits(model, images, expected, record_property)

    def test_the_image_tower_of_timm_alone(self, tmp_path: Path) -> None:
        """Saved without CLIP's names, inside of them for an architecture of timm, and in a wrapper."""
        import open_clip

        module = shaken(open_clip.create_model("tiny-map"))
        head = saved(tmp_path / "head.safetensors", {"weight": torch.randn(len(CLASSES), 96)})
        siglip, own = architecture("open_clip/tiny-map"), architecture("timm/test_vit3")
        files = {
            "tower": (module.visual.state_dict(), siglip),
            "whole": (module.state_dict(), own),
            "wrapped": ({f"model.{name}": tensor for name, tensor in module.state_dict().items()}, siglip),
        }
        images, found = pictures(160), []
        for name, (tensors, wanted) in files.items():
            file = saved(tmp_path / f"{name}.safetensors", tensors)
            found.append(import_model(file, wanted, CLASSES, name="mine", head=head)[0](images).logits)
        assert all(torch.equal(logits, found[0]) for logits in found[1:])

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

    def test_siglips_prompts_make_a_multi_label_head_and_clips_none(self, clip: Any, tmp_path: Path) -> None:
        """A sigmoid of each prompt's own similarity, as SigLIP is trained."""
        import open_clip

        module = shaken(open_clip.create_model("tiny-map"))
        assert module.logit_bias is not None
        file = saved(tmp_path / "siglip.safetensors", module.state_dict())
        arch = architecture("open_clip/tiny-map")
        images = pictures(arch.image_size[0])
        tokens = open_clip.get_tokenizer("tiny-map")([f"a photo of a {name}." for name in CLASSES])
        with torch.no_grad():
            one = module.encode_image(images, normalize=True) @ module.encode_text(tokens, normalize=True).T
            expected = module.logit_scale.exp() * one + module.logit_bias
        for count in (1, len(CLASSES)):
            model, card = import_model(file, arch, CLASSES[:count], name="mine", multi_label=True)
            with torch.no_grad():
                found = model(images)
            assert (card.head_activation, card.head_kind) == ("sigmoid", "cosine")
            assert (found.logits - expected[:, :count]).abs().max() < 1e-4
            own = found.logits.max(dim=1).values
            assert (found.heatmap.sum(dim=(1, 2)) + found.base - own).abs().max() < 1e-3
        file = saved(tmp_path / "clip.safetensors", clip.state_dict())
        with pytest.raises(UsageError, match="no head for several labels: CLIP's prompts are compared") as raised:
            import_model(file, TINY, CLASSES, name="mine", multi_label=True)
        assert raised.value.argument == "multi_label"
        with pytest.raises(UsageError, match="at least two classes for a zero-shot head, .* found 'cat' alone"):
            import_model(file, TINY, ("cat",), name="mine")

    def test_no_text_tower_and_no_head(self, clip: Any, tmp_path: Path) -> None:
        file = saved(tmp_path / "clip.safetensors", clip.visual.state_dict())
        with pytest.raises(UsageError, match="neither a class head nor a text tower.*: give the class") as caught:
            import_model(file, TINY, CLASSES, name="mine")
        assert caught.value.argument == "head"

    def test_a_text_tower_of_the_hub_is_refused(self) -> None:
        from edgex.importers.zero_shot import zero_shot_head

        arch = Architecture("open_clip/roberta-ViT-B-32", (224, 224), "token")
        with pytest.raises(UnsupportedError, match="roberta.*give the class weights as a file") as caught:
            zero_shot_head(arch, {"logit_scale": torch.ones(())}, CLASSES, TEMPLATES, source="file")
        assert caught.value.argument == "head"

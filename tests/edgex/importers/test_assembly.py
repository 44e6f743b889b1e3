"""Imported models: timm's logits, heads, cards, bases, and clear refusals."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from libraries import CLASSES, assert_same_logits, pictures, saved, shaken
from torch import nn

from edgex.errors import ArtefactError, MismatchError, UnsupportedError, UsageError
from edgex.files import model_file
from edgex.importers.assembly import import_model
from edgex.importers.base_weights import load_base
from edgex.models.backbones import architecture


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
        assert card.base.fingerprint == model_file.fingerprint(model.backbone.tensors())
        assert card.base.name == "vit"
        assert card.name == "mine"
        assert card.alpha is None

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("test_vit2", {}),  # layer scale and a register token, average pooling
            ("test_vit", {"global_pool": "avg"}),
            ("vit_small_patch14_reg4_dinov2", {"img_size": 56}),
            ("test_vit3", {}),  # attention pooling
            ("deit_tiny_distilled_patch16_224", {"img_size": 64}),  # two heads, whose mean is the logit
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

    @pytest.mark.parametrize(
        ("weights", "name"),
        [
            ("deit_tiny_patch16_224", "deit_tiny_patch16_224"),
            ("vit_tiny_patch16_224_augreg", "vit_tiny_patch16_224"),
        ],
    )
    def test_real_weights(
        self, weights: str, name: str, shared: Path, record_property: Callable[[str, Any], None]
    ) -> None:
        import timm

        file = shared / "weights" / f"{weights}.safetensors"
        reference = timm.create_model(name, checkpoint_path=str(file)).eval()
        classes = [str(index) for index in range(1000)]
        model, card = import_model(file, architecture(f"timm/{name}"), classes, name="tiny")
        images = pictures(224)
        with torch.no_grad():
            assert_same_logits(model, images, reference(images), record_property)
        assert card.base == load_base(architecture(f"timm/{name}"), file)[1]

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
        with pytest.raises(MismatchError, match=r"one row for each of 3 classes, found 2 class names: give all names"):
            import_model(file, arch, ("a", "b"), name="mine")
        assert import_model(file, arch, ("a", "\ufeffb ", "a"), name="mine")[1].classes == ("a", "b", "a")
        with pytest.raises(UsageError, match="the names of all classes"):
            import_model(file, arch, (), name="mine")
        with pytest.raises(UsageError, match="the names of all classes"):
            import_model(file, arch, ("a", " ", "b"), name="mine")

    @pytest.fixture
    def one_output(self, tmp_path: Path) -> tuple[Any, Path]:
        """timm's smallest ViT with one output, and its file."""
        import timm

        torch.manual_seed(0)
        module = shaken(timm.create_model("test_vit", num_classes=1))
        return module, saved(tmp_path / "one.safetensors", module.state_dict())

    def test_two_names_for_one_output_are_the_softmax_that_is_its_sigmoid(self, one_output: tuple[Any, Path]) -> None:
        module, file = one_output
        model, card = import_model(file, architecture("timm/test_vit"), ("good", "defect"), name="mine")
        assert (card.classes, card.head_activation) == (("good", "defect"), "softmax")
        images = pictures(160)
        with torch.no_grad():
            found, expected = model(images).logits, module(images)
        assert found[:, 0].abs().max() == 0 and (found[:, 1:] - expected).abs().max() < 1e-5
        assert (found.softmax(-1)[:, 1] - expected.sigmoid()[:, 0]).abs().max() < 1e-6

    def test_one_name_for_one_output_is_a_sigmoid(self, one_output: tuple[Any, Path]) -> None:
        module, file = one_output
        model, card = import_model(file, architecture("timm/test_vit"), ("defect",), name="mine")
        assert (card.classes, card.head_activation) == (("defect",), "sigmoid")
        images = pictures(160)
        with torch.no_grad():
            found, expected = model(images), module(images)
        assert (found.logits - expected).abs().max() < 1e-5
        assert (found.heatmap.sum(dim=(1, 2)) + found.base - expected[:, 0]).abs().max() < 1e-4

    def test_other_names_than_outputs_are_refused(
        self, timm_vit: Any, one_output: tuple[Any, Path], tmp_path: Path
    ) -> None:
        arch = architecture("timm/test_vit")
        with pytest.raises(MismatchError, match="of 1 classes, found 3 class names: .* takes one name, or two for"):
            import_model(one_output[1], arch, CLASSES, name="mine")
        with pytest.raises(MismatchError, match="of 1 classes, found 2 class names"):
            import_model(one_output[1], arch, ("good", "defect"), name="mine", multi_label=True)
        file = saved(tmp_path / "vit.safetensors", timm_vit.state_dict())
        with pytest.raises(MismatchError, match="one row for each of 3 classes, found 1 class names: give all names"):
            import_model(file, arch, ("defect",), name="mine")

    @pytest.mark.parametrize(
        ("weight", "bias", "said"),
        [
            ((1, 64), (), r"the head's bias has shape \[\], expected \[1\]"),
            ((1, 64), (1, 1), r"the head's bias has shape \[1, 1\], expected \[1\]"),
            ((1, 64), (2,), r"the head's bias has shape \[2\], expected \[1\]"),
            ((1,), (1,), r"the head's weight has shape \[1\], expected \[2, 64\]"),
            ((), (1,), r"the head's weight has shape \[\], expected \[2, 64\]"),
            ((0, 64), (0,), "one row for each of 0 classes, found 2"),
        ],
    )
    def test_one_output_of_another_shape_is_named(
        self, one_output: tuple[Any, Path], weight: tuple[int, ...], bias: tuple[int, ...], said: str, tmp_path: Path
    ) -> None:
        tensors = {**one_output[0].state_dict(), "head.weight": torch.ones(weight), "head.bias": torch.ones(bias)}
        file = saved(tmp_path / "odd.safetensors", tensors)
        with pytest.raises(MismatchError, match=said):
            import_model(file, architecture("timm/test_vit"), ("good", "defect"), name="mine")

    def test_a_sigmoid_head_of_zeros_is_refused(self, timm_vit: Any, tmp_path: Path) -> None:
        timm_vit.head.weight.data.zero_()
        file = saved(tmp_path / "vit.safetensors", timm_vit.state_dict())
        with pytest.raises(UnsupportedError, match="the head has no weights but zero, so that no score depends"):
            import_model(file, architecture("timm/test_vit"), CLASSES, name="mine", multi_label=True)

    def test_rows_that_are_alike_are_labels_but_no_classes(self, timm_vit: Any, tmp_path: Path) -> None:
        timm_vit.head.weight.data[:] = timm_vit.head.weight.data[0].clone()
        file = saved(tmp_path / "vit.safetensors", timm_vit.state_dict())
        with pytest.raises(UnsupportedError, match="the same weights for every class"):
            import_model(file, architecture("timm/test_vit"), CLASSES, name="mine")
        assert import_model(file, architecture("timm/test_vit"), CLASSES, name="mine", multi_label=True)

    def test_a_head_without_a_difference_between_classes_is_refused(self, timm_vit: Any, tmp_path: Path) -> None:
        for weight in (torch.zeros(3, 64), torch.ones(3, 64)):
            file = saved(tmp_path / "vit.safetensors", {**timm_vit.state_dict(), "head.weight": weight})
            with pytest.raises(UnsupportedError, match="the same weights for every class"):
                import_model(file, architecture("timm/test_vit"), CLASSES, name="mine")

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


class TestRefusals:
    def test_an_edgex_artefact_needs_no_import(self, random_model: Callable[..., Any], tmp_path: Path) -> None:
        model, card = random_model("timm/test_vit")
        model_file.save_model(tmp_path / "m.safetensors", model, card)
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
        assert card.base.fingerprint == model_file.fingerprint(base)
        (step,) = card.provenance
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert step["step"] == "import"
        assert step["inputs"] == [{"role": "weights", "name": "tuned.pth", "sha256": digest}]

        model_file.save_model(tmp_path / "artefact.safetensors", model, card)
        loaded, loaded_card = model_file.load_model(tmp_path / "artefact.safetensors")
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
        wrong = dataclasses.replace(own, image_size=(96, 96))
        with pytest.raises(UsageError, match=r"expected preprocessing to \(160, 160\) px"):
            import_model(file, arch, CLASSES, name="mine", preprocessing=wrong)


class TestCheckpoints:
    def test_the_choice_among_several_weights_is_told_and_recorded(self, timm_vit: Any, tmp_path: Path) -> None:
        plain = timm_vit.state_dict()
        averaged = {name: 2 * tensor for name, tensor in plain.items()}
        file = tmp_path / "c.pth"
        torch.save({"state_dict": plain, "state_dict_ema": averaged, "args": argparse.Namespace(lr=0.1)}, file)
        said: list[str] = []
        arch = architecture("timm/test_vit")
        model, card = import_model(file, arch, CLASSES, name="mine", report=said.append)
        assert torch.equal(model.head.weight, averaged["head.weight"])
        assert said == ["weights taken from 'state_dict_ema'; the file also has 'state_dict', to be chosen by key"]
        assert card.provenance[0]["inputs"][0]["key"] == "state_dict_ema"
        assert card.base.name == "c:state_dict_ema"
        model, card = import_model(file, arch, CLASSES, name="mine", weights_key="state_dict")
        assert torch.equal(model.head.weight, plain["head.weight"])
        assert card.provenance[0]["inputs"][0]["key"] == "state_dict"

    @pytest.mark.parametrize(
        "wrapper", ["_orig_mod.", "module._orig_mod.", "_fsdp_wrapped_module.", "model.", "net.vit."]
    )
    def test_logits_of_wrapped_models_equal_timms(
        self, timm_vit: Any, tmp_path: Path, record_property: Callable[[str, Any], None], wrapper: str
    ) -> None:
        state = {wrapper + name: tensor for name, tensor in timm_vit.state_dict().items()}
        torch.save({"state_dict": state | {"n_averaged": torch.tensor(3)}}, tmp_path / "c.ckpt")
        model, _ = import_model(tmp_path, architecture("timm/test_vit"), CLASSES, name="mine")
        images = pictures(160)
        with torch.no_grad():
            assert_same_logits(model, images, timm_vit(images), record_property)

    @pytest.mark.filterwarnings("ignore:.*torch.jit")
    def test_logits_of_a_torchscript_archive_equal_timms(
        self, timm_vit: Any, tmp_path: Path, record_property: Callable[[str, Any], None]
    ) -> None:
        # The tracer does not take timm's own forward pass. Any other one gives the archive the same names and weights.
        traced = torch.jit.trace_module(timm_vit, {"forward_head": torch.ones(1, 5, 64)})
        torch.jit.save(traced, tmp_path / "c.pt")
        model, card = import_model(tmp_path / "c.pt", architecture("timm/test_vit"), CLASSES, name="mine")
        assert "key" not in card.provenance[0]["inputs"][0]
        images = pictures(160)
        with torch.no_grad():
            assert_same_logits(model, images, timm_vit(images), record_property)

    def test_every_shard_is_in_the_provenance(self, timm_vit: Any, tmp_path: Path) -> None:
        state = timm_vit.state_dict()
        owners = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(state)}
        for shard in set(owners.values()):
            saved(tmp_path / shard, {name: tensor for name, tensor in state.items() if owners[name] == shard})
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": owners}), encoding="utf-8")
        _, card = import_model(tmp_path, architecture("timm/test_vit"), CLASSES, name="mine")
        assert [step["name"] for step in card.provenance[0]["inputs"]] == [
            "model.safetensors.index.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ]

    @pytest.mark.parametrize(
        ("name", "change", "message"),
        [
            ("head_dist.weight", lambda _: torch.ones(2, 2), "head_dist.weight"),
            ("blocks.0.attn.qkv.weight", lambda tensor: tensor.to(torch.int8), "'blocks.0.attn.qkv.weight' holds int8"),
            (
                "blocks.0.attn.qkv.weight",
                lambda tensor: tensor.to(torch.int64),
                "'blocks.0.attn.qkv.weight' holds int64",
            ),
            ("head.weight", lambda tensor: tensor.to(torch.int64), "'head.weight' holds int64"),
            ("head.weight", lambda tensor: tensor.double() * 1e300, "'head.weight' holds values up to"),
            ("norm.weight", lambda tensor: tensor * 3e37, "'norm.weight' holds a value of"),
            ("norm.weight", lambda tensor: tensor * float("nan"), "'norm.weight' holds NaN"),
        ],
    )
    def test_tensors_that_are_no_weights_are_named(
        self, timm_vit: Any, tmp_path: Path, name: str, change: Callable[[Any], Any], message: str
    ) -> None:
        state = timm_vit.state_dict()
        torch.save({**state, name: change(state.get(name))}, tmp_path / "c.pth")
        with pytest.raises(ArtefactError, match=re.escape(message)):
            import_model(tmp_path / "c.pth", architecture("timm/test_vit"), CLASSES, name="mine")

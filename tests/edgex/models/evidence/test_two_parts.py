"""Evidence of two parts: the sum of what its parts say alone, in models, files, vectors and bakes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgex.errors import ArtefactError, MismatchError, UsageError
from edgex.files.model_file import load_model, save_model
from edgex.files.vector_file import load_vector_card, save_vector
from edgex.models.evidence import Evidence, Own
from edgex.models.evidence.selection import averaged
from edgex.models.self_explaining import SelfExplainingViT
from edgex.runtime.metadata import evidence_in_words
from edgex.training.vector_training import with_evidence
from edgex.vectors.arithmetic import combine
from edgex.vectors.bake import add_vector
from vectors import fitting

pytestmark = pytest.mark.usefixtures("tiny_clips")

OWN = Own(2, 0.4, 0.75)
QK_NORM = {"qk_norm": True, "reg_tokens": 2, "depth": 4}


def shaken(model: SelfExplainingViT, blocks: int, own: Own | None) -> SelfExplainingViT:
    """The model with a readout that is away from the weights it copies."""
    made = with_evidence(model, blocks, readout=True, own=own)
    assert made.readout is not None
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in made.readout.tensors().values():
            tensor.add_(0.5 * tensor.std() * torch.randn(tensor.shape, generator=generator))
    return made


def images_for(model: SelfExplainingViT, count: int = 2) -> torch.Tensor:
    size = model.backbone.architecture.image_size
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


def blurred(maps: torch.Tensor) -> torch.Tensor:
    """The mean of each patch and its neighbours, one patch after another, [N, gh, gw]."""
    found = torch.empty_like(maps)
    for row in range(maps.shape[1]):
        for column in range(maps.shape[2]):
            around = maps[:, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            found[:, row, column] = around.flatten(1).mean(dim=1)
    return found


@pytest.mark.parametrize(("blocks", "own"), [(3, OWN), (1, Own(3, 1.0, 0.0)), (2, Own(2, -0.5, 1.0))])
@pytest.mark.parametrize(
    ("name", "options"), [("timm/test_vit", None), ("timm/test_vit", QK_NORM), ("open_clip/tiny-token", None)]
)
@torch.no_grad()
def test_it_is_the_sum_of_its_parts(
    random_model: Callable[..., Any], name: str, options: dict[str, Any] | None, blocks: int, own: Own
) -> None:
    model, _ = random_model(name, options=options)
    images = images_for(model)
    both, readout = shaken(model, blocks, own), shaken(model, blocks, None)
    tokens, classes = model.backbone.embed(images), torch.tensor([[0], [3]])
    alone = with_evidence(model, own.blocks).evidence_of(tokens, classes)[1][:, 0].unflatten(1, model.backbone.grid)
    expected = readout.evidence_of(tokens, classes)[1][:, 0].unflatten(1, model.backbone.grid)
    expected = expected + own.weight * ((1 - own.blur) * alone + own.blur * blurred(alone))
    logits, found = both.evidence_of(tokens, classes)
    assert torch.allclose(found[:, 0].unflatten(1, model.backbone.grid), expected, atol=1e-5)
    assert torch.equal(logits, readout.evidence_of(tokens, classes)[0])
    # Of each feature, for learning; a linear head's evidence is that of its features times its weights.
    features, per_feature, _ = both.feature_evidence(tokens)
    of_class = (model.head.explained_weight()[classes] @ per_feature)[:, 0]
    assert torch.allclose(of_class, found[:, 0], atol=1e-4)
    output = both(images)
    centred = output.logits.gather(1, output.logits.argmax(1, keepdim=True))[:, 0] - output.logits.mean(dim=1)
    assert torch.allclose(output.heatmap.sum(dim=(1, 2)) + output.base, centred, atol=1e-4)
    assert features.shape == (2, model.backbone.output_width)


def test_folded_classes_give_the_same_heatmap(random_model: Callable[..., Any]) -> None:
    model, _ = random_model("timm/test_vit", classes=5)
    both = shaken(model, 3, OWN)
    images, explained = images_for(model, 3), torch.tensor([-1, 4, 0])
    plain = both(images, explained).heatmap
    folded = both.freeze().fold_classes()(images, explained).heatmap
    assert torch.allclose(folded, plain, rtol=1e-4, atol=1e-5)
    assert not torch.equal(folded, plain)


def test_files_say_what_it_is_made_of(random_model: Callable[..., Any], tmp_path: Path) -> None:
    model, card = random_model("timm/test_vit")
    both = shaken(model, 3, OWN)
    path = tmp_path / "both.safetensors"
    save_model(path, both, dataclasses.replace(card, evidence=both.evidence), dtype=torch.float32)
    loaded, read = load_model(path)
    assert read.evidence.own == OWN
    images = images_for(model)
    assert torch.allclose(loaded(images).heatmap, both(images).heatmap, atol=1e-6)
    expected = (
        "class-attention of the last 3 blocks with a readout and 0.4 of the model's own of the last 2 blurred by 0.75"
    )
    assert str(read.evidence) == f"{expected}, scale 1"
    assert evidence_in_words(card.evidence.to_dict()) == "class-attention of the last 4 blocks, scale 1"
    assert "own" not in card.evidence.to_dict(), "files of one part stay as they were"
    for wrong, message in (
        ({"blocks": 0, "weight": 1, "blur": 0}, "evidence: own.blocks: expected a whole number of at least 1"),
        ({"blocks": 1, "weight": "much", "blur": 0}, "evidence: own.weight: expected a number"),
        ({"blocks": 1}, "found none of weight, blur"),
    ):
        with pytest.raises(ArtefactError, match=message):
            Evidence.from_dict({**both.evidence.to_dict(), "own": wrong})


def test_bakes_and_sums_keep_both_parts(random_model: Callable[..., Any], tmp_path: Path) -> None:
    model, card = random_model("timm/test_vit")
    target, vector = tmp_path / "target.safetensors", tmp_path / "vector.safetensors"
    save_model(target, model, card, dtype=torch.float32)
    both = shaken(model, 3, OWN)
    assert both.readout is not None
    own = model.backbone.tensors()
    deltas = {name: (copy - own[name]).detach() for name, copy in both.readout.tensors().items()}

    def write(path: Path, evidence: Evidence) -> None:
        save_vector(path, deltas, fitting(model, card, deltas, evidence=evidence), dtype=torch.float32)

    write(vector, dataclasses.replace(both.evidence, scale=0.5))
    baked = tmp_path / "baked.safetensors"
    add_vector(target, vector, baked, alpha=1.0)
    found = load_model(baked)
    assert found.card.evidence == dataclasses.replace(both.evidence, scale=0.5)
    images = images_for(model)
    shape = both(images).heatmap - both(images).heatmap.mean(dim=(1, 2), keepdim=True)
    baked_shape = found.network(images).heatmap - found.network(images).heatmap.mean(dim=(1, 2), keepdim=True)
    assert torch.allclose(baked_shape, 0.5 * shape, atol=1e-5)

    other = tmp_path / "other.safetensors"
    write(other, dataclasses.replace(both.evidence, scale=1.5, own=Own(2, 0.8, 0.25)))
    combined = combine([vector, other], tmp_path / "sum.safetensors", name="sum", weights=[1.0, 3.0])
    assert combined.evidence.scale == pytest.approx(0.25 * 0.5 + 0.75 * 1.5)
    assert combined.evidence.factors == pytest.approx({"weight": 0.7, "blur": 0.375})
    assert load_vector_card(tmp_path / "sum.safetensors")[0].evidence.own is not None
    write(other, dataclasses.replace(both.evidence, own=None))
    with pytest.raises(MismatchError, match="combine vectors that make their heatmap of the same blocks"):
        combine([vector, other], tmp_path / "x.safetensors", name="x")


def test_what_cannot_be_two_parts_is_refused(random_model: Callable[..., Any]) -> None:
    model, _ = random_model("timm/test_vit")
    with pytest.raises(UsageError, match="stands beside that of a readout"):
        with_evidence(model, 2, own=OWN)
    with pytest.raises(UsageError, match="own part of 99 blocks, but the model has 6"):
        with_evidence(model, 2, readout=True, own=Own(99))
    with pytest.raises(UsageError, match="evidence of the last 4 blocks cannot start at block 3"):
        both = with_evidence(model, 2, readout=True, own=Own(4))
        both.feature_evidence(model.backbone.embed(images_for(model)), start=3)


@torch.no_grad()
def test_the_correction_may_stand_in_the_base(random_model: Callable[..., Any]) -> None:
    model, _ = random_model("timm/test_vit")
    plain = shaken(model, 3, OWN)
    moved = SelfExplainingViT(plain.backbone, plain.head, dataclasses.replace(plain.evidence, correction="base"))
    assert moved.readout is not None and plain.readout is not None
    moved.readout.load({name: tensor.detach() for name, tensor in plain.readout.tensors().items()})
    images, classes = images_for(model, 3), torch.tensor([-1, 3, 9])
    before, after = plain(images, classes), moved(images, classes)
    assert torch.equal(before.logits, after.logits)
    both = before.heatmap - after.heatmap
    assert float(both[:2].flatten(1).std(dim=1).max()) < 1e-5, "the same on every patch"
    assert float(both[:2].abs().min()) > 1e-4
    sums = [found.heatmap.sum(dim=(1, 2)) + found.base for found in (before, after)]
    assert torch.allclose(sums[0][:2], sums[1][:2], atol=1e-4), "they add up to the same score"
    evidence = moved.evidence.scale * moved.evidence_of(model.backbone.embed(images[1:2]), classes[None, 1:2])[1]
    assert torch.allclose(after.heatmap[1].flatten(), evidence.flatten(), atol=1e-6)
    assert after.heatmap[2].isnan().all() and after.base[2].isnan(), "no such class"
    assert Evidence.from_dict(moved.evidence.to_dict()) == moved.evidence
    assert "correction" not in plain.evidence.to_dict()
    assert str(moved.evidence).endswith("scale 1, the rest of the score in the base")


def test_where_the_correction_goes_does_not_depend_on_the_order_of_vectors() -> None:
    old, new = (
        Evidence("class-attention", 4, 1.0, readout=True),
        Evidence("class-attention", 4, 3.0, True, None, "base"),
    )
    assert averaged([old, new], [0.5, 0.5]) == averaged([new, old], [0.5, 0.5])
    assert averaged([old, new], [0.5, 0.5]) == Evidence("class-attention", 4, 2.0, True, None, "base")
    assert averaged([old, old], [0.5, 0.5]) == old

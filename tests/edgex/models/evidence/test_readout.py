"""Readouts: heatmaps from attention weights of their own, classes without them; files and bakes that hold them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from edgex.data import image_folders
from edgex.errors import ArtefactError, MismatchError, UsageError
from edgex.files import tensor_file
from edgex.files.model_file import READOUT_PREFIX, load_model, save_model
from edgex.files.tensor_file import TensorFile
from edgex.files.vector_file import load_vector, save_vector
from edgex.models.evidence.readout import Readout, ReadoutEvidence
from edgex.models.self_explaining import SelfExplainingViT
from edgex.shapley.labels import LabelOptions, label
from edgex.shapley.solver import solve_pairs
from edgex.training.losses import FeatureTerm
from edgex.training.vector_training import with_evidence
from edgex.utils.processes import Processes
from edgex.vectors import alpha
from edgex.vectors.bake import add_vector
from pictures import draw, picture_folder
from vectors import fitting

pytestmark = pytest.mark.usefixtures("tiny_clips")

NAMES = ["timm/test_vit", "open_clip/tiny-token", "open_clip/tiny-layerscale"]
NORMALISED = {"qk_norm": True, "init_values": 1e-5, "reg_tokens": 2, "depth": 3}
"""Options of a model that normalises queries and keys, with layer scale and registers."""
CASES = [*((name, None) for name in NAMES), ("timm/test_vit", NORMALISED)]


def with_readout(model: SelfExplainingViT, blocks: int = 2, noise: float = 0.0) -> SelfExplainingViT:
    """The model with a readout, moved away from the weights it is a copy of."""
    read = with_evidence(model, blocks, readout=True)
    assert read.readout is not None
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for tensor in read.readout.tensors().values():
            tensor.add_(noise * tensor.std() * torch.randn(tensor.shape, generator=generator))
    return read


def images_for(model: SelfExplainingViT, count: int = 2) -> torch.Tensor:
    size = model.backbone.architecture.image_size
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_copy_reads_what_the_model_reads(
    random_model: Callable[..., Any], name: str, options: dict[str, Any] | None
) -> None:
    model, _ = random_model(name, options=options)
    plain, read = with_evidence(model, 2)(images_for(model)), with_readout(model)(images_for(model))
    assert torch.equal(plain.logits, read.logits)
    assert torch.allclose(plain.heatmap, read.heatmap, atol=1e-5 * float(plain.heatmap.abs().max()))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_heatmap_is_what_the_copies_write(
    random_model: Callable[..., Any], name: str, options: dict[str, Any] | None
) -> None:
    """Against attention as the textbook writes it, one block, head and patch after another, without any folding."""
    model, _ = random_model(name, options=options)
    read = with_readout(model, noise=0.5)
    assert isinstance(read.readout, Readout)
    backbone, copies = read.backbone, read.readout.tensors()
    image = images_for(read, 1)
    tokens, written = backbone.embed(image), torch.zeros(backbone.patches, backbone.width)
    for index, block in enumerate(backbone.blocks):
        if index >= len(backbone.blocks) - 2:
            weights, biases, last = read.readout.names[index - len(backbone.blocks) + 2]
            weight, bias, project = (copies[str(name)] for name in (*weights, *biases, last))
            query, key, value = F.linear(block.norm1(tokens)[0], weight, bias).chunk(3, dim=-1)
            for head in range(block.heads):
                own = slice(head * block.head_dim, (head + 1) * block.head_dim)
                if options:
                    attention: Any = block.module.attn
                    query[:, own], key[:, own] = attention.q_norm(query[:, own]), attention.k_norm(key[:, own])
                seen = (query[0, own] @ key[:, own].T / block.head_dim**0.5).softmax(dim=0)
                for patch in range(backbone.patches):
                    place = backbone.prefix_tokens + patch
                    part = seen[place] * (project[:, own] @ value[place, own])
                    gamma = block.gamma1()
                    written[patch] += part if gamma is None else part * gamma
        tokens = block.module(tokens)
    found, evidence, _ = read.feature_evidence(backbone.embed(image))
    sigma = torch.sqrt(tokens[0, 0].var(unbiased=False) + backbone.norm.eps)
    seen = (written - written.mean(dim=1, keepdim=True)) / sigma * backbone.norm.weight
    pooled = backbone.norm(tokens[:, 0])
    if backbone.projection is not None:
        seen, pooled = seen @ backbone.projection, pooled @ backbone.projection
    seen = seen * read.head.slope(pooled)
    assert torch.allclose(evidence[0].T, seen, atol=1e-4 * float(seen.abs().max()))

    outputs = read(image)
    assert torch.allclose(F.linear(found, read.head.weight, read.head.bias), outputs.logits, atol=1e-5)
    explained = int(outputs.logits.argmax())
    direct = read.evidence.scale * seen @ read.head.explained_weight()[explained]
    correction = outputs.heatmap.flatten() - direct
    assert float(correction.std(unbiased=False)) < 1e-4 * float(outputs.heatmap.abs().max()), "one number for all"
    centred = outputs.logits[0, explained] - outputs.logits.mean()
    assert float(outputs.heatmap.sum() + outputs.base[0]) == pytest.approx(float(centred), abs=1e-4)


@pytest.mark.parametrize(("name", "options"), [("open_clip/ViT-S-32", None), ("timm/test_vit", NORMALISED)])
def test_folded_classes_give_the_same_heatmap(
    random_model: Callable[..., Any], name: str, options: dict[str, Any] | None
) -> None:
    model, _ = random_model(name, classes=5, options=options)
    read = with_readout(model, noise=0.5)
    images, explained = images_for(read, 3), torch.tensor([-1, 4, 0])
    plain = read(images, explained)
    folded = read.freeze().fold_classes()
    assert isinstance(folded.strategy, ReadoutEvidence) and folded.strategy.folded is not None
    assert torch.allclose(folded(images, explained).heatmap, plain.heatmap, rtol=1e-4, atol=1e-5)
    double = folded.double()(images.double(), explained)
    assert torch.allclose(double.heatmap.float(), plain.heatmap, rtol=1e-4, atol=1e-5), "it moves with the model"
    folded.float()
    with torch.no_grad():
        for tensor in read.train().readout.tensors().values():  # type: ignore[union-attr]
            tensor.zero_()
    assert not torch.allclose(read(images, explained).heatmap, plain.heatmap, atol=1e-3), "training folds nothing"


def test_many_classes_are_not_folded(random_model: Callable[..., Any]) -> None:
    """The table would be larger than what it is made of: 4 * 64 * blocks * heads * width numbers at 4 * 64 classes."""
    for classes, folds in ((4 * 64, True), (4 * 64 + 1, False)):
        model, _ = random_model("open_clip/ViT-S-32", classes=classes)
        read = with_readout(model).freeze().fold_classes()
        assert isinstance(read.strategy, ReadoutEvidence)
        assert (read.strategy.folded is not None) is folds


def test_classes_are_made_without_the_readout(random_model: Callable[..., Any]) -> None:
    model, _ = random_model("timm/test_vit")
    images = images_for(model)
    plain, read = model(images), with_readout(model, noise=1.0)(images)
    assert torch.equal(plain.logits, read.logits)
    assert torch.equal(plain.base, read.base)
    assert not torch.allclose(with_evidence(model, 2)(images).heatmap, read.heatmap, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_files_hold_readouts(random_model: Callable[..., Any], tmp_path: Path, dtype: torch.dtype) -> None:
    model, card = random_model("timm/test_vit")
    read = with_readout(model, noise=0.5)
    path = tmp_path / "read.safetensors"
    save_model(path, read, dataclasses.replace(card, evidence=read.evidence), dtype=dtype)
    again, loaded = load_model(path)
    assert loaded.evidence == read.evidence
    if dtype == torch.float32:
        assert torch.equal(again(images_for(model)).heatmap, read(images_for(model)).heatmap)
    with TensorFile(path) as file:
        metadata, tensors = dict(file.metadata), {name: file.read(name) for name in file.tensors}
    missing = next(name for name in tensors if name.startswith(READOUT_PREFIX))
    for change, message in (
        (lambda t, m: t.pop(missing), f"missing tensor '{missing}'"),
        (lambda t, m: m["evidence"].update(readout=False), "extra tensor 'readout"),
        (lambda t, m: m["evidence"].update(blocks=1), "extra tensor 'readout"),
        (lambda t, m: t[missing].view(-1)[:1].fill_(float("nan")), "holds NaN"),
    ):
        described, stored = (
            {**metadata, "evidence": dict(metadata["evidence"])},
            {n: t.clone() for n, t in tensors.items()},
        )
        change(stored, described)
        tensor_file.write_tensors(path, described, stored)
        with pytest.raises(ArtefactError, match=message):
            load_model(path)


@pytest.fixture
def pair(random_model: Callable[..., Any], tmp_path: Path) -> tuple[Path, Path, dict[str, torch.Tensor]]:
    """A target and a vector for its readout, in files, and the vector's deltas."""
    model, card = random_model("timm/test_vit", alpha=None, classes=3)
    target, vector = tmp_path / "target.safetensors", tmp_path / "vector.safetensors"
    save_model(target, model, card)
    read = with_readout(model)
    assert read.readout is not None
    generator = torch.Generator().manual_seed(2)
    deltas = {
        name: 0.05 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in read.readout.tensors().items()
        if name.endswith("weight")
    }
    tau = fitting(model, card, deltas, evidence=dataclasses.replace(read.evidence, scale=0.5), alpha=2.0)
    save_vector(vector, deltas, tau, dtype=torch.float32)
    return target, vector, deltas


def test_a_bake_adds_to_copies(pair: tuple[Path, Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    target, vector, deltas = pair
    out, twice = tmp_path / "baked.safetensors", tmp_path / "twice.safetensors"
    card, _ = add_vector(target, vector, out, alpha=1.5)
    assert card.evidence.readout
    with TensorFile(target) as before, TensorFile(out) as after:
        for name in before.tensors:
            assert before.read_bytes(name) == after.read_bytes(name), "what classes are made of is copied byte for byte"
        copies = [name for name in after.tensors if name not in before.tensors]
        assert len(copies) == 6, "weight, bias and output projection of two blocks"
        for name in copies:
            key = name.removeprefix(READOUT_PREFIX)
            own = before.read("backbone." + key)
            assert torch.equal(after.read(name), own + deltas[key] * 1.5 if key in deltas else own)
    assert add_vector(out, vector, twice, alpha=-1.5)[0].alpha == 0.0
    model, _ = load_model(target)
    back, _ = load_model(twice)
    expected = with_evidence(model, 2)(images_for(model)).heatmap
    spread = expected - expected.mean(dim=(1, 2), keepdim=True)
    found = back(images_for(model)).heatmap
    found = (found - found.mean(dim=(1, 2), keepdim=True)) / 0.5
    assert torch.allclose(spread, found, atol=1e-4 * float(spread.abs().max())), "there and back again"


def test_what_does_not_belong_to_a_readout_is_refused(
    pair: tuple[Path, Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    target, vector, deltas = pair
    out, other = tmp_path / "baked.safetensors", tmp_path / "other.safetensors"
    add_vector(target, vector, out, alpha=1.0)
    _, tau = load_vector(vector)
    plain = dataclasses.replace(tau, evidence=dataclasses.replace(tau.evidence, readout=False))
    save_vector(other, deltas, plain, dtype=torch.float32)
    with pytest.raises(MismatchError, match="of the last 2 blocks with a readout, .* from an earlier bake"):
        add_vector(out, other, tmp_path / "x.safetensors", alpha=1.0)
    stray = "norm.weight"
    unchanged = tuple(name for name in tau.unchanged if name != stray)
    save_vector(
        other, {**deltas, stray: torch.ones(64)}, dataclasses.replace(tau, unchanged=unchanged), dtype=torch.float32
    )
    with pytest.raises(MismatchError, match="'norm.weight' has a delta, but no place in its readout"):
        add_vector(target, other, tmp_path / "x.safetensors", alpha=1.0)
    with TensorFile(out) as file:
        metadata, tensors = dict(file.metadata), {name: file.read(name) for name in file.tensors}
    lost = next(name for name in tensors if name.startswith(READOUT_PREFIX))
    tensor_file.write_tensors(out, metadata, {name: tensor for name, tensor in tensors.items() if name != lost})
    with pytest.raises(MismatchError, match=f"missing tensor '{lost}' of its readout"):
        add_vector(out, vector, tmp_path / "x.safetensors", alpha=1.0)
    assert not (tmp_path / "x.safetensors").exists()


def test_accuracy_limits_no_readout(pair: tuple[Path, Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    target, vector, _ = pair
    pictures = image_folders.labelled(picture_folder(tmp_path / "pictures", {"": 4}))
    assert alpha.choose(target, vector, pictures, max_drop=0.0, max_alpha=0.5).alpha == 0.5
    choice = alpha.choose(target, vector, pictures, max_drop=0.0, max_alpha=4.0)
    assert choice.alpha == 2.0, "the recommended one"
    assert len({accuracy for _, accuracy in choice.curve}) == 1
    baked = tmp_path / "baked.safetensors"
    add_vector(target, vector, baked, alpha=choice.alpha)
    model, _ = load_model(baked)
    assert torch.equal(model(images_for(model)).logits, load_model(target).network(images_for(model)).logits)


def test_feature_labels_are_class_labels_before_the_head(random_model: Callable[..., Any], tmp_path: Path) -> None:
    """And a heatmap that says what they say has no error."""
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for index, path in enumerate(paths):
        draw("blue disc", index, size=200).save(path)
    model, card = random_model("open_clip/tiny-token", classes=4)
    options = LabelOptions(pairs=6, side=2, classes=2, features=True)
    alone = Processes(0, 1, torch.device("cpu"))
    labels = label(model, paths, card.preprocessing, options, tmp_path, group=alone, precision="fp32", model_digest="m")
    assert labels.features is not None
    rows = model.head.explained_weight()[labels.classes]
    assert torch.allclose(torch.einsum("vmd,vkd->vmk", labels.features.float(), rows), labels.differences, atol=2e-2)
    term = FeatureTerm(labels, model.backbone.grid, model.head.explained_weight())
    targets = term.targets(torch.arange(3), torch.zeros(3, dtype=torch.bool))
    # Least squares gives each superpixel's share of each feature; all of its patches get the same.
    signs, differences, _ = targets
    total = torch.randn(3, differences.shape[2], generator=torch.Generator().manual_seed(0))
    values = solve_pairs(labels.coalitions, differences, total).float()
    patches = term.members.sum(dim=0)
    evidence = (values / patches[:, None]).mT @ term.members.T
    errors, null = term.errors(torch.tensor(1.0), evidence, total, targets)
    fitted = (signs @ values - differences) @ model.head.explained_weight().T
    direct = fitted.square().mean(dim=(1, 2)) / float(
        (labels.features.float() @ model.head.explained_weight().T).square().mean()
    )
    assert bool((errors >= direct - 1e-5).all())
    assert bool((errors < null).all())
    upper, lower = term.scale_sums(evidence, total, targets)
    assert upper / lower == pytest.approx(1.0, abs=0.35)


def test_what_has_no_readout_is_refused(random_model: Callable[..., Any]) -> None:
    average, _ = random_model("open_clip/tiny-avg")
    with pytest.raises(UsageError, match="avg pooling is not explained by patch-tokens with a readout"):
        with_evidence(average, 2, readout=True)
    model, _ = random_model("timm/test_vit")
    with pytest.raises(UsageError, match="expected a model with a readout"):
        model.feature_evidence(model.backbone.embed(images_for(model)))

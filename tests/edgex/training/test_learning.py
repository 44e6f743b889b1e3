from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgex.errors import UsageError
from edgex.files import torch_file
from edgex.models.evidence import Own
from edgex.models.self_explaining import normalise
from edgex.shapley.labels import LabelOptions, Labels, label
from edgex.training import learning
from edgex.training.learning import LearnOptions
from edgex.training.losses import PairTerm
from edgex.training.resume import TrainingCheckpoint
from edgex.training.token_cache import TokenCache
from edgex.training.vector_training import with_evidence
from edgex.utils.processes import Processes
from pictures import draw

SIDE = 5
ALONE = Processes(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def labels(random_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Labels:
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{index}.png" for index in range(24)]
    for index, path in enumerate(paths):
        draw("blue disc", index, size=200).save(path)
    model, card = random_model("timm/test_vit", classes=4)
    options = LabelOptions(pairs=8, side=SIDE, classes=2)
    return label(model, paths, card.preprocessing, options, folder / "cache", group=ALONE, model_digest="m")


def run(
    model: Any, card: Any, labels: Labels, folder: Path, truth: torch.Tensor | None = None, **change: Any
) -> tuple[learning.Learned, learning.Learned | None]:
    settings = {"blocks": 2, "steps": 6, "batch_size": 8, "look_every": 2, "precision": "fp32", "held_out": 0.25}
    return learning.learn(
        model,
        PairTerm(labels, model.backbone.grid),
        LearnOptions(**{**settings, **change}),
        truth=truth,
        checkpoint=lambda name: TrainingCheckpoint(folder / f"{name}.checkpoint", {"change": str(change)}),
        report=lambda name, row: None,
        group=ALONE,
    )


def test_learning_lowers_the_held_out_error(random_model: Callable[..., Any], labels: Labels, tmp_path: Path) -> None:
    model, card = random_model("timm/test_vit", classes=4)
    learned, without = run(model, card, labels, tmp_path, steps=40, learning_rate=1e-3, look_every=10)
    errors = [row["held_out"] for row in learned.history]
    assert min(errors) < errors[0]
    assert learned.step == learned.history[errors.index(min(errors))]["step"]
    assert without is None


def test_the_mixture_of_two_parts_is_learned_from_labels(
    random_model: Callable[..., Any], labels: Labels, tmp_path: Path
) -> None:
    model, card = random_model("timm/test_vit", classes=4)
    both = with_evidence(model, 2, readout=True, own=Own(3, 1.0, 0.5))
    learned, _ = run(both, card, labels, tmp_path, steps=20, learning_rate=1e-3, look_every=5)
    assert learned.step > 0
    assert learned.factors["weight"] != 1.0 and learned.factors["blur"] != 0.5
    assert both.strategy.factors == learned.factors


def test_only_the_last_blocks_and_the_final_norm_change(
    random_model: Callable[..., Any], labels: Labels, tmp_path: Path
) -> None:
    model, card = random_model("timm/test_vit", classes=4)
    before = {name: tensor.clone() for name, tensor in model.backbone.tensors().items()}
    learned, _ = run(model, card, labels, tmp_path, learning_rate=1e-3, steps=20, patience=99)
    changed = {name for name in before if not torch.equal(before[name], learned.tensors[name])}
    assert changed
    assert all(name.startswith(("blocks.4.", "blocks.5.", "norm.")) for name in changed)
    after = model.backbone.tensors()
    assert all(torch.equal(after[name], learned.tensors[name]) for name in before)


def test_the_predicted_differences_are_those_of_the_heatmap(random_model: Callable[..., Any], labels: Labels) -> None:
    """The loss sees scale * slope + offset; the heatmap of the forward pass must add up to the same."""
    model, card = random_model("timm/test_vit", classes=4)
    options = LearnOptions(blocks=2, precision="fp32")
    term = PairTerm(labels, model.backbone.grid)
    cached = TokenCache(model, term, blocks=2, precision="fp32", group=ALONE)
    crops = torch.arange(3)
    batch = cached.batch(crops, torch.zeros(3, dtype=torch.bool), torch.device("cpu"))
    evidence, total, _ = learning._explained(model, cached, batch, options)
    slope, offset = term.slope_and_offset(evidence, total, batch.targets[0])
    image = normalise(next(labels.crops.batches(3)), card.preprocessing.mean, card.preprocessing.std)
    heatmap = model(image, labels.classes[crops, 1]).heatmap
    pooled = heatmap.reshape(3, SIDE, 2, SIDE, 2).sum(dim=(2, 4)).flatten(1)
    expected = (batch.targets[0] @ pooled[:, :, None])[:, :, 0]
    found = model.evidence.scale * slope[:, :, 1] + offset[:, :, 1]
    # The cache holds tokens in bfloat16.
    assert torch.allclose(found, expected, atol=0.05 * expected.abs().max().item())


def test_without_explanations_holding_the_outputs_has_no_gradient(
    random_model: Callable[..., Any], labels: Labels
) -> None:
    """Why the twin of class loss "hold" is the start itself."""
    model, _ = random_model("timm/test_vit", classes=4)
    options = LearnOptions(blocks=2, precision="fp32")
    cached = TokenCache(model, PairTerm(labels, model.backbone.grid), blocks=2, precision="fp32", group=ALONE)
    trained = learning.Trained(model, 2, 1.0).requires_grad_(True)
    crops = torch.arange(8)
    losses = learning._losses(model, trained.scale, cached, crops, crops % 2 == 0, None, options, torch.device("cpu"))
    held = torch.autograd.grad(losses["class"], list(trained.parts.values()), retain_graph=True)
    explained = torch.autograd.grad(losses["explain"], list(trained.parts.values()))
    assert max(g.abs().max() for g in held) < 1e-4 * max(g.abs().max() for g in explained)


def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    random_model: Callable[..., tuple[Any, Any]], labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = run(*random_model("timm/test_vit", classes=4), labels, tmp_path / "whole")
    original = TrainingCheckpoint.save

    def save_then_stop(self: TrainingCheckpoint, parts: dict[str, Any], position: int) -> None:
        original(self, parts, position)
        if position == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingCheckpoint, "save", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        run(*random_model("timm/test_vit", classes=4), labels, tmp_path / "torn")
    monkeypatch.setattr(TrainingCheckpoint, "save", original)
    resumed, _ = run(*random_model("timm/test_vit", classes=4), labels, tmp_path / "torn")
    assert [row["step"] for row in resumed.history] == [row["step"] for row in whole.history]
    assert all(torch.equal(whole.tensors[name], resumed.tensors[name]) for name in whole.tensors)
    assert whole.scale == resumed.scale


def test_labels_train_a_twin_on_the_same_batches(
    random_model: Callable[..., tuple[Any, Any]], labels: Labels, tmp_path: Path
) -> None:
    truth = torch.arange(len(labels)) % 4
    model, card = random_model("timm/test_vit", classes=4)
    explained, without = run(model, card, labels, tmp_path, truth, class_loss="labels", learning_rate=1e-3, patience=99)
    assert without is not None
    assert any(not torch.equal(explained.tensors[n], without.tensors[n]) for n in explained.tensors)
    again, twin = run(
        *random_model("timm/test_vit", classes=4),
        labels,
        tmp_path / "again",
        truth,
        class_loss="labels",
        learning_rate=1e-3,
        patience=99,
    )
    assert twin is not None
    assert all(torch.equal(without.tensors[n], twin.tensors[n]) for n in twin.tensors)
    assert all(torch.equal(explained.tensors[n], again.tensors[n]) for n in again.tensors)


def test_the_twin_takes_as_many_steps_as_are_kept(
    random_model: Callable[..., tuple[Any, Any]], labels: Labels, tmp_path: Path
) -> None:
    """Were it to run on, the vector would hold what it learned of the classes in the meantime."""
    truth = torch.arange(len(labels)) % 4
    options: dict[str, Any] = {"class_loss": "labels", "learning_rate": 3e-3, "steps": 12, "patience": 1}
    explained, without = run(*random_model("timm/test_vit", classes=4), labels, tmp_path, truth, **options)
    assert without is not None
    assert explained.step < 12
    assert without.history[-1]["step"] == explained.step
    steps = torch_file.load(tmp_path / "with.checkpoint")["position"]
    assert steps > explained.step


def test_bad_options_are_refused(random_model: Callable[..., Any], labels: Labels, tmp_path: Path) -> None:
    model, card = random_model("timm/test_vit", classes=4)
    with pytest.raises(UsageError, match="class loss 'hold' or 'labels'"):
        LearnOptions(class_loss="cosine")
    with pytest.raises(UsageError, match="needs pictures in class folders"):
        run(model, card, labels, tmp_path, class_loss="labels")
    with pytest.raises(UsageError, match="at most 6 blocks"):
        run(model, card, labels, tmp_path, blocks=7)

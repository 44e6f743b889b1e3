"""Learning from fresh coalitions: that it learns, what it sees, and that it goes on where it was stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgex.data.memory import PicturesInMemory
from edgex.errors import UsageError
from edgex.models.evidence import Own
from edgex.models.self_explaining import SelfExplainingViT
from edgex.training import online
from edgex.training.learning import Learned
from edgex.training.online import OnlineOptions, Table, learn_online, slope_and_offset
from edgex.training.resume import TrainingCheckpoint
from edgex.training.vector_training import with_evidence
from edgex.utils.processes import Processes
from pictures import draw

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "minutes": None, "steps": 8, "batch_size": 8, "held_out": 0.25, "device": "cpu", "precision": "fp32",
}  # fmt: skip


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    found = [folder / f"{index}.png" for index in range(16)]
    for index, path in enumerate(found):
        draw("blue disc" if index % 2 else "red disc", index, size=170).save(path)
    return found


@pytest.fixture
def model(random_model: Callable[..., Any]) -> tuple[SelfExplainingViT, Any]:
    network, card = random_model("timm/test_vit", classes=4)
    return with_evidence(network, len(network.backbone.blocks), readout=True), card.preprocessing


def learn(
    model: tuple[SelfExplainingViT, Any],
    paths: list[Path],
    folder: Path,
    report: Callable[[dict[str, float]], None] = lambda row: None,
    **change: Any,
) -> Learned:
    return learn_online(
        model[0],
        PicturesInMemory.load(paths, model[1], CPU),
        OnlineOptions(**SMALL | change),
        checkpoint=TrainingCheckpoint(folder / "checkpoint", {}, print),
        report=report,
        group=Processes(0, 1, CPU),
    )


def test_the_held_out_error_falls_and_the_best_state_is_kept(
    model: tuple[SelfExplainingViT, Any], paths: list[Path], tmp_path: Path
) -> None:
    pixels = torch.randn(2, 3, *model[0].backbone.architecture.image_size)
    before = model[0](pixels)
    learned = learn(model, paths, tmp_path, steps=40, learning_rate=2e-3)
    errors = [row["held_out"] for row in learned.history]
    assert min(errors) < errors[0] - 0.01
    assert learned.history[errors.index(min(errors))]["step"] == learned.step
    assert learned.history[-1]["pairs"] == 40 * 8 * 4
    after = model[0](pixels)
    assert torch.equal(before.logits, after.logits)
    assert not torch.allclose(before.heatmap, after.heatmap)
    assert model[0].readout is not None
    tensors = model[0].readout.tensors()
    assert all(torch.equal(tensor, learned.tensors[name]) for name, tensor in tensors.items())


def test_the_mixture_of_two_parts_is_learned_with_the_readout(
    random_model: Callable[..., Any], paths: list[Path], tmp_path: Path
) -> None:
    network, card = random_model("timm/test_vit", classes=4)
    both = with_evidence(network, 3, readout=True, own=Own(2, 1.0, 0.5)), card.preprocessing
    rows: list[dict[str, float]] = []
    learned = learn(both, paths, tmp_path, rows.append, steps=20, learning_rate=2e-3)
    assert learned.step > 0 and learned.history[0]["held_out"] > min(row["held_out"] for row in learned.history)
    assert rows[0]["weight"] == 1.0 and rows[0]["blur"] == 0.5
    assert abs(learned.factors["weight"] - 1.0) > 1e-3 and abs(learned.factors["blur"] - 0.5) > 1e-3
    assert both[0].strategy.factors == learned.factors, "the model goes on with what was learned"
    stated = both[0].evidence.learned(learned.scale, learned.factors)
    assert stated.own == Own(2, learned.factors["weight"], learned.factors["blur"])
    # A model that is built from what the file says reads the same.
    again = SelfExplainingViT(both[0].backbone, both[0].head, stated)
    assert again.readout is not None
    again.readout.load({name: tensor.detach() for name, tensor in both[0].readout.tensors().items()})  # type: ignore[union-attr]
    pixels = torch.randn(2, 3, *network.backbone.architecture.image_size)
    both[0].evidence = stated
    with torch.no_grad():
        assert torch.allclose(again(pixels).heatmap, both[0](pixels).heatmap, atol=1e-6)


def test_the_differences_that_are_compared_are_those_of_the_heatmap(model: tuple[SelfExplainingViT, Any]) -> None:
    network = model[0].freeze()
    pixels = torch.randn(3, 3, *network.backbone.architecture.image_size)
    played = Table(network, CPU, "fp32").play(pixels, 5, np.random.default_rng(0), torch.Generator().manual_seed(0))
    explained = network(pixels)
    assert torch.equal(played.classes, explained.logits.argmax(dim=1))
    evidence = network.strategy.feature_evidence(played.encoded, network.head)
    slope, offset = slope_and_offset(evidence, played.total, played.signs)
    rows = network.head.explained_weight()[played.classes]
    found = ((network.evidence.scale * slope + offset) @ rows[..., None])[..., 0]
    heatmap = explained.heatmap.flatten(1)
    wanted = (played.signs @ heatmap[..., None])[..., 0]
    assert torch.allclose(found, wanted, atol=1e-4)


def test_an_interrupted_run_ends_as_if_it_had_not_been(
    model: tuple[SelfExplainingViT, Any],
    paths: list[Path],
    tmp_path: Path,
    random_model: Callable[..., Any],
) -> None:
    whole = learn(model, paths, tmp_path / "whole", steps=8)
    network, card = random_model("timm/test_vit", classes=4)
    second = with_evidence(network, len(network.backbone.blocks), readout=True), card.preprocessing

    def stop(row: dict[str, float]) -> None:
        if row["step"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(second, paths, tmp_path / "parts", stop, steps=8)
    network, _ = random_model("timm/test_vit", classes=4)
    third = with_evidence(network, len(network.backbone.blocks), readout=True), card.preprocessing
    steps: list[float] = []
    resumed = learn(third, paths, tmp_path / "parts", lambda row: steps.append(row["step"]), steps=8)
    assert steps == [4, 5, 6, 7, 8]
    assert resumed.scale == whole.scale
    assert all(torch.equal(resumed.tensors[name], whole.tensors[name]) for name in whole.tensors)


def test_minutes_are_a_budget_over_all_parts_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(online.time, "monotonic", lambda: now[0])
    budget = online._Budget(OnlineOptions(minutes=2))
    budget.start()
    now[0] += 30
    assert budget.spent() == 0.25
    budget.steps = 7
    later = online._Budget(OnlineOptions(minutes=2))
    later.load_state_dict(budget.state_dict())
    now[0] += 1000
    later.start()
    now[0] += 60
    assert later.spent() == 0.75
    assert later.steps == 7


def test_a_run_ends_with_its_minutes(model: tuple[SelfExplainingViT, Any], paths: list[Path], tmp_path: Path) -> None:
    learned = learn(model, paths, tmp_path, minutes=0.02, steps=None)
    assert learned.history[-1]["step"] >= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"minutes": 1.0}, "minutes or of steps"),
        ({"steps": None}, "minutes or of steps"),
        ({"minutes": float("inf"), "steps": None}, "minutes above 0"),
        ({"pairs": 0}, "pairs of at least 1"),
        ({"learning_rate": 0.0}, "learning"),
    ],
)
def test_options_that_cannot_be_used_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        OnlineOptions(**SMALL | change)


def test_what_cannot_be_taught_is_refused(
    random_model: Callable[..., Any], model: tuple[SelfExplainingViT, Any], paths: list[Path], tmp_path: Path
) -> None:
    network, card = random_model("timm/test_vit", classes=4)
    with pytest.raises(UsageError, match="teach a readout"):
        learn((network, card.preprocessing), paths, tmp_path)
    with pytest.raises(UsageError, match="at least 2 pictures"):
        learn(model, paths[:1], tmp_path)

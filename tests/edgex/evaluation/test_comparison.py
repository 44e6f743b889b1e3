from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgex.errors import UsageError
from edgex.evaluation import comparison, localisation, scores
from edgex.evaluation.comparison import ON_ORIGINAL, Comparison
from edgex.evaluation.explanations import cached_heatmaps
from edgex.evaluation.faithfulness import faithfulness
from edgex.evaluation.measured import MeasuredModel, own_heatmaps
from edgex.evaluation.methods import parse
from edgex.evaluation.methods.kernel_shap import KernelShap
from edgex.evaluation.plan import Plan
from edgex.evaluation.reference import correlation, spearman_brown
from edgex.files.model_file import ModelCard, load_model, save_model
from edgex.models.self_explaining import Head, SelfExplainingViT, normalise
from edgex.training.vector_training import with_evidence
from edgex.utils.statistics import Estimate
from pictures import COLOURS, picture_folder

COUNT = 4


@dataclasses.dataclass
class Made:
    """A model file, one moved a little away from it, and labelled pictures with boxes."""

    baked: Path
    original: Path
    folder: Path
    model: SelfExplainingViT
    card: ModelCard


@pytest.fixture(scope="module")
def made(random_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("compared")
    model, card = random_model("timm/test_vit", classes=3)
    card = dataclasses.replace(card, classes=tuple(sorted(COLOURS)))
    save_model(root / "original.safetensors", model, card)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in model.backbone.parameters():
            parameter.add_(0.05 * parameter.std() * torch.randn(parameter.shape, generator=generator))
    save_model(root / "baked.safetensors", model.freeze(), card)
    folder = picture_folder(root / "shapes", {"test": 3})
    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*.png")]
    boxes = {path: [[20, 20, 90, 50]] for path in paths}
    (folder / "boxes.json").write_text(json.dumps(boxes), encoding="utf-8")
    return Made(root / "baked.safetensors", root / "original.safetensors", folder / "test", model, card)


@pytest.fixture(scope="module")
def found(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    plan = Plan(
        explained=COUNT,
        methods=(parse("kernel-shap:20@5"), parse("rollout")),
        steps=5,
        reference=KernelShap(40, 5),
        precision="fp32",
    )
    cache = tmp_path_factory.mktemp("cache")
    return comparison.compare(("baked", made.baked), ("original", made.original), made.folder, plan, cache)


def test_rows_say_what_they_explain(found: Comparison) -> None:
    assert [(row.name, row.on) for row in found.heatmaps] == [
        ("baked", "baked"),
        ("original", "original"),
        (f"baked {ON_ORIGINAL}", "original"),
        ("kernel-shap:20@5", "original"),
        ("rollout", "original"),
    ]
    classes = [row.explanations.classes.tolist() for row in found.heatmaps]
    assert classes[1] == classes[2] == classes[3] == classes[4]
    assert found.to_dict()["methods_explain"] == "original"


def test_heatmaps_and_values_are_those_of_the_models(found: Comparison, made: Made) -> None:
    baked, moved = found.heatmaps[0], found.heatmaps[2]
    images = normalise(found.images, made.card.preprocessing.mean, made.card.preprocessing.std)
    outputs = made.model(images)
    assert torch.allclose(baked.explanations.heatmaps, outputs.heatmap, atol=1e-5)
    assert baked.explanations.classes.tolist() == outputs.logits.argmax(dim=1).tolist()
    areas = faithfulness(made.model, images, baked.explanations.classes, outputs.heatmap, steps=5, fill="blur")
    assert np.allclose(baked.values["difference:blur"], areas.difference, atol=1e-5)
    marked = localisation.objects(made.folder, found.paths, made.card.preprocessing, made.model.backbone.grid)
    assert marked is not None
    expected = localisation.localise(outputs.heatmap.numpy()[marked[0]], marked[1])
    for key, values in expected.items():
        assert np.allclose(baked.values[key], values, atol=1e-5), key
    asked = made.model(images, moved.explanations.classes)
    assert torch.allclose(moved.explanations.heatmaps, asked.heatmap, atol=1e-5)
    assert (baked.values["sum_error"] < 1e-4).all()
    assert "sum_error" not in moved.values


def test_a_readout_is_measured_once_and_nothing_twice(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes the class scores of the unbaked model: its heatmaps on that one would be the first row again."""
    original, card = load_model(made.original)
    read = with_evidence(original, 2, readout=True)
    assert read.readout is not None
    with torch.no_grad():
        for tensor in read.readout.tensors().values():
            tensor.add_(tensor.std() * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(3)))
    save_model(tmp_path / "read.safetensors", read, dataclasses.replace(card, evidence=read.evidence))
    plan = Plan(explained=3, methods=(parse("rollout"),), fills=("mean",), steps=5, precision="fp32")

    def compared() -> Comparison:
        pair = ("read", tmp_path / "read.safetensors"), ("original", made.original)
        return comparison.compare(*pair, made.folder, plan, tmp_path / "cache")

    first = compared()
    assert [row.name for row in first.heatmaps] == ["read", "original", "rollout"]
    assert (first.models[0].correct == first.models[1].correct).all()
    assert not np.array_equal(first.heatmaps[0].values["difference:mean"], first.heatmaps[1].values["difference:mean"])
    monkeypatch.setattr(scores, "_MEASURES", {"scores": None, "saco": None})
    again = compared()
    for row, other in zip(first.heatmaps, again.heatmaps, strict=True):
        assert all(np.array_equal(values, other.values[key]) for key, values in row.values.items())


def test_the_report_is_json_with_estimates_and_paired_intervals(found: Comparison) -> None:
    report = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    baked, original = report["heatmaps"]["baked"], report["heatmaps"]["original"]
    for key in ("insertion:mean", "deletion:blur", "difference:mean", "relevance_mass", "pointing_game", "iou"):
        gains = np.array(baked[key]["values"]) - np.array(original[key]["values"])
        paired = report["paired"]["baked"]["original"][key]
        assert math.isclose(paired["mean"], gains.mean(), abs_tol=1e-5)
        assert math.isclose(paired["standard_error"], gains.std(ddof=1) / math.sqrt(len(gains)), abs_tol=1e-5)
        low, high = paired["interval"]
        assert math.isclose(high - paired["mean"], 3.1589931 * paired["standard_error"], abs_tol=1e-6)
        assert math.isclose(low + high, 2 * paired["mean"], abs_tol=1e-9)
    assert report["paired_gain"] == report["paired"]["baked"]["original"]["difference:mean"]
    assert set(report["paired"]) == {"baked", f"baked {ON_ORIGINAL}"}
    assert report["models"]["baked"]["accuracy"]["n"] == 9
    assert report["explained"] == COUNT == len(report["pictures"])
    assert 0 < report["object_area"]["mean"] < 1


def test_the_reference_states_its_budget_and_its_own_reliability(found: Comparison, made: Made) -> None:
    reference = found.to_dict()["reference"]
    assert reference["method"] == "kernel-shap:40@5"
    halves = found.reliability["original"]
    assert math.isclose(reference["reliability"]["original"], spearman_brown(float(halves.mean())), rel_tol=1e-6)
    assert -1 <= reference["split_half_correlation"]["baked"]["mean"] <= 1
    for row in found.heatmaps:
        assert np.abs(row.values["reference_correlation"]).max() <= 1 + 1e-9


def test_correlation_is_pearsons_over_players() -> None:
    generator = torch.Generator().manual_seed(0)
    heatmaps, others = torch.randn(3, 4, 4, generator=generator), torch.randn(3, 4, 4, generator=generator)
    found = correlation(heatmaps, others, KernelShap(10, 2))
    for a, b, value in zip(heatmaps.numpy(), others.numpy(), found, strict=True):
        blocks = [m.reshape(2, 2, 2, 2).sum(axis=(1, 3)).ravel() for m in (a, b)]
        assert math.isclose(value, np.corrcoef(*blocks)[0, 1], abs_tol=1e-6)
    assert correlation(torch.ones(1, 4, 4), others[:1], KernelShap(10, 2))[0] == 0


def test_spearman_brown_is_the_correlation_of_a_doubled_test() -> None:
    """Two noisy readings of one truth: their mean's reliability, by formula and by simulation."""
    generator = np.random.default_rng(0)
    truth = generator.normal(size=200_000)
    readings = truth + generator.normal(size=(4, 200_000))
    half = np.corrcoef(readings[0], readings[1])[0, 1]
    whole = np.corrcoef(readings[0] + readings[1], readings[2] + readings[3])[0, 1]
    assert math.isclose(spearman_brown(half), whole, abs_tol=0.01)
    assert math.isnan(spearman_brown(-1.0))


def test_alone_the_methods_explain_the_model_itself(made: Made, tmp_path: Path) -> None:
    plan = Plan(explained=2, methods=(parse("grad-cam"),), fills=("mean",), steps=2, precision="fp32")
    found = comparison.compare(("baked", made.baked), None, made.folder, plan, tmp_path)
    report = found.to_dict()
    assert [row.name for row in found.heatmaps] == ["baked", "grad-cam"]
    assert report["methods_explain"] == "baked"
    assert "paired_gain" not in report
    assert set(report["paired"]["baked"]) == {"grad-cam"}
    assert "difference:blur" not in report["heatmaps"]["baked"]
    cached = cached_heatmaps(load_model(made.baked), found.paths, plan.methods[0], tmp_path, precision="fp32")
    assert torch.equal(found.heatmaps[1].explanations.heatmaps, cached.heatmaps)


def test_an_object_in_one_picture_is_reported_without_an_error(found: Comparison) -> None:
    rows = tuple(
        dataclasses.replace(row, values={**row.values, "iou": row.values["iou"][:1]}) for row in found.heatmaps
    )
    report = json.loads(json.dumps(dataclasses.replace(found, heatmaps=rows).to_dict(), allow_nan=False))
    assert report["heatmaps"]["baked"]["iou"]["standard_error"] is None
    assert report["paired"]["baked"]["original"]["iou"]["interval"] is None


def test_paired_accuracy_counts_the_same_pictures(found: Comparison) -> None:
    first, second = (measured.correct.astype(float) for measured in found.models)
    change = Estimate.of(first - second)
    assert found.to_dict()["paired_accuracy"]["mean"] == change.mean


def test_models_that_do_not_belong_together_are_refused(
    made: Made, random_model: Callable[..., Any], tmp_path: Path
) -> None:
    model, card = random_model("timm/test_vit", classes=3)
    other = tmp_path / "other.safetensors"
    save_model(other, model, dataclasses.replace(card, classes=("a", "b", "c")))
    baked = ("baked", made.baked)
    with pytest.raises(UsageError, match="expected other to have the classes of baked, found others"):
        comparison.compare(baked, ("other", other), made.folder, Plan(), tmp_path)
    with pytest.raises(UsageError, match="expected another model to compare baked with, found the same one"):
        comparison.compare(baked, baked, made.folder, Plan(), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"explained": 1}, "at least 2 pictures to explain, found 1"),
        ({"fills": ("mean", "mean")}, "every fill and method once, found mean, mean"),
        ({"methods": (parse("rollout"), parse("rollout"))}, "every fill and method once"),
        (
            {"reference": parse("rollout")},
            "expected a reference kernel-shap:PASSES of at least 8 passes, found rollout",
        ),
        ({"reference": KernelShap(7)}, "at least 8 passes, found kernel-shap:7"),
    ],
)
def test_bad_plans_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Plan(**change)


def test_superpixels_that_do_not_fit_are_refused_before_long_work(made: Made, tmp_path: Path) -> None:
    plan = Plan(methods=(parse("kernel-shap:150@7"),))
    with pytest.raises(UsageError, match="10x10 patch grid does not divide into 7x7 superpixels"):
        comparison.compare(("baked", made.baked), None, made.folder, plan, tmp_path)


def test_own_heatmaps_report_a_sum_that_is_off(made: Made) -> None:
    """A model whose correction was tampered with shows it in the sum-to-logit error."""

    class Tampered(SelfExplainingViT):
        def forward(self, image: torch.Tensor, explain_class: torch.Tensor | None = None) -> Any:
            outputs = super().forward(image, explain_class)
            return outputs._replace(base=outputs.base + 0.5)

    head = Head(made.model.head.weight.detach(), None, kind="linear")
    tampered = Tampered(made.model.backbone, head, made.model.evidence).freeze()
    measured = MeasuredModel(
        "tampered", dataclasses.replace(load_model(made.baked), network=tampered), np.ones(1, dtype=bool)
    )
    images = torch.zeros(2, 160, 160, 3, dtype=torch.uint8)
    _, errors = own_heatmaps(measured, images)
    assert np.allclose(errors, 0.5, atol=1e-3)

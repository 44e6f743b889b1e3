from __future__ import annotations

import dataclasses
import itertools
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgex.data import image_folders
from edgex.data.crops import crops_of
from edgex.errors import UsageError
from edgex.models.self_explaining import normalise
from edgex.shapley import label_cache, labels, solver
from edgex.shapley.labels import LabelOptions, Labels
from edgex.utils.processes import Processes
from pictures import draw

PATHS = 5
ALONE = Processes(0, 1, torch.device("cpu"))


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{index}.png" for index in range(PATHS)]
    for index, path in enumerate(paths):
        draw("red disc", index, size=200).save(path)
    return paths


def labels_of(model: Any, card: Any, paths: list[Path], options: LabelOptions, cache: Path, **given: Any) -> Labels:
    return labels.label(
        model, paths, card.preprocessing, options, cache, group=ALONE, precision="fp32", model_digest="m", **given
    )


def score_of(model: Any, card: Any, image: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Centred logits [C] of one picture with some patches visible (bool [P]).

    The library's own blocks and norm, and the head: nothing of edgex's forward.
    """
    module = model.backbone.module
    tokens = model.backbone.embed(normalise(image[None], card.preprocessing.mean, card.preprocessing.std))
    kept = torch.cat([tokens[:, :1], tokens[:, 1:][:, visible]], dim=1)
    logits = F.linear(module.norm(module.blocks(kept))[:, 0], model.head.weight, model.head.bias)[0]
    return logits - logits.mean()


def test_labels_are_score_differences_of_dropped_tokens(
    random_model: Callable[..., Any], pictures: list[Path], tmp_path: Path
) -> None:
    model, card = random_model("timm/test_vit", classes=4)
    options = LabelOptions(crops=2, pairs=3, side=5, classes=2, seed=4)
    made = labels.label(
        model,
        pictures,
        card.preprocessing,
        options,
        tmp_path / "cache",
        group=ALONE,
        precision="fp32",
        model_digest="m",
    )
    assert made.crops.picture.tolist() == [0, 1, 2, 3, 4] * 2
    assert made.side == 5
    assert made.differences.shape == (10, 3, 2)
    crop, pair = 7, 1
    image = torch.from_numpy(made.crops.shown(image_folders.open_picture(pictures[2]), crop))
    visible = made.coalitions[crop, pair].reshape(5, 5).repeat_interleave(2, 0).repeat_interleave(2, 1).flatten()
    difference = score_of(model, card, image, visible) - score_of(model, card, image, ~visible)
    assert torch.allclose(made.differences[crop, pair], difference[made.classes[crop]], atol=1e-4)
    everything, nothing = torch.ones(100, dtype=torch.bool), torch.zeros(100, dtype=torch.bool)
    total = score_of(model, card, image, everything) - score_of(model, card, image, nothing)
    found = labels.totals(model, made, group=ALONE, precision="fp32")
    assert torch.allclose(found[crop], total[made.classes[crop]], atol=1e-4)


@torch.no_grad()
def test_shapley_values_of_all_coalitions_are_those_of_brute_force_and_of_shap(
    random_model: Callable[..., Any], pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four superpixels of a real model's picture: every coalition is played, as often as the kernel weighs it."""
    with warnings.catch_warnings(action="ignore"):  # of the plotting library that shap imports
        import shap

    model, card = random_model("timm/test_vit", classes=4)
    chosen = [s for size in (1, 2) for s in itertools.combinations(range(4), size) if size == 1 or 0 in s]
    # The kernel weighs a coalition of one (or three) twice as much as one of two.
    rows = [[player in s for player in range(4)] for s in chosen for _ in range(2 if len(s) == 1 else 1)]
    monkeypatch.setattr(labels, "draw_coalitions", lambda players, count, generator: np.array(rows))
    options = LabelOptions(pairs=len(rows), side=2, classes=2)
    made = labels_of(model, card, pictures[:2], options, tmp_path / "cache")
    values = labels.shapley_values(made, labels.totals(model, made, group=ALONE, precision="fp32"))
    for crop in range(2):
        image = torch.from_numpy(made.crops.shown(image_folders.open_picture(pictures[crop]), crop))
        patch_of = solver.players_of_patches((10, 10), 2)
        classes = made.classes[crop]

        def value(players: np.ndarray, image: Any = image, patch_of: Any = patch_of, classes: Any = classes) -> Any:
            return score_of(model, card, image, torch.from_numpy(players.astype(bool))[patch_of])[classes].numpy()

        exact = np.zeros((4, 2))
        for order in itertools.permutations(range(4)):
            shown = np.zeros(4)
            for player in order:
                before = value(shown)
                shown[player] = 1
                exact[player] += (value(shown) - before) / math.factorial(4)
        assert np.allclose(values[crop].T, exact, atol=2e-4 * np.abs(exact).max())
        explainer = shap.KernelExplainer(
            lambda masks, value=value: np.stack([value(m) for m in masks]), np.zeros((1, 4))
        )
        theirs = explainer.shap_values(np.ones((1, 4)), nsamples=100, l1_reg=False, silent=True)[0]
        assert np.allclose(values[crop].T, theirs, atol=2e-4 * np.abs(exact).max())


def test_changed_pictures_are_labelled_again(
    random_model: Callable[..., Any], pictures: list[Path], tmp_path: Path
) -> None:
    model, card = random_model("timm/test_vit", classes=4)
    options = LabelOptions(pairs=2, side=5)
    before = labels_of(model, card, pictures, options, tmp_path / "cache")
    draw("red disc", 7, size=200).save(pictures[1])
    after = labels_of(model, card, pictures, options, tmp_path / "cache")
    same = [torch.equal(*both) for both in zip(before.differences, after.differences, strict=True)]
    assert same == [True, False, True, True, True]


def test_labels_resume_from_their_cache(
    random_model: Callable[..., Any], pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, card = random_model("timm/test_vit", classes=4)
    monkeypatch.setattr(labels, "CHUNK", 2)
    made: list[int] = []
    original = labels._label_chunk
    monkeypatch.setattr(labels, "_label_chunk", lambda *a: made.append(a[3]) or original(*a))

    def run(**change: Any) -> labels.Labels:
        options = LabelOptions(pairs=2, side=5, classes=1, **change)
        return labels_of(model, card, pictures, options, tmp_path / "cache")

    first = run()
    assert made == [0, 1, 2]
    sorted((tmp_path / "cache").iterdir())[0].unlink()
    again = run()
    assert len(made) == 4
    assert torch.equal(first.differences, again.differences)
    run(seed=1)
    assert len(made) == 7


@pytest.mark.parametrize("features", [False, True])
def test_a_chunk_resumes_in_its_middle(
    random_model: Callable[..., Any],
    pictures: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    features: bool,
) -> None:
    """A folder smaller than a chunk loses only the batch in work; its labels are those of an uninterrupted run."""
    model, card = random_model("timm/test_vit", classes=4)
    options = LabelOptions(pairs=2, side=5, crops=2, features=features)
    whole = labels_of(model, card, pictures, options, tmp_path / "whole", batch_size=3)
    monkeypatch.setattr(label_cache, "KEEP_SECONDS", 0.0)
    played: list[int] = []
    original = labels.draw_coalitions

    def stopped(*given: Any) -> Any:
        played.append(len(played))
        if len(played) == 3:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(labels, "draw_coalitions", stopped)
    with pytest.raises(KeyboardInterrupt):
        labels_of(model, card, pictures, options, tmp_path / "cache", batch_size=3)
    (kept,) = (tmp_path / "cache").iterdir()
    assert kept.name.startswith("unfinished-labels-")
    again = labels_of(model, card, pictures, options, tmp_path / "cache", batch_size=3, report=pytest.fail)
    assert len(played) == 3 + 2, "of four batches the first two were kept"
    for name in ("classes", "coalitions", "differences", *(["features"] if features else [])):
        assert torch.equal(getattr(again, name), getattr(whole, name))
    (finished,) = (tmp_path / "cache").iterdir()
    assert finished.name == kept.name.removeprefix("unfinished-")


@pytest.mark.parametrize("batch_size, changed", [(2, False), (3, False), (2, True)])
def test_what_was_kept_of_other_batches_or_pictures_is_not_used(
    random_model: Callable[..., Any],
    pictures: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    changed: bool,
) -> None:
    model, card = random_model("timm/test_vit", classes=4)
    options = LabelOptions(pairs=2, side=5)
    with monkeypatch.context() as patched:
        patched.setattr(label_cache, "KEEP_SECONDS", 0.0)
        patched.setattr(label_cache.CachedChunk, "finish", lambda *_: pytest.exit("stopped"))
        with pytest.raises(pytest.exit.Exception):
            labels_of(model, card, pictures, options, tmp_path / "cache", batch_size=2)
    if changed:
        draw("red disc", 7, size=200).save(pictures[0])
    found = labels_of(model, card, pictures, options, tmp_path / "cache", batch_size=batch_size)
    wanted = labels_of(model, card, pictures, options, tmp_path / "whole", batch_size=batch_size)
    assert torch.equal(found.differences, wanted.differences)


def test_damaged_labels_are_made_anew_with_one_line(
    random_model: Callable[..., Any], pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, card = random_model("timm/test_vit", classes=4)
    monkeypatch.setattr(labels, "CHUNK", 2)
    options = LabelOptions(pairs=2, side=5)
    first = labels_of(model, card, pictures, options, tmp_path / "cache")
    torn, flipped, untouched = sorted((tmp_path / "cache").iterdir())
    torn.write_bytes(torn.read_bytes()[:-100])
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 4
    flipped.write_bytes(data)
    kept = untouched.stat().st_mtime_ns
    said: list[str] = []
    again = labels_of(model, card, pictures, options, tmp_path / "cache", report=said.append)
    assert len(said) == 1 and said[0].startswith((str(torn), str(flipped))) and "made anew (and 1 more)" in said[0]
    assert torch.equal(first.differences, again.differences)
    assert untouched.stat().st_mtime_ns == kept
    labels_of(model, card, pictures, options, tmp_path / "cache", report=pytest.fail)


def test_labels_of_an_earlier_edgex_are_made_anew(
    random_model: Callable[..., Any], pictures: list[Path], tmp_path: Path
) -> None:
    """They may be of pictures that were read sideways or too bright."""
    model, card = random_model("timm/test_vit", classes=4)
    options = LabelOptions(pairs=2, side=5)
    right = labels_of(model, card, pictures, options, tmp_path / "cache")
    (stored,) = (tmp_path / "cache").iterdir()
    old = torch.load(stored, weights_only=True)
    old["differences"] += 1
    torch.save(old, stored)
    said: list[str] = []
    again = labels_of(model, card, pictures, options, tmp_path / "cache", report=said.append)
    assert len(said) == 1 and "is made anew" in said[0]
    assert torch.equal(right.differences, again.differences)


def test_labels_with_features_serve_without_them(
    random_model: Callable[..., Any], pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, card = random_model("timm/test_vit", classes=4)
    few, more = (LabelOptions(pairs=2, side=5, features=features) for features in (False, True))
    plain = labels_of(model, card, pictures, few, tmp_path)
    rich = labels_of(model, card, pictures, more, tmp_path)
    assert plain.features is None
    assert rich.features is not None
    assert torch.equal(rich.differences, plain.differences)
    monkeypatch.setattr(labels, "coalition_features", None)
    assert torch.equal(labels_of(model, card, pictures, few, tmp_path).differences, plain.differences)
    features = labels_of(model, card, pictures, more, tmp_path).features
    assert features is not None
    assert torch.equal(features, rich.features)


def test_reliability_is_high_for_additive_games_and_low_for_noise(random_model: Callable[..., Any]) -> None:
    generator = np.random.default_rng(0)
    coalitions = torch.from_numpy(np.stack([solver.draw_coalitions(9, 200, generator) for _ in range(20)]))
    worth = torch.from_numpy(generator.normal(size=(20, 9, 1)))
    clean = (coalitions.double() * 2 - 1) @ worth
    noise = torch.from_numpy(generator.normal(size=(20, 200, 1)))
    _, card = random_model("timm/test_vit")

    def made(differences: torch.Tensor) -> Labels:
        crops = crops_of(
            [Path(f"{i}.png") for i in range(20)], card.preprocessing, crops=1, crop_scale=1, seed=0, chunk=9
        )
        return Labels(crops, torch.zeros(20, 1, dtype=torch.int64), coalitions, differences.float())

    total = worth.sum(dim=1).float()
    of_signal, of_noise = (labels.reliability(made(d), t) for d, t in ((clean, total), (noise, torch.zeros(20, 1))))
    assert of_signal is not None
    assert of_signal > 0.99
    assert of_noise is not None
    assert abs(of_noise) < 0.3
    assert torch.allclose(labels.shapley_values(made(clean), total)[:, 0], worth[:, :, 0].float(), atol=1e-4)
    one = dataclasses.replace(made(clean), coalitions=coalitions[:, :1], differences=clean[:, :1].float())
    assert labels.reliability(one, total) is None


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="pairs of at least 1"):
        LabelOptions(pairs=0)
    with pytest.raises(UsageError, match="2 superpixels per side"):
        LabelOptions(side=1)

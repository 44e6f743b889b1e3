from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgex.errors import DataError, VerdictError
from edgex.evaluation import localisation
from edgex.evaluation.verdict import BETTER, UNSEEN, WORSE, check_bake, enforce, judge, word_of
from edgex.files.model_file import save_model
from edgex.utils.statistics import Estimate
from pictures import picture_folder


def test_words_follow_from_the_interval() -> None:
    assert word_of(Estimate(0.05, 0.01, 100)) == BETTER
    assert word_of(Estimate(-0.05, 0.01, 100)) == WORSE
    assert word_of(Estimate(0.05, 0.04, 100)) == UNSEEN
    assert word_of(Estimate.of([0.05])) == UNSEEN, "one picture has no interval"


def values(faithful: float, saco: float, iou: float | None = None) -> dict[str, np.ndarray]:
    """Measures of 20 pictures that differ a little from each other; on objects where `iou` is given."""
    noise = np.linspace(-0.01, 0.01, 20)
    found = {"difference:mean": faithful + noise, "saco:mean": saco + noise**2, "concentration": 0.5 + noise}
    if iou is None:
        return found | {"border": np.tile([0.0, 1.0], 10)}
    return found | {"iou": iou + noise, "centred_mass": iou + 2 * noise, "border": np.zeros(20)}


def changed(faithful: float, iou: float | None = None) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    generator = np.random.default_rng(0)
    baked = values(0.2 + faithful, 0.5, None if iou is None else 0.6 + iou)
    baked["difference:mean"] = baked["difference:mean"] + generator.normal(scale=0.02, size=20)
    if iou is not None:
        baked["iou"] = baked["iou"] + generator.normal(scale=0.02, size=20)
    return baked, values(0.2, 0.5, None if iou is None else 0.6)


@pytest.mark.parametrize(
    ("faithful", "iou", "refusal"),
    [
        (0.1, 0.1, None),
        (0.1, -0.1, None),
        (0.0, 0.0, None),
        (0.0, -0.1, "moves the heat off the objects and makes heatmaps no more faithful"),
        (-0.1, 0.1, "makes heatmaps of these pictures less faithful"),
        (-0.1, None, "makes heatmaps of these pictures less faithful"),
        (0.0, None, None),
    ],
)
def test_what_is_refused(faithful: float, iou: float | None, refusal: str | None) -> None:
    verdict = judge(*changed(faithful, iou))
    json.dumps(verdict.to_dict(), allow_nan=False)
    if refusal is None:
        assert verdict.refusal is None
        enforce(verdict, force=False)
    else:
        assert refusal in (verdict.refusal or "")
        with pytest.raises(VerdictError, match=refusal):
            enforce(verdict, force=False)
        enforce(verdict, force=True)


def test_lines_say_what_is_traded_and_what_cannot_be_said() -> None:
    traded = judge(*changed(0.1, -0.1))
    assert traded.moved_off
    assert str(traded.faithfulness).startswith("faithfulness (insertion - deletion): better, +0.")
    assert "on 20 pictures" in traded.lines[0]
    assert traded.lines[-1].startswith("more faithful, but less on the objects")
    unmarked = judge(*changed(0.1))
    assert not unmarked.place
    assert "cannot be said without masks or boxes" in unmarked.lines[-1]
    assert "border in 50% of them (50% unbaked)" in unmarked.lines[-1]


@pytest.fixture
def pair(random_model: Callable[..., Any], tmp_path: Path) -> tuple[Path, Path, Path]:
    """A model, the same one with its heatmap upside down, and pictures without labels."""
    model, card = random_model("timm/test_vit", classes=3, seed=1)
    save_model(tmp_path / "upright.safetensors", model, card)
    turned = dataclasses.replace(card, evidence=dataclasses.replace(card.evidence, scale=-1.0))
    save_model(tmp_path / "turned.safetensors", model, turned)
    return tmp_path / "upright.safetensors", tmp_path / "turned.safetensors", picture_folder(tmp_path / "p", {"": 8})


def test_real_heatmaps_are_told_from_those_turned_upside_down(pair: tuple[Path, Path, Path], tmp_path: Path) -> None:
    upright, turned, folder = pair
    found = check_bake(upright, turned, folder, tmp_path / "cache", num_images=24, device="cpu")
    back = check_bake(turned, upright, folder, tmp_path / "cache", num_images=24, device="cpu")
    assert found.faithfulness.word == BETTER
    assert back.faithfulness.word == WORSE
    assert found.faithfulness.gain.mean == pytest.approx(-back.faithfulness.gain.mean)
    same = check_bake(upright, upright, folder, tmp_path / "cache", num_images=4, device="cpu")
    assert same.faithfulness.word == UNSEEN
    assert same.refusal is None


def test_one_picture_is_too_few(pair: tuple[Path, Path, Path], tmp_path: Path) -> None:
    upright, turned, folder = pair
    first, *rest = sorted(folder.rglob("*.png"))
    for path in rest:
        path.unlink()
    with pytest.raises(DataError, match="expected at least 2 pictures to compare heatmaps on, found 1"):
        check_bake(upright, turned, folder, tmp_path / "cache", device="cpu")
    assert first.exists()


def test_concentration_is_the_strongest_tenths_share_of_what_lies_above_the_mean() -> None:
    single = np.zeros((1, 4, 5))
    single[0, 1, 2] = 7
    assert localisation.concentration(single) == pytest.approx(1)
    assert localisation.concentration(np.ones((1, 4, 5))) == 0
    halves = np.zeros((1, 4, 5))
    halves[0, :2] = 1
    assert localisation.concentration(halves) == pytest.approx(0.2), "2 of the 10 patches above the mean"
    assert localisation.concentration(3 * halves + 4) == pytest.approx(0.2)

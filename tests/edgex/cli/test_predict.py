"""`edgex predict`: what its options do to what it prints and writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgex.evaluation.torch_session import TorchSession
from edgex.files.model_file import save_model
from edgex.runtime.drawing.options import Drawing


@pytest.fixture
def picture(random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray], tmp_path: Path) -> Path:
    """A picture beside a model "model.safetensors" of five classes."""
    model, card = random_model("timm/test_vit", classes=5)
    save_model(tmp_path / "model.safetensors", model, card)
    path = tmp_path / "picture.png"
    Image.fromarray(natural_pictures(1, card.preprocessing.image_size)[0]).save(path)
    return path


@pytest.mark.parametrize("top", [1, 4])
def test_top_says_how_many_classes_are_printed(run: Callable[..., str], picture: Path, top: int) -> None:
    best = TorchSession(picture.with_name("model.safetensors"))(picture).top(top)
    line = run("predict", "model.safetensors", str(picture), "--top", str(top)).strip()
    assert line == f"{picture}: " + ", ".join(f"{label} {100 * score:.1f}%" for label, score in best)
    (found,) = json.loads(run("predict", "model.safetensors", str(picture), "--top", str(top), "--json"))
    assert len(found["top"]) == top


@pytest.fixture
def street(random_model: Callable[..., Any], picture: Path) -> Path:
    """A multi-label model beside the picture, of which three of five labels are present."""
    _, card = random_model("timm/test_vit", classes=5)
    odds = TorchSession(picture.with_name("model.safetensors"))(picture).logits
    order = np.argsort(-odds)
    thresholds = [0.0 if index in order[:3] else 1.0 for index in range(5)]
    model, card = random_model("timm/test_vit", classes=5, activation="sigmoid", thresholds=tuple(thresholds))
    path = picture.with_name("street.safetensors")
    save_model(path, model, card)
    return path


def test_all_labels_that_are_present_are_printed(run: Callable[..., str], picture: Path, street: Path) -> None:
    labels = TorchSession(street)(picture).labels()
    assert len(labels) == 3
    line = run("predict", str(street), str(picture), "--top", "1").strip()
    assert line == f"{picture}: " + ", ".join(f"{label} {100 * score:.1f}%" for label, score in labels)
    (found,) = json.loads(run("predict", str(street), str(picture), "--json"))
    assert found["labels"] == [list(pair) for pair in labels]


def test_no_label_is_said_so(run: Callable[..., str], random_model: Callable[..., Any], picture: Path) -> None:
    model, card = random_model("timm/test_vit", classes=5, activation="sigmoid", thresholds=(1.0,) * 5)
    save_model(picture.with_name("none.safetensors"), model, card)
    best = TorchSession(picture.with_name("none.safetensors"))(picture)
    line = run("predict", "none.safetensors", str(picture), "--each-label", "--overlay", "overlays").strip()
    assert line == f"{picture}: no label, most probable {best.label} {100 * best.score:.1f}%"
    assert not picture.with_name("overlays").exists()


def test_an_overlay_of_each_label(run: Callable[..., str], picture: Path, street: Path, tmp_path: Path) -> None:
    run("predict", str(street), str(picture), "--each-label", "--overlay", "overlays")
    session = TorchSession(street)
    written = {path.name: np.asarray(Image.open(path)) for path in (tmp_path / "overlays").iterdir()}
    labels = [label for label, _ in session(picture).labels()]
    assert sorted(written) == sorted(f"picture.{label.replace(' ', '-')}.png" for label in labels)
    for label in labels:
        drawn = written[f"picture.{label.replace(' ', '-')}.png"]
        np.testing.assert_array_equal(drawn, session(picture, explain=label).overlay(picture))
    said = run("predict", "model.safetensors", str(picture), "--each-label", "--overlay", "overlays", code=2)
    assert "--each-label: model.safetensors gives a picture one label, which is explained anyway" in said
    each = ("--each-label", "--overlay", "overlays")
    both = run("predict", str(street), str(picture), *each, "--explain", "class 1", code=2)
    assert "--each-label: expected either one class to explain or each label, found both" in both
    nowhere = run("predict", str(street), str(picture), "--each-label", code=2)
    assert "--each-label: expected --overlay beside it" in nowhere


def test_an_overlay_is_that_of_the_explained_class(run: Callable[..., str], picture: Path, tmp_path: Path) -> None:
    result = TorchSession(picture.with_name("model.safetensors"))(picture, explain="class 3")
    said = run("predict", "model.safetensors", str(picture), "--explain", "class 3", "--overlay", "overlays")
    assert "(explained: class 3)" in said
    (written,) = (tmp_path / "overlays").iterdir()
    np.testing.assert_array_equal(np.asarray(Image.open(written)), result.overlay(picture))


def test_how_overlays_are_drawn(run: Callable[..., str], picture: Path, tmp_path: Path) -> None:
    drawn = ("--style", "contour", "--colormap", "viridis", "--dim")
    result = TorchSession(picture.with_name("model.safetensors"))(picture)
    drawing = Drawing("viridis", style="contour", dim=True)
    for options, expected in (
        (drawn, drawing.overlay(result, picture)),
        ((*drawn, "--legend"), Drawing("viridis", style="contour", dim=True, legend=True).overlay(result, picture)),
        ((*drawn, "--caption"), drawing.captioned(result, picture)),
        (("--style", "boxes", "--caption"), Drawing(style="boxes").captioned(result, picture)),
    ):
        run("predict", "model.safetensors", str(picture), "--overlay", "overlays", *options)
        (written,) = (tmp_path / "overlays").iterdir()
        np.testing.assert_array_equal(np.asarray(Image.open(written)), expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--style", "fire", "--overlay", "a"), "--style: expected one of heat, contour, boxes, spotlight"),
        (("--colormap", "jet", "--overlay", "a"), "--colormap: expected one of plasma"),
        (("--caption",), "--caption: expected --overlay beside it"),
        (("--style", "contour"), "--style: expected --overlay beside it"),
        (("--colormap", "turbo"), "--colormap: expected --overlay beside it"),
        (("--no-legend",), "--legend: expected --overlay beside it"),
        (("--dim",), "--dim: expected --overlay beside it"),
    ],
)
def test_options_of_drawing_that_do_not_work(
    run: Callable[..., str], picture: Path, options: tuple[str, ...], words: str
) -> None:
    assert words in run("predict", "model.safetensors", str(picture), *options, code=2)


def test_what_is_not_seen_of_a_picture_is_said_once(run: Callable[..., str], picture: Path, tmp_path: Path) -> None:
    (tmp_path / "wide").mkdir()
    for number, width in enumerate((320, 280, 300)):
        Image.new("RGB", (width, 160), "red").save(tmp_path / "wide" / f"{number}.png")
    said = [line for line in run("predict", "model.safetensors", "wide").splitlines() if "this model sees" in line]
    assert len(said) == 1
    assert "of a 320x160 frame; the fits 'pad' and 'squash' show it all" in said[0]
    for fit in ("pad", "squash"):
        result = TorchSession(picture.with_name("model.safetensors"), fit=fit)(tmp_path / "wide" / "0.png")
        shown = run("predict", "model.safetensors", "wide/0.png", "--fit", fit, "--top", "1").strip()
        assert shown == f"wide/0.png: {result.label} {100 * result.score:.1f}%"
        assert result.view.seen_share == pytest.approx(1)

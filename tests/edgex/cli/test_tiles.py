"""Tiles and regions of interest on the command line: `edgex predict` and `edgex watch`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import small_model
from edgex.evaluation.torch_session import TorchSession
from edgex.files.model_file import save_model
from edgex.runtime import Session, Stream, UsageError, open_source

Run = Callable[..., str]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture of 120 x 90 pixels beside an exported file "model.onnx"."""
    small_model.write(tmp_path / "model.onnx")
    path = tmp_path / "picture.png"
    pixels = np.random.default_rng(4).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((120, 90)).save(path)
    return path


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (("--tiles", "2x3"), {"tiles": (2, 3)}),
        (("--tiles", "2x3", "--overlap", "0.3"), {"tiles": (2, 3), "overlap": 0.3}),
        (("--roi", "10,20,60,80"), {"roi": (10, 20, 60, 80)}),
        (("--roi", "0.1,.2 0.9,.2 .5,0.9"), {"roi": [(0.1, 0.2), (0.9, 0.2), (0.5, 0.9)]}),
        (
            ("--tiles", "3x3", "--roi", "10,20,60,80", "--roi", "regions.json"),
            {"tiles": (3, 3), "roi": [(10, 20, 60, 80), [(3, 4), (90, 4), (3, 80)], (0.5, 0.5, 1, 1)]},
        ),
        (("--roi", "box.json"), {"roi": (1, 2, 30, 40)}),
    ],
)
def test_options_are_the_session_s(run: Run, picture: Path, given: tuple[str, ...], options: dict[str, Any]) -> None:
    picture.with_name("regions.json").write_text("[[[3, 4], [90, 4], [3, 80]], [0.5, 0.5, 1, 1]]")
    picture.with_name("box.json").write_text("[1, 2, 30, 40]")
    wanted: Any = Session(picture.with_name("model.onnx"), **options)(picture)
    said = run("predict", "model.onnx", str(picture), "--json", "--overlay", "drawn", *given)
    (found,) = json.loads(said.split("wrote")[0])
    assert found["tiles"] == [tile.to_dict() for tile in wanted.tiles]
    assert found["heatmap"] == wanted.to_dict()["heatmap"]
    assert found["roi"] == json.loads(json.dumps(wanted.to_dict()["roi"]))
    (drawn,) = picture.with_name("drawn").iterdir()
    np.testing.assert_array_equal(np.asarray(Image.open(drawn)), wanted.overlay(picture))
    run("watch", "model.onnx", "--source", str(picture), "--jsonl", "a.jsonl", "--folder", "frames", *given)
    (line,) = picture.with_name("a.jsonl").read_text().splitlines()
    assert json.loads(line)["tiles"] == found["tiles"]


def test_a_model_file_is_tiled_like_an_exported_one(
    run: Run, random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    model, card = random_model("timm/test_vit", classes=5)
    path = tmp_path / "model.safetensors"
    save_model(path, model, card)
    height, width = card.preprocessing.image_size
    picture = tmp_path / "picture.png"
    Image.fromarray(np.hstack(list(natural_pictures(2, (height, width))))).save(picture)
    (found,) = json.loads(run("predict", str(path), str(picture), "--json", "--tiles", "1x2", "--overlap", "0"))
    assert [tile["box"] for tile in found["tiles"]] == [[0, 0, height, width], [0, width, height, 2 * width]]
    result: Any = TorchSession(path, tiles=(1, 2), overlap=0)(picture, explain="class 1")
    for tile, half in zip(result.tiles, natural_pictures(2, (height, width)), strict=True):
        one = tmp_path / "one.png"
        Image.fromarray(half).save(one)
        whole = TorchSession(path, tiles=(1, 1))(one, explain="class 1")
        np.testing.assert_allclose(tile.result.heatmap, whole.heatmap, atol=1e-5)


@pytest.mark.parametrize("command", ["predict", "watch"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--tiles", "3"), "--tiles: expected ROWSxCOLUMNS, such as 3x4, found '3'"),
        (("--tiles", "0x3"), "--tiles: expected (rows, columns), each at least 1"),
        (("--tiles", "30x30"), "--tiles: expected at most 256 tiles, found 30x30"),
        (("--tiles", "2x128"), "--tiles: expected tiles of at least 3x2 pixels"),
        (("--tiles", "2x2", "--overlap", "1"), "--overlap: expected a share of a tile from 0 to below 0.9"),
        (("--overlap", "0.2"), "--overlap: expected tiles that overlap"),
        (
            ("--tiles", "2x2", "--fit", "crop"),
            "--fit: expected 'pad' or 'squash': tiles and regions are looked at whole",
        ),
        (("--roi", "1,2,3"), "--roi: expected a box of 4 numbers"),
        (("--roi", "1,2,x,4"), "--roi: expected a box x0,y0,x1,y1, a polygon 'x,y x,y x,y' or an existing JSON file"),
        (("--roi", "0,0,500,90"), "--roi: expected a region inside the frame of 120x90 pixels"),
        (("--roi", "0,0 90,90 90,0 0,90"), "--roi: expected a polygon whose sides do not cross"),
        (("--roi", "1 2 3 4"), "--roi: expected a box x0,y0,x1,y1, a polygon"),
        (("--roi", "none.json"), "--roi: expected a box x0,y0,x1,y1, a polygon"),
        (("--roi", "bad.json"), "--roi: "),
        (("--roi", "object.json"), "--roi: expected a box"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    run: Run, picture: Path, command: str, given: tuple[str, ...], message: str
) -> None:
    picture.with_name("bad.json").write_text("[1, 2")
    picture.with_name("object.json").write_text('{"x": 1}')
    pictures = [str(picture)] if command == "predict" else ["--source", str(picture)]
    said = run(command, "model.onnx", *pictures, *given, code=2)
    assert said.startswith(f"edgex: error: {message}")
    assert len(said) < 330


def test_spaces_behind_commas_and_a_large_x_are_taken(run: Run, picture: Path) -> None:
    plain = run("predict", "model.onnx", str(picture), "--json", "--tiles", "2x3", "--roi", "10,20,60,80")
    assert run("predict", "model.onnx", str(picture), "--json", "--tiles", "2X3", "--roi", "10, 20, 60, 80") == plain


@pytest.mark.parametrize("given", [("--tiles", "3x4"), ("--roi", "10,20,60,80")])
def test_a_picture_that_does_not_fit_does_not_end_the_others(run: Run, picture: Path, given: tuple[str, ...]) -> None:
    folder = picture.with_name("mixed")
    folder.mkdir()
    Image.open(picture).save(folder / "a.png")
    Image.new("RGB", (7, 7)).save(folder / "b.png")
    Image.open(picture).save(folder / "c.png")
    said = run("predict", "model.onnx", "mixed", "--overlay", "drawn", *given, code=1)
    assert "edgex: error: mixed/b.png: expected " in said
    assert {path.name[0] for path in picture.with_name("drawn").iterdir()} == {"a", "c"}


@pytest.mark.parametrize("options", [{"tiles": (3, 4)}, {"roi": (10, 20, 60, 80)}])
def test_a_later_frame_that_does_not_fit_does_not_end_a_stream(picture: Path, options: dict[str, Any]) -> None:
    folder = picture.with_name("mixed")
    folder.mkdir()
    Image.open(picture).save(folder / "b.png")
    Image.new("RGB", (7, 7)).save(folder / "c.png")
    Image.open(picture).save(folder / "d.png")
    said: list[str] = []
    session = Session(picture.with_name("model.onnx"), **options)
    frames = [frame.source_frame.name for frame in Stream(session, open_source(str(folder)), notice=said.append)]
    assert [Path(name).name for name in frames] == ["b.png", "d.png"]
    assert len(said) == 1 and said[0].startswith("expected ")
    Image.new("RGB", (7, 7)).save(folder / "a.png")
    with pytest.raises(UsageError) as caught:
        list(Stream(session, open_source(str(folder))))
    assert [caught.value.argument] == list(options)

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fonts import write_font
from PIL import Image

from edgex.runtime import ArtefactError, Result, Session, Stream, UsageError, decode_heatmap
from edgex.runtime.drawing import captions
from edgex.runtime.drawing.options import Drawing, captions_of
from edgex.runtime.frames import as_frame
from edgex.runtime.watch.sinks import FolderSink, JsonLinesSink, VideoSink, holds_results
from edgex.runtime.watch.sources.source import SourceFrame
from edgex.runtime.watch.stream import FrameResult
from streams import LABELS, Script, coloured


@pytest.fixture
def seen(session: Session) -> list[FrameResult]:
    """Three results, and the last picture's again."""
    found = list(Stream(session, Script(range(3))))
    last = found[-1]
    return [*found, FrameResult(last.number, last.source_frame, last.result, 0.1, 0.1, is_rerun=True)]


def test_outlines_of_tiles_and_regions_are_drawn(model_path: Path) -> None:
    """One pixel wide and light, on what the overlay shows."""
    frame = np.full((160, 240, 3), 60, np.uint8)
    session = Session(model_path, tiles=(2, 2), overlap=0, roi=(20, 10, 220, 150))
    result = session(frame)
    drawn = FrameResult(0, SourceFrame(as_frame(frame), "grey"), result, 0.1, 0.1).captioned(Drawing(legend=False))
    plain = result.overlay(frame, opacity=0.6)
    changed = (drawn != plain).any(axis=-1)[:130]
    assert changed[10:, 119:121].any(axis=1).all()
    assert changed[10, 20:220].all()
    assert not changed[12:78, 22:118].any()
    assert drawn[5, 119:121].max() < 200


def test_json_lines(seen: list[FrameResult], tmp_path: Path) -> None:
    sink = JsonLinesSink(str(tmp_path / "new" / "a.jsonl"), top=2)
    assert not (tmp_path / "new").exists()
    for number, entry in enumerate(seen[:3]):
        sink.write(entry)
        # Whoever follows the file sees whole lines at once.
        lines = [json.loads(line) for line in (tmp_path / "new" / "a.jsonl").read_text("utf-8").splitlines()]
        assert [line["label"] for line in lines] == list(LABELS[: number + 1])
    sink.write(seen[3])
    sink.close()
    lines = [json.loads(line) for line in (tmp_path / "new" / "a.jsonl").read_text("utf-8").splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2]
    assert len(lines[0]["top"]) == 2
    np.testing.assert_allclose(decode_heatmap(lines[1]["heatmap"]), seen[1].result.heatmap, rtol=2**-11)


def test_a_full_disk_is_one_error(seen: list[FrameResult]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    sink = JsonLinesSink(Path("/dev/full"))
    with pytest.raises(ArtefactError, match=r"cannot write /dev/full \(No space left on device\)"):
        sink.write(seen[0])
    sink.close()


def test_a_log_that_is_removed_meanwhile(seen: list[FrameResult], tmp_path: Path) -> None:
    sink = JsonLinesSink(tmp_path / "out" / "a.jsonl")
    sink.write(seen[0])
    # As log rotation does it: the lines go on into the file that was renamed.
    (tmp_path / "out" / "a.jsonl").rename(tmp_path / "old.jsonl")
    sink.write(seen[1])
    assert len((tmp_path / "old.jsonl").read_text().splitlines()) == 2
    (tmp_path / "old.jsonl").unlink()
    with pytest.raises(
        ArtefactError, match=r"cannot write .*a\.jsonl \(the file or its folder was removed meanwhile\)"
    ):
        sink.write(seen[2])
    sink.close()


def test_a_folder_that_is_removed_meanwhile_is_made_again(seen: list[FrameResult], tmp_path: Path) -> None:
    sink = FolderSink(tmp_path / "out")
    sink.write(seen[0])
    shutil.rmtree(tmp_path / "out")
    sink.write(seen[1])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["000001.green-thing.jpg"]


def test_a_folder_of_pictures(seen: list[FrameResult], tmp_path: Path) -> None:
    sink = FolderSink(str(tmp_path / "a" / "b"), Drawing(opacity=0.5))
    for entry in seen:
        sink.write(entry)
    sink.close()
    names = ["000000.red-thing.jpg", "000001.green-thing.jpg", "000002.blue-thing.jpg"]
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == names
    found = np.asarray(Image.open(tmp_path / "a" / "b" / names[1])).astype(int)
    assert np.abs(found - seen[1].captioned(Drawing(opacity=0.5))).mean() < 6


def test_only_what_an_earlier_run_wrote_is_replaced(seen: list[FrameResult], tmp_path: Path) -> None:
    first = FolderSink(tmp_path / "out")
    for entry in seen:
        first.write(entry)
    folder = tmp_path / "out"
    green = (folder / "000001.green-thing.jpg").read_bytes()
    Image.fromarray(coloured(0)).save(folder / "000009.cat.jpg")
    for name in ("12.green-thing.jpg", "000009.cat.copy.jpg", "notes.txt"):
        (folder / name).write_bytes(green)
    (tmp_path / "elsewhere.jpg").write_bytes(green)
    (folder / "000010.link.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    (folder / "000011.folder.jpg").mkdir()
    (folder / "000012.empty.jpg").touch()
    (folder / "000005..jpg").write_bytes(green)
    (folder / "1234567.ours_too-ñ.jpg").write_bytes(green)
    kept = {
        "000009.cat.copy.jpg",
        "000009.cat.jpg",
        "000010.link.jpg",
        "000011.folder.jpg",
        "000012.empty.jpg",
        "12.green-thing.jpg",
        "notes.txt",
    }
    before = {path.name for path in folder.iterdir()}
    FolderSink(folder).close()
    sink = FolderSink(folder, replace=True)
    assert {path.name for path in folder.iterdir()} == before, "nothing goes before something comes"
    sink.write(seen[2])
    assert {path.name for path in folder.iterdir()} == kept | {"000002.blue-thing.jpg"}
    sink.write(seen[0])
    assert {path.name for path in folder.iterdir()} == kept | {"000000.red-thing.jpg", "000002.blue-thing.jpg"}
    assert holds_results(folder) and holds_results(str(folder))
    assert not holds_results(tmp_path / "absent") and not holds_results(tmp_path)


def test_a_video(seen: list[FrameResult], tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    sink = VideoSink(str(tmp_path / "a.mkv"), fps=4)
    for entry in seen:
        sink.write(entry)
    sink.close()
    with av.open(str(tmp_path / "a.mkv")) as container:
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == [0, 0.25, 0.5]
    for frame, entry in zip(frames, seen, strict=False):
        assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - entry.captioned(Drawing(opacity=0.6))).mean() < 12


def test_the_videos_opacity(seen: list[FrameResult], tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    # A plain picture's heatmap is the same everywhere, and nothing of it is drawn.
    seen[1].result.heatmap[0, 0] += 1
    sink = VideoSink(tmp_path / "a.mkv", Drawing(opacity=0.0))
    sink.write(seen[1])
    sink.close()
    with av.open(str(tmp_path / "a.mkv")) as container:
        (frame,) = container.decode(video=0)
    found = frame.to_ndarray(format="rgb24").astype(int)
    drawn, plain = (seen[1].captioned(Drawing(opacity=opacity)).astype(int) for opacity in (0.6, 0.0))
    assert np.abs(found - plain).mean() < 4
    assert np.abs(drawn - plain).mean() > 8


def test_times_of_a_video_go_on_when_a_source_begins_again(session: Session, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    from edgex.runtime import open_source
    from streams import write_video

    path = write_video(tmp_path / "a.mkv", count=3, fps=5)
    sink = VideoSink(tmp_path / "b.mkv")
    for entry in Stream(session, open_source(str(path)), loop=True, limit=6):
        sink.write(entry)
    sink.close()
    with av.open(str(tmp_path / "b.mkv")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    np.testing.assert_allclose(times, [0, 0.2, 0.4, 0.44, 0.64, 0.84], atol=0.002)


def test_the_caption_lies_over_the_lower_rim(session: Session) -> None:
    (entry,) = Stream(session, Script([0]), explain=3)
    drawn, plain = entry.captioned(Drawing(opacity=0.6)), entry.result.overlay(entry.source_frame.frame)
    assert drawn.shape == plain.shape == (64, 96, 3)
    np.testing.assert_array_equal(drawn[:40], plain[:40])
    assert not np.array_equal(drawn[42:], plain[42:])


def test_the_caption_names_the_class_that_was_asked_for(session: Session) -> None:
    """Told apart by what is drawn: of two classes that are not predicted, and of the predicted one."""
    drawn = []
    for explain in (None, 0, 3):
        (entry,) = Stream(session, Script([0]), explain=explain)
        drawn.append(entry.captioned(Drawing(opacity=0.0)))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_small_pictures_have_no_caption(session: Session) -> None:
    from edgex.runtime.frames import as_frame
    from edgex.runtime.watch.sources.source import SourceFrame

    frame = as_frame(coloured(0, (5, 300)))
    entry = FrameResult(0, SourceFrame(frame, "small"), session(frame), 0.1, 0.1)
    np.testing.assert_array_equal(entry.captioned(Drawing(opacity=0.6)), entry.result.overlay(entry.source_frame.frame))


def test_places_that_cannot_be_written(seen: list[FrameResult], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match="cannot write"):
        FolderSink(tmp_path / "file" / "a")
    with pytest.raises(ArtefactError, match="cannot write"):
        JsonLinesSink(tmp_path / "file" / "a").write(seen[0])
    pytest.importorskip("av")
    sink = VideoSink(tmp_path / "file" / "a.mp4")
    with pytest.raises(ArtefactError, match="cannot write"):
        sink.write(seen[0])
    sink.close()
    assert (tmp_path / "file").is_file()


def test_names_of_every_kind_reach_the_log(seen: list[FrameResult], tmp_path: Path) -> None:
    entry = _renamed(seen[0], "\x1b[2J\u202e猫\udce9")
    sink = JsonLinesSink(tmp_path / "a.jsonl")
    sink.write(entry)
    with (tmp_path / "ascii.jsonl").open("w", encoding="ascii") as stream:
        JsonLinesSink(stream).write(entry)
    sink.close()
    for name in ("a.jsonl", "ascii.jsonl"):
        line = (tmp_path / name).read_text("utf-8").rstrip("\n")
        assert line.isprintable()
        assert json.loads(line)["label"] == "\x1b[2J\u202e猫\udce9"
        assert json.loads(line)["name"] == "caf\udce9.jpg"
    assert entry.result.to_json().isprintable()


def test_captions_use_a_font_that_has_the_characters(
    seen: list[FrameResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captions, "font_folders", lambda: [])
    captions._system_fonts.cache_clear()
    captions._font_with.cache_clear()
    number = _renamed(seen[0], "class 0").captioned(Drawing(opacity=0.0))
    np.testing.assert_array_equal(_renamed(seen[0], "猫").captioned(Drawing(opacity=0.0)), number)
    font = write_font(tmp_path / "x.ttf", "猫狗0123456789% ")
    named = _renamed(seen[0], "猫").captioned(Drawing(opacity=0.0, font=font))
    assert not np.array_equal(named, number)
    np.testing.assert_array_equal(_renamed(seen[0], "狗").captioned(Drawing(opacity=0.0, font=font)), named)
    FolderSink(tmp_path / "out", Drawing(opacity=0.0, font=font)).write(_renamed(seen[0], "猫"))
    found = np.asarray(Image.open(tmp_path / "out" / "000000.猫.jpg")).astype(int)
    assert np.abs(found - named).mean() < np.abs(found - number).mean() / 2


def test_a_font_file_that_is_none_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a font file"):
        Drawing(font=tmp_path / "absent.ttf")


@pytest.mark.parametrize(
    ("logits", "explained", "said"),
    [
        ([3, 1, -2, -3], None, "red thing 95%, green thing 73%"),
        ([3, 1, -2, -3], 1, "red thing 95%, green thing 73% - why green thing 73%"),
        ([-3, -4, -2, -3], None, "no label, blue thing 12%"),
    ],
)
def test_a_caption_names_all_labels_that_are_present(
    logits: list[float], explained: int | None, said: str, frame: np.ndarray, session: Session
) -> None:
    found = session(frame)
    result = Result(
        np.array(logits, np.float32),
        found.heatmap,
        found.base,
        classes=session.classes,
        view=found.view,
        explained_index=explained,
        activation="sigmoid",
    )
    assert next(captions_of(result)) == said


def _renamed(entry: FrameResult, name: str) -> FrameResult:
    """The same result of a model whose first class has another name, of a picture that is called café in latin-1."""
    frame, result = entry.source_frame, entry.result
    classes = (name, *result.classes[1:])
    other = Result(result.logits, result.heatmap, result.base, classes=classes, view=result.view)
    return FrameResult(entry.number, SourceFrame(frame.frame, "caf\udce9.jpg"), other, 0.1, 0.1)

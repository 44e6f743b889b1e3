from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from edgex.runtime import ArtefactError, EdgexError, ImageError, Result, Session, UsageError
from edgex.runtime.backends.binding import HostBinding
from edgex.runtime.backends.onnxruntime import OnnxRuntimeBackend
from edgex.runtime.view import Fit

Reference = Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]


def check(result: Result, session: Session, frame: np.ndarray, explain: int, reference: Reference) -> None:
    logits, heatmaps, bases = reference(session.preprocessing.array(frame)[None], [explain])
    np.testing.assert_allclose(result.logits, logits[0], atol=1e-5)
    np.testing.assert_allclose(result.heatmap, heatmaps[0], atol=1e-5)
    assert result.base == pytest.approx(bases[0], abs=1e-5)
    assert result.heatmap.dtype == np.float32


def test_one_frame(session: Session, frame: np.ndarray, reference: Reference) -> None:
    result = session(frame)
    check(result, session, frame, -1, reference)
    assert result.label == "red thing"
    assert result.explained == "red thing"


def test_the_heatmap_adds_up_to_the_score(session: Session, frame: np.ndarray) -> None:
    for result in session(frame, explain=[None, 0, 1, 2, 3]):
        centred = result.logits[result.explained_index] - result.logits.mean()
        assert result.heatmap.sum() + result.base == pytest.approx(centred, abs=1e-5)


def test_path_picture_and_array_agree(session: Session, frame: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(frame).save(tmp_path / "frame.png")
    wanted = session(frame).heatmap
    for source in (tmp_path / "frame.png", str(tmp_path / "frame.png"), Image.fromarray(frame)):
        np.testing.assert_array_equal(session(source).heatmap, wanted)


def test_bgr(session: Session, frame: np.ndarray) -> None:
    turned = session(frame[..., ::-1], color="bgr")
    (listed,) = session([frame[..., ::-1]], color="bgr")
    np.testing.assert_array_equal(listed.logits, session(frame).logits)
    assert not np.array_equal(listed.logits, session(frame[..., ::-1]).logits)
    np.testing.assert_array_equal(turned.heatmap, session(frame).heatmap)
    overlay = turned.overlay(frame[..., ::-1])
    np.testing.assert_array_equal(overlay[..., ::-1], session(frame).overlay(frame))


def test_run_takes_prepared_pixels(session: Session, frame: np.ndarray, reference: Reference) -> None:
    images = np.stack([session.preprocessing.array(frame)] * 2)
    for found, wanted in zip(session.run(images, np.array([-1, 2])), reference(images, [-1, 2]), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["blue thing", 2, np.int64(2), "BLUE Thing"])
def test_explain_by_name_and_number(session: Session, frame: np.ndarray, reference: Reference, name: Any) -> None:
    result = session(frame, explain=name)
    check(result, session, frame, 2, reference)
    assert result.explained == "blue thing"
    assert result.label == "red thing"


def test_explain_several_classes_of_one_picture(session: Session, frame: np.ndarray, reference: Reference) -> None:
    """Six classes with max_batch 4: two batches."""
    names = ["green thing", None, 3, 2, 1, 0]
    results = session(frame, explain=names)
    assert [result.explained_index for result in results] == [1, 0, 3, 2, 1, 0]
    for result, number in zip(results, [1, -1, 3, 2, 1, 0], strict=True):
        check(result, session, frame, number, reference)
    assert session(frame, explain=[]) == []


@pytest.mark.parametrize("io_binding", [False, True])
def test_several_classes_share_one_pass_where_the_file_lets_them(
    make_model: Callable[..., Path],
    make_graph: Callable[..., onnx.ModelProto],
    frame: np.ndarray,
    reference: Reference,
    io_binding: bool,
) -> None:
    own = {
        "explain_class": (TensorProto.INT64, ["M"]),
        "heatmap": (TensorProto.FLOAT, ["M", 2, 3]),
        "base": (TensorProto.FLOAT, ["M"]),
    }
    session = Session(make_model(model=make_graph(**own)), "cpu", io_binding=io_binding)
    assert session.shares_classes
    passes: list[int] = []
    run = session._backend.run

    def counted(image: np.ndarray, explain_class: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        passes.append(len(image))
        return run(image, explain_class)

    session._backend.run = counted  # type: ignore[method-assign]
    numbers = [3, -1, 0, 1, 2, 2, 0, -1, 3]
    results = session(frame, explain=[None if number < 0 else number for number in numbers])
    assert passes == [1]
    for result, number in zip(results, numbers, strict=True):
        check(result, session, frame, number, reference)
    assert session(frame, explain=[]) == []
    # Pictures still come with one class each.
    for result, number in zip(session([frame] * 3, explain=[1, None, 2]), [1, -1, 2], strict=True):
        check(result, session, frame, number, reference)
    assert passes == [1, 3]


@pytest.mark.parametrize("shared", [True, False])
def test_every_label_that_is_present_is_explained(
    make_model: Callable[..., Path],
    make_graph: Callable[..., onnx.ModelProto],
    frame: np.ndarray,
    shared: bool,
) -> None:
    own = {
        "explain_class": (TensorProto.INT64, ["M"]),
        "heatmap": (TensorProto.FLOAT, ["M", 2, 3]),
        "base": (TensorProto.FLOAT, ["M"]),
    }
    graph = make_graph(**own) if shared else None
    session = Session(make_model(model=graph, activation="sigmoid", thresholds=[0.5, 0.9, 0.1, 0.3]), "cpu")
    passes: list[int] = []
    run = session._backend.run

    def counted(image: np.ndarray, explain_class: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        passes.append(len(image))
        return run(image, explain_class)

    session._backend.run = counted  # type: ignore[method-assign]
    for threshold in (None, 0.0, 0.5, 1.0):
        single = session(frame)
        passes.clear()
        found = session.explain_labels(frame, threshold)
        assert [result.explained for result in found] == [label for label, _ in single.labels(threshold)]
        assert passes == [1] if shared else len(passes) <= 2
        for result in found:
            np.testing.assert_allclose(
                result.heatmap, session(frame, explain=result.explained_index).heatmap, atol=1e-6
            )
    assert session.explain_labels(frame, 1.0) == []


def test_files_of_one_class_per_picture_run_one_pass_each(session: Session) -> None:
    assert not session.shares_classes


def test_batches_of_any_length_equal_single_calls(session: Session, reference: Reference) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (*rng.integers(1, 90, 2), 3), dtype=np.uint8) for _ in range(11)]
    for count in (0, 1, 3, 4, 5, 8, 11):
        results = session(frames[:count])
        assert len(results) == count
        for result, frame in zip(results, frames, strict=False):
            check(result, session, frame, -1, reference)
            assert result.view.frame_size == frame.shape[:2]


def test_one_class_for_all_pictures_or_one_each(session: Session, frame: np.ndarray) -> None:
    frames = (frame, frame[::-1], frame[:, ::-1])
    assert [r.explained_index for r in session(frames, explain=3)] == [3, 3, 3]
    assert [r.explained_index for r in session(frames, explain=[1, None, "nothing"])] == [1, 0, 3]
    with pytest.raises(UsageError, match="one each for 3 pictures, found 2"):
        session(frames, explain=[1, 2])


def test_an_unknown_class_is_refused(session: Session, frame: np.ndarray) -> None:
    with pytest.raises(UsageError, match="found 'gren thing'; did you mean 'green thing' or 'red thing'"):
        session(frame, explain="gren thing")
    with pytest.raises(UsageError, match="from 0 to 3, found -1"):
        session([frame], explain=[-1])


def test_unusable_frames_are_refused_and_the_session_goes_on(session: Session, frame: np.ndarray) -> None:
    for bad in (np.zeros((4, 4), np.float32), np.zeros((0, 4, 3), np.uint8), "none.png", None, frame[None]):
        with pytest.raises(ImageError):
            session(bad)
        with pytest.raises(ImageError):
            session([frame, bad])
    assert session(frame).label == "red thing"


def test_a_single_pixel(session: Session) -> None:
    result = session(np.full((1, 1, 3), (0, 200, 0), np.uint8))
    assert result.label == "green thing"
    assert result.heatmap_on().shape == (1, 1)
    assert result.overlay(np.zeros((1, 1, 3), np.uint8)).shape == (1, 1, 3)


@pytest.mark.parametrize("fit", ["pad", "squash", "crop"])
def test_a_fit_replaces_the_files_own(model_path: Path, reference: Reference, fit: Fit) -> None:
    frame = np.random.default_rng(3).integers(0, 256, (48, 160, 3), np.uint8)
    session = Session(model_path, "cpu", threads=1, fit=fit)
    own = session.metadata.preprocessing
    assert own.fit == "crop"
    assert session.preprocessing == own.fitted(fit)
    for opened in (session, copy.copy(session)):
        result = opened(frame)
        pixels = own.fitted(fit).array(frame)
        np.testing.assert_allclose(result.logits, reference(pixels[None], [-1])[0][0], atol=1e-4)
        assert result.view == own.fitted(fit).view(48, 160)
        assert (result.view.remark is None) == (fit != "crop")
    with pytest.raises(UsageError, match="expected a fit of crop, squash, pad, found 'stretch'"):
        Session(model_path, fit="stretch")  # type: ignore[arg-type]


def test_open_options(model_path: Path, frame: np.ndarray) -> None:
    session = Session(str(model_path), "cpu", threads=2, warmup=0, verify=False)
    assert session(frame).label == "red thing"
    assert session.provider == "cpu"
    assert session.classes[3] == "nothing"
    assert repr(session) == f"Session({str(model_path)!r}, provider='cpu', classes=4)"
    with pytest.raises(UsageError, match="expected at least 1 thread, found"):
        Session(model_path, threads=0)
    with pytest.raises(UsageError, match="warmup"):
        Session(model_path, warmup=-1)


def test_tampering_is_noticed_unless_told_otherwise(model_path: Path) -> None:
    data = model_path.read_bytes()
    model_path.write_bytes(data.replace(b"nothing", b"anybody"))
    with pytest.raises(ArtefactError, match="changed or damaged"):
        Session(model_path)
    assert Session(model_path, verify=False).classes[3] == "anybody"


def test_a_model_that_breaks_its_word_is_found_at_opening(
    make_model: Callable[..., Path], make_graph: Callable[..., onnx.ModelProto]
) -> None:
    """Classes dropped by a condition on the data: onnxruntime cannot know before it runs."""
    model = make_graph()
    for node in model.graph.node:
        node.input[:] = ["all" if name == "logits" else name for name in node.input]
        node.output[:] = ["all" if name == "logits" else name for name in node.output]
    model.graph.initializer.append(helper.make_tensor("zeroth", TensorProto.INT64, [1], [0]))
    model.graph.initializer.append(helper.make_tensor("huge", TensorProto.FLOAT, [], [1e9]))
    model.graph.node.append(helper.make_node("ReduceMax", ["all", "zeroth"], ["best"], keepdims=0))
    model.graph.node.append(helper.make_node("Greater", ["best", "huge"], ["kept"]))
    model.graph.node.append(helper.make_node("Compress", ["all", "kept"], ["logits"], axis=1))
    path = make_model(model=model)
    with pytest.raises(ArtefactError, match=r"expected outputs of shapes .*\(1, 4\).*, found \(\(1, 0\)"):
        Session(path)
    assert Session(path, warmup=0).classes[0] == "red thing"


def test_nan_is_an_error_and_not_a_class(
    make_model: Callable[..., Path], make_graph: Callable[..., onnx.ModelProto]
) -> None:
    model = make_graph()
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
    bias.raw_data = np.array([0, np.nan, 0, 0], np.float32).tobytes()
    with pytest.raises(ArtefactError, match=r"finite scores, found NaN .*precision fp16 on cpu"):
        Session(make_model(model=model, precision="fp16"), provider="cpu")


def test_context_manager_closes(model_path: Path, frame: np.ndarray) -> None:
    with Session(model_path, "cpu") as session:
        result = session(frame)
    with pytest.raises(UsageError, match="expected an open session, found one that was closed"):
        session(frame)
    session.close()
    assert result.label == "red thing"


@pytest.mark.parametrize("io_binding", [False, True])
def test_eight_threads_give_what_one_gives(session: Session, model_path: Path, io_binding: bool) -> None:
    """To the last bit, batches too; the serial results come from plain calls."""
    rng = np.random.default_rng(4)
    frames = [rng.integers(0, 256, (*rng.integers(1, 200, 2), 3), dtype=np.uint8) for _ in range(16)]
    names = [None, 0, 1, 2, 3]
    jobs: list[tuple[Any, Any]] = [(frames[i % 16], names[i % 5]) for i in range(400)]
    jobs += [(frames[i : i + 1 + i % 4], names[i % 5]) for i in range(12)]
    serial = [session(frame, explain=name) for frame, name in jobs]
    shared = Session(model_path, "cpu", threads=1, io_binding=io_binding)
    start = threading.Barrier(8)

    def work(worker: int) -> list[tuple[int, Any]]:
        start.wait()
        return [(i, shared(*jobs[i])) for i in range(worker, len(jobs), 8)]

    with ThreadPoolExecutor(8) as pool:
        found = [pair for pairs in pool.map(work, range(8)) for pair in pairs]
    assert len(found) == len(jobs)
    for i, results in found:
        pairs = zip(results, serial[i], strict=True) if isinstance(results, list) else [(results, serial[i])]
        for result, wanted in pairs:
            np.testing.assert_array_equal(result.logits, wanted.logits)
            np.testing.assert_array_equal(result.heatmap, wanted.heatmap)
            assert result.base == wanted.base


def test_bound_results_stay_when_the_next_picture_comes(model_path: Path, frame: np.ndarray) -> None:
    with (
        Session(model_path, "cpu", threads=1, io_binding=True) as session,
        Session(model_path, "cpu", threads=1) as plain,
    ):
        assert isinstance(session._backend._binding, HostBinding)  # type: ignore[attr-defined]
        assert plain._backend._binding is None  # type: ignore[attr-defined]
        first = session(frame)
        session(frame[::-1], explain="nothing")
        np.testing.assert_array_equal(first.heatmap, plain(frame).heatmap)
        np.testing.assert_array_equal(first.logits, plain(frame).logits)
        for count in (3, 1, 4):
            for found, wanted in zip(session([frame] * count), plain([frame] * count), strict=True):
                np.testing.assert_array_equal(found.heatmap, wanted.heatmap)
    with pytest.raises(UsageError, match="closed"):
        session(frame)


def test_closing_under_load_raises_only_our_error(session: Session, frame: np.ndarray) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while True:
                session(frame)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    session(frame)
    session.close()
    for worker in workers:
        worker.join(10)
    assert [type(error) for error in errors] == [UsageError] * 4


def test_files_are_not_kept_open(model_path: Path, frame: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(frame).save(tmp_path / "frame.png")
    Session(model_path, "cpu", threads=1)(tmp_path / "frame.png")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        with Session(model_path, "cpu", threads=1) as session:
            for _ in range(5):
                session(tmp_path / "frame.png")
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


def test_memory_stays_flat(session: Session, frame: np.ndarray) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    for _ in range(300):
        session(frame).boxes()
    before = resident()
    for _ in range(2000):
        session(frame)
    assert resident() - before < 4e6


@pytest.mark.parametrize("content", [b"", b"no model", b"\x89PNG\r\n\x1a\n" + bytes(99)])
def test_what_is_no_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ArtefactError, match="found neither"):
        Session(tmp_path / "model.onnx")


def test_a_plain_classifier(tmp_path: Path, make_graph: Callable[..., onnx.ModelProto]) -> None:
    onnx.save(make_graph(), tmp_path / "plain.onnx")
    with pytest.raises(ArtefactError, match="make a fused model with `edgex export`"):
        Session(tmp_path / "plain.onnx")


def test_every_error_is_one_line(tmp_path: Path, model_path: Path, frame: np.ndarray) -> None:
    def call(function: Callable[[], object]) -> str:
        with pytest.raises(EdgexError) as error:
            function()
        return str(error.value)

    session = Session(model_path, "cpu")
    messages = [
        call(lambda: Session(tmp_path / "none")),
        call(lambda: Session(tmp_path)),
        call(lambda: Session(model_path, provider="nonsense")),
        call(lambda: session(frame, explain="nonsense")),
        call(lambda: session("nonsense")),
        call(lambda: session(frame, color="rbg")),  # type: ignore[call-overload]
    ]
    assert all("\n" not in message and "found" in message for message in messages)


def test_fast_resizing_gives_nearly_the_same(model_path: Path) -> None:
    rows, columns = np.mgrid[0:540, 0:960]
    frame = np.stack([rows % 256, columns % 200, (rows + columns) % 256], axis=-1).astype(np.uint8)
    with Session(model_path, "cpu") as exact, Session(model_path, "cpu", exact_resize=False) as fast:
        one, other = exact(frame), fast(frame)
        assert not np.array_equal(one.logits, other.logits)
        np.testing.assert_allclose(one.logits, other.logits, atol=0.02)
        np.testing.assert_array_equal(exact([frame])[0].logits, one.logits)
        np.testing.assert_array_equal(fast([frame])[0].logits, other.logits)


@pytest.mark.parametrize(
    "image, explain",
    [
        (np.zeros((1, 32, 48, 3), np.float32), np.full(1, -1)),
        (np.zeros((1, 32, 32, 3), np.uint8), np.full(1, -1)),
        (np.zeros((32, 48, 3), np.uint8), np.full(1, -1)),
        (np.zeros((0, 32, 48, 3), np.uint8), np.zeros(0, np.int64)),
        (np.zeros((5, 32, 48, 3), np.uint8), np.full(5, -1)),
    ],
)
def test_run_refuses_other_pictures(session: Session, image: np.ndarray, explain: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"expected an image of uint8 \[N, 32, 48, 3\] with N from 1 to 4, found"):
        session.run(image, explain)


@pytest.mark.parametrize(
    "explain",
    [
        np.full(1, -1, np.int32),
        np.full(2, -1),
        np.full((1, 1), -1),
        np.zeros(0, np.int64),
        np.full(1, 4),
        np.full(1, -2),
    ],
)
def test_run_refuses_other_classes(session: Session, explain: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"expected explain_class (of int64 \[1\]|from 0 to 3, or -1 .*), found"):
        session.run(np.zeros((1, 32, 48, 3), np.uint8), explain)


def test_a_session_and_its_results_travel_to_another_process(
    make_model: Callable[..., Path], frame: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_model()
    monkeypatch.chdir(path.parent)
    session = Session(path.name, "cpu", threads=1, warmup=0, exact_resize=False, io_binding=True)
    monkeypatch.chdir("/")
    expected = session(frame, explain="nothing")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(session, frame, "nothing").result()
    for result in (found, pickle.loads(pickle.dumps(expected)), copy.deepcopy(expected)):
        assert np.array_equal(result.heatmap, expected.heatmap) and np.array_equal(result.logits, expected.logits)
        assert (result.explained, result.base, result.view) == ("nothing", expected.base, expected.view)
        assert np.array_equal(result.overlay(frame), expected.overlay(frame))
    for again in (pickle.loads(pickle.dumps(session)), copy.deepcopy(session), copy.copy(session)):
        assert again.path == path and again._again == session._again and again._backend is not session._backend
        assert isinstance(again._backend, OnnxRuntimeBackend) and again._backend._binding is not None
        again.close()
    assert np.array_equal(session(frame, explain="nothing").heatmap, expected.heatmap)


def test_a_session_is_copied_from_its_own_file_only(make_model: Callable[..., Path]) -> None:
    session = Session(make_model(), "cpu", threads=1)
    kept = pickle.dumps(session)
    make_model(alpha=0.5)
    with pytest.raises(ArtefactError, match=r"expected the file that the session was opened from, with sha256 \w{12}"):
        pickle.loads(kept)
    session.path.unlink()
    with pytest.raises(ArtefactError, match="found No such file"):
        copy.deepcopy(session)
    session.close()
    with pytest.raises(UsageError, match="expected an open session to copy, found one that was closed"):
        pickle.dumps(session)


def test_prepared_frames_give_what_a_call_gives(session: Session, frame: np.ndarray) -> None:
    """Prepared in other threads than the pass, each with a class of its own."""
    frames, explain = [frame, frame[:, 40:], frame[20:]], [None, "blue thing", 1]
    with ThreadPoolExecutor(3) as pool:
        prepared = list(pool.map(session.prepare, frames))
    found = session.classify(prepared, explain)
    assert [one.to_dict() for one in found] == [one.to_dict() for one in session(frames, explain=explain)]
    (turned,) = session.classify([session.prepare(frame[..., ::-1], "bgr")], [None])
    np.testing.assert_array_equal(turned.overlay(frame[..., ::-1]), session(frame).overlay(frame)[..., ::-1])
    with pytest.raises(UsageError, match="expected at most|with N from 1 to 4"):
        session.classify(prepared * 2, [None] * 6)
    with pytest.raises(UsageError, match="expected a session without tiles and roi to prepare frames for"):
        Session(session.path, "cpu", tiles=(1, 2)).prepare(frame)

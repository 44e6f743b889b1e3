from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edgex.runtime import ArtefactError, MissingExtraError, ProviderError, Session, UsageError
from edgex.runtime.backends import onnxruntime as module
from edgex.runtime.backends.backend import BackendOptions, FusedFile
from edgex.runtime.backends.onnxruntime import (
    AUTOMATIC,
    PROVIDERS,
    OnnxRuntimeBackend,
    _check_assignment,
    _provider_options,
    open_session,
)
from edgex.runtime.metadata import load


def test_auto_takes_the_best_one_and_says_which(model_path: Path) -> None:
    wanted = next(name for name in AUTOMATIC if PROVIDERS[name] in onnxruntime.get_available_providers())
    assert Session(model_path).provider == wanted


def test_a_provider_that_is_not_there_is_an_error_with_the_list(model_path: Path) -> None:
    for provider in ("cuda", "openvino", "NoSuchExecutionProvider", "gpu"):
        if PROVIDERS.get(provider, provider) in onnxruntime.get_available_providers():
            continue
        with pytest.raises(ProviderError, match=f"providers .*cpu.* found provider='{provider}'"):
            Session(model_path, provider=provider)


def test_nvidia_providers_name_the_extra(model_path: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime with CUDA is installed")
    with pytest.raises(ProviderError, match=r"pip install '\.\[gpu\]'"):
        Session(model_path, provider="cuda")


def test_onnxruntimes_own_names_are_taken_too(model_path: Path) -> None:
    assert Session(model_path, provider="CPUExecutionProvider").provider == "cpu"


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider':UserWarning")
def test_a_silent_fall_back_to_the_cpu_is_an_error(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime itself only warns and runs on the CPU; the list of providers is the only thing faked."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime with CUDA is installed")
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    with pytest.raises(ProviderError, match="run on 'cuda', found that it fell back to CPUExecutionProvider"):
        Session(model_path, provider="cuda")
    assert Session(model_path, provider="auto").provider == "cpu"


def test_without_onnxruntime_the_error_names_the_extra(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[cpu\]' in a clone of edgex, or '\.\[gpu\]'"):
        Session(model_path)


def test_thread_counts(model_path: Path) -> None:
    metadata, _ = load(model_path)
    backend = OnnxRuntimeBackend(FusedFile(model_path, metadata), BackendOptions("cpu", threads=2))
    assert backend._session.get_session_options().intra_op_num_threads == 2


def test_errors_of_onnxruntime_come_as_one_line(session: Session) -> None:
    with pytest.raises(ProviderError, match="onnxruntime could not run .* on cpu") as error:
        session._backend.run(np.zeros((1, 5, 5, 3), np.uint8), np.zeros(1, np.int64))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_a_graph_that_onnxruntime_refuses(
    make_model: Callable[..., Path], make_graph: Callable[..., onnx.ModelProto]
) -> None:
    model = make_graph()
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ArtefactError, match=r"onnxruntime cannot load it: .*NoSuchOperator") as error:
        Session(make_model(model=model))
    assert "\n" not in str(error.value)


def test_closed(session: Session) -> None:
    session._backend.close()
    session._backend.close()
    with pytest.raises(UsageError, match="closed"):
        session._backend.run(np.zeros((1, 32, 48, 3), np.uint8), np.zeros(1, np.int64))


@pytest.mark.parametrize("declared", [["N", "H", "W", 3], ["N", 32, 48, 3], [None, 32, 48, 3]])
def test_sizes_may_be_named_or_fixed(
    make_model: Callable[..., Path], make_graph: Callable[..., onnx.ModelProto], declared: list[Any]
) -> None:
    model = make_graph(image=(TensorProto.UINT8, declared), heatmap=(TensorProto.FLOAT, None))
    assert Session(make_model(model=model), provider="cpu").provider == "cpu"


def test_a_picture_size_other_than_the_metadatas(
    make_model: Callable[..., Path], make_graph: Callable[..., onnx.ModelProto]
) -> None:
    model = make_graph(image=(TensorProto.UINT8, ["N", 32, 32, 3]))
    with pytest.raises(ArtefactError, match=r"image as tensor\(uint8\) \[N, 32, 48, 3\], found .* \[N, 32, 32, 3\]; "):
        Session(make_model(model=model))


@pytest.mark.parametrize("changes, words", [({"classes": ["a", "b"]}, "logits"), ({"grid": [2, 2]}, "heatmap")])
def test_outputs_other_than_the_metadatas(make_model: Callable[..., Path], changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ArtefactError, match=f"expected {words} as"):
        Session(make_model(**changes))


def test_a_float_picture_is_not_the_contract(make_model: Callable[..., Path]) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["image", "places"], ["logits"], keepdims=0),
        helper.make_node("Identity", ["image"], ["heatmap"]),
        helper.make_node("Identity", ["explain_class"], ["base"]),
    ]
    places = helper.make_tensor("places", TensorProto.INT64, [2], [1, 2])
    inputs = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 32, 48, 3]),
        helper.make_tensor_value_info("explain_class", TensorProto.INT64, ["N"]),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, None),
        helper.make_tensor_value_info("heatmap", TensorProto.FLOAT, None),
        helper.make_tensor_value_info("base", TensorProto.INT64, None),
    ]
    body = helper.make_graph(nodes, "floats", inputs, outputs, [places])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with pytest.raises(ArtefactError, match=r"expected image as tensor\(uint8\).* found tensor\(float\)"):
        Session(make_model(model=model))


def test_missing_and_extra_inputs_and_outputs_are_named(
    make_model: Callable[..., Path], make_graph: Callable[..., onnx.ModelProto]
) -> None:
    model = make_graph()
    del model.graph.output[2]
    with pytest.raises(ArtefactError, match=r"expected the outputs logits, heatmap, base .* found logits, heatmap"):
        Session(make_model(model=model))
    model = make_graph()
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N"]))
    with pytest.raises(ArtefactError, match=r"inputs image, explain_class of a fused model, found .*mask"):
        Session(make_model(model=model))


def test_provider_options_are_texts_and_json(monkeypatch: pytest.MonkeyPatch, model_path: Path) -> None:
    seen: list[Any] = []
    real = onnxruntime.InferenceSession

    def opened(*arguments: Any, providers: list[Any], **_: Any) -> Any:
        seen.append(providers)
        return real(*arguments)

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    open_session(model_path, "cpu", provider_options={"use_arena": 1, "config": {"CPU": {"HINT": "bf16"}}})
    assert seen == [[("CPUExecutionProvider", {"use_arena": "1", "config": '{"CPU": {"HINT": "bf16"}}'})]]


def test_openvino_counts_its_threads_itself() -> None:
    assert _provider_options("openvino", 3, None) == {"num_of_threads": "3"}
    assert _provider_options("openvino", 3, {"num_of_threads": 2}) == {"num_of_threads": "2"}
    assert _provider_options("openvino", None, None) == _provider_options("cpu", 3, None) == {}


def test_any_onnx_file_opens_alike(model_path: Path, tmp_path: Path) -> None:
    assert open_session(model_path, "CPUExecutionProvider", 1).get_providers() == ["CPUExecutionProvider"]
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ArtefactError, match=r"bad.onnx: onnxruntime cannot load it"):
        open_session(tmp_path / "bad.onnx", "cpu")


@pytest.mark.parametrize("provider", ["cpu", "auto", "CPUExecutionProvider"])
def test_options_need_the_provider_that_they_are_for(model_path: Path, provider: str) -> None:
    with pytest.raises(UsageError, match="expected provider_options with the provider that they are for, found"):
        Session(model_path, provider, provider_options={"device_id": 1})


def test_options_that_cuda_cannot_read(model_path: Path) -> None:
    with pytest.raises(UsageError, match="expected device_id as the number of a GPU, found 'first'"):
        Session(model_path, "cuda", provider_options={"device_id": "first"})
    with pytest.raises(UsageError, match="expected io_binding with the option enable_cuda_graph"):
        Session(model_path, "cuda", provider_options={"enable_cuda_graph": 1}, io_binding=False)


def test_what_cannot_be_captured_runs_without_a_graph(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the GPU: onnxruntime's CPU opens what was to run on CUDA, and has no memory of that name."""
    opened: list[dict[str, Any]] = []

    def on_the_cpu(path: Path, provider: str, threads: int | None, options: dict[str, Any]) -> Any:
        opened.append(options)
        return open_session(path, "cpu", threads)

    monkeypatch.setattr(module, "open_session", on_the_cpu)
    with Session(model_path, "cuda", provider_options={"device_id": 0}) as session:
        assert (session.provider, session.captured) == ("cuda", False)
        assert opened == [{"enable_cuda_graph": 1, "device_id": 0}, {"device_id": 0}]
        assert session.run(np.zeros((1, 32, 48, 3), np.uint8), np.full(1, -1))[0].shape == (1, 4)
    for thread in threading.enumerate():
        if thread.name.startswith("edgex device"):
            thread.join(10)  # closing does not wait for it
            assert not thread.is_alive()
    with pytest.raises(ProviderError, match="could not run .* on cuda"):
        Session(model_path, "cuda", io_binding=True)


def test_closing_while_callers_are_at_work(model_path: Path) -> None:
    """Each call gives its result or says that the session is closed, whatever it met."""
    image, explain = np.zeros((1, 32, 48, 3), np.uint8), np.full(1, -1)
    for io_binding in (False, True):
        session = Session(model_path, "cpu", threads=1, io_binding=io_binding)

        def call(session: Session = session) -> str:
            try:
                return str(session.run(image, explain)[0].shape)
            except UsageError as error:
                return "closed" if "closed" in str(error) else str(error)

        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(call) for _ in range(200)]
            session.close()
            found = {future.result() for future in futures}
        assert found <= {"(1, 4)", "closed"}
        assert call() == "closed"


@pytest.mark.parametrize(
    "left, words",
    [
        (
            ["MultiHeadAttention"] * 12,
            "leaves 12 MultiHeadAttention to the CPU; export it with plain attention, or run",
        ),
        (
            ["MatMulIntegerToFloat", "MultiHeadAttention", "MatMulIntegerToFloat"],
            "leaves 2 MatMulIntegerToFloat, 1 MultiHeadAttention to the CPU; export it in fp32, fp16 or the QDQ form",
        ),
    ],
)
def test_products_left_to_the_cpu_are_named(left: list[str], words: str) -> None:
    """The answer of onnxruntime is made up here; test_openvino.py has a real one."""
    parts = [
        SimpleNamespace(ep_name="CPUExecutionProvider", get_nodes=lambda: [SimpleNamespace(op_type=k) for k in left]),
        SimpleNamespace(ep_name="CUDAExecutionProvider", get_nodes=lambda: [SimpleNamespace(op_type="MatMul")]),
        SimpleNamespace(ep_name="CPUExecutionProvider", get_nodes=lambda: [SimpleNamespace(op_type="Concat")]),
    ]
    session = SimpleNamespace(get_provider_graph_assignment_info=lambda: parts)
    with pytest.raises(ProviderError, match=words):
        _check_assignment(session, "cuda", Path("m.onnx"))
    _check_assignment(SimpleNamespace(get_provider_graph_assignment_info=lambda: parts[1:]), "cuda", Path("m.onnx"))
    _check_assignment(SimpleNamespace(), "cuda", Path("m.onnx"))

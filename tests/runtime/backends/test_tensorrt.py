"""The checks are the real code. CUDA and TensorRT are stand-ins, since no GPU is at hand: the engine below answers
with what its inputs in "GPU memory" say, so the tests cover copies, shapes, order of release and locking, and
cannot show that a real TensorRT accepts the calls. The last two tests use the real tensorrt_rtx where it is
installed, and a GPU where there is one.
"""

# ruff: noqa: N802, N815 - the stand-ins bear the names of CUDA and TensorRT.
from __future__ import annotations

import ctypes
import json
import sys
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgex.runtime import ArtefactError, MissingExtraError, ProviderError, Session, UsageError
from edgex.runtime.backends.tensorrt import check_engine

PATH = Path("model.engine")
INFO = {"package": "tensorrt_rtx", "version": "1.2.3", "compute_capabilities": ["8.6", "8.9"]}
Reference = Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]


class Status(IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorNoDevice = 100


class StandInCuda(types.ModuleType):
    """`cuda.bindings.runtime` with host memory as the GPU's; keeps count of what is allocated."""

    def __init__(self, capability: tuple[int, int] = (8, 9), status: Status = Status.cudaSuccess) -> None:
        super().__init__("cuda.bindings.runtime")
        self.capability, self.status = capability, status
        self.memory: dict[int, Any] = {}
        self.streams = 0
        self.cudaDeviceAttr = types.SimpleNamespace(
            cudaDevAttrComputeCapabilityMajor="major", cudaDevAttrComputeCapabilityMinor="minor"
        )
        self.cudaMemcpyKind = types.SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)

    def cudaGetDevice(self) -> tuple[Status, int]:
        return self.status, 0

    def cudaDeviceGetAttribute(self, name: str, device: int) -> tuple[Status, int]:
        return Status.cudaSuccess, self.capability[name == "minor"]

    def cudaStreamCreate(self) -> tuple[Status, int]:
        self.streams += 1
        return Status.cudaSuccess, 77

    def cudaStreamDestroy(self, stream: int) -> tuple[Status]:
        self.streams -= 1
        return (Status.cudaSuccess,)

    def cudaMalloc(self, size: int) -> tuple[Status, int]:
        buffer = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(buffer)] = buffer
        return Status.cudaSuccess, ctypes.addressof(buffer)

    def cudaFree(self, address: int) -> tuple[Status]:
        del self.memory[address]
        return (Status.cudaSuccess,)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> tuple[Status]:
        device = to if kind == 1 else source
        assert size <= len(self.memory[device])
        ctypes.memmove(to, source, size)
        return (Status.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Status]:
        assert stream == 77
        return (Status.cudaSuccess,)


class StandInContext:
    def __init__(self, trt: Any) -> None:
        self.trt = trt
        self.addresses: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def execute_async_v3(self, stream: int) -> bool:
        if self.trt.fails:
            return False
        count = self.shapes["image"][0]
        assert self.shapes["explain_class"] == (count,)
        image = ctypes.string_at(self.addresses["image"], int(np.prod(self.shapes["image"])))
        explain = ctypes.string_at(self.addresses["explain_class"], count * 8)
        images = np.frombuffer(image, np.uint8).reshape(self.shapes["image"])
        outputs = self.trt.reference(images, np.frombuffer(explain, np.int64).tolist())
        for name, output in zip(("logits", "heatmap", "base"), outputs, strict=True):
            data = np.ascontiguousarray(output, np.float32).tobytes()
            ctypes.memmove(self.addresses[name], data, len(data))
        return True


class StandInTensorRT(types.ModuleType):
    """`tensorrt_rtx` around the numpy reference of the small model; records its cache and what is alive."""

    __version__ = "1.2.3"
    names = ("image", "explain_class", "logits", "heatmap", "base")
    largest = (4, 32, 48, 3)
    valid = True
    loads = True
    fails = False

    class EngineValidity(IntEnum):
        VALID = 0
        SUBOPTIMAL = 1
        INVALID = 2

    class EngineInvalidityDiagnostics(IntEnum):
        VERSION_MISMATCH = 1
        UNSUPPORTED_CC = 2

    class IRuntimeCache:
        def __init__(self) -> None:
            self.text = b""

        def deserialize(self, blob: bytes) -> bool:
            self.text = blob
            return True

        def serialize(self) -> bytes:
            return self.text + b"compiled"

    class Logger:
        ERROR = 1

        def __init__(self, severity: int) -> None:
            pass

    def __init__(self, reference: Reference) -> None:
        super().__init__("tensorrt_rtx")
        self.reference = reference

    def Runtime(self, logger: Any) -> Any:
        def validity(plan: bytes) -> tuple[Any, int]:
            return (self.EngineValidity.VALID, 0) if self.valid else (self.EngineValidity.INVALID, 3)

        def deserialize(plan: bytes) -> Any:
            assert plan == b"plan"
            return self.engine() if self.loads else None

        return types.SimpleNamespace(get_engine_validity=validity, deserialize_cuda_engine=deserialize)

    def engine(self) -> Any:
        config = types.SimpleNamespace(create_runtime_cache=self.IRuntimeCache, set_runtime_cache=lambda cache: None)
        return types.SimpleNamespace(
            num_io_tensors=len(self.names),
            get_tensor_name=lambda index: self.names[index],
            get_tensor_profile_shape=lambda name, profile: [(1,), (1,), self.largest],
            create_runtime_config=lambda: config,
            create_execution_context=lambda config=None: StandInContext(self),
        )


@pytest.fixture
def engine_path(
    tmp_path: Path, make_metadata: Callable[..., dict[str, Any]], seal_file: Callable[[bytes], bytes]
) -> Path:
    text = json.dumps(make_metadata(tensorrt=INFO)).encode()
    path = tmp_path / "model.engine"
    path.write_bytes(seal_file(len(text).to_bytes(4, "little") + text + b"plan"))
    return path


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> StandInCuda:
    module = StandInCuda()
    for name in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", module)
    return module


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch, reference: Reference) -> StandInTensorRT:
    module = StandInTensorRT(reference)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
    return module


def test_runs_like_the_reference(
    engine_path: Path, cuda: StandInCuda, tensorrt: StandInTensorRT, reference: Reference, frame: np.ndarray
) -> None:
    with Session(engine_path) as session:
        assert session.provider == "nv_tensorrt_rtx"
        frames = [frame, frame[::-1], frame[:, ::-1], frame[:50], frame[40:]]
        results = session(frames, explain=[None, 1, 2, 3, 0])
        images = np.stack([session.preprocessing.array(f) for f in frames])
        logits, heatmaps, bases = reference(images, [-1, 1, 2, 3, 0])
        for i, result in enumerate(results):
            np.testing.assert_allclose(result.logits, logits[i], rtol=1e-6)
            np.testing.assert_allclose(result.heatmap, heatmaps[i], rtol=1e-6)
            assert result.base == pytest.approx(bases[i])
        assert len(cuda.memory) == 5
    assert cuda.memory == {}
    assert cuda.streams == 0


def test_threads_take_turns(engine_path: Path, cuda: StandInCuda, tensorrt: StandInTensorRT, frame: np.ndarray) -> None:
    session = Session(engine_path)
    wanted = [session(frame, explain=i % 4).heatmap for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: session(frame, explain=i % 4).heatmap, range(40)))
    np.testing.assert_array_equal(found, wanted)


def test_closing_twice_and_calling_after(
    engine_path: Path, cuda: StandInCuda, tensorrt: StandInTensorRT, frame: np.ndarray
) -> None:
    session = Session(engine_path)
    session.close()
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session(frame)


def test_compiled_kernels_are_kept_beside_the_engine(
    engine_path: Path, cuda: StandInCuda, tensorrt: StandInTensorRT
) -> None:
    cache = engine_path.with_name("model.engine.jit-cache")
    Session(engine_path).close()
    assert cache.read_bytes() == b"compiled"
    Session(engine_path).close()
    assert cache.read_bytes() == b"compiledcompiled"
    assert sorted(path.name for path in engine_path.parent.iterdir()) == ["model.engine", "model.engine.jit-cache"]


def test_a_folder_that_cannot_be_written_costs_only_the_cache(
    engine_path: Path, cuda: StandInCuda, tensorrt: StandInTensorRT
) -> None:
    engine_path.with_name("model.engine.jit-cache").mkdir()
    Session(engine_path).close()


@pytest.mark.parametrize(
    "attribute, value, words",
    [
        ("valid", False, r"TensorRT calls invalid \(VERSION_MISMATCH, UNSUPPORTED_CC\)"),
        ("loads", False, "found one that it refuses"),
        ("names", ("image", "logits"), "expected the inputs and outputs .* found image, logits"),
        ("largest", (1, 32, 48, 3), r"at most \(4, 32, 48, 3\) in the engine, found \(1, 32, 48, 3\)"),
        ("__version__", "1.3.0", "an engine of tensorrt_rtx 1.3.0 as installed, found one of 1.2.3"),
    ],
)
def test_an_engine_that_does_not_fit(
    engine_path: Path, cuda: StandInCuda, tensorrt: StandInTensorRT, attribute: str, value: Any, words: str
) -> None:
    setattr(tensorrt, attribute, value)
    with pytest.raises(ArtefactError, match=words) as error:
        Session(engine_path)
    assert "\n" not in str(error.value)
    assert cuda.memory == {}


def test_another_gpu(engine_path: Path, cuda: StandInCuda, tensorrt: StandInTensorRT) -> None:
    cuda.capability = (12, 0)
    with pytest.raises(ArtefactError, match=r"capability 12\.0 of this GPU, found one for 8\.6, 8\.9"):
        Session(engine_path)


def test_no_gpu(engine_path: Path, cuda: StandInCuda, tensorrt: StandInTensorRT) -> None:
    cuda.status = Status.cudaErrorNoDevice
    with pytest.raises(ProviderError, match="a working CUDA driver, found cudaErrorNoDevice in cudaGetDevice"):
        Session(engine_path)


def test_a_gpu_without_room_is_left_as_it_was(engine_path: Path, cuda: StandInCuda, tensorrt: StandInTensorRT) -> None:
    # The first allocation is the picture's; all others are smaller, so the second one is made to fail.
    allocate, sizes = cuda.cudaMalloc, []

    def second_fails(size: int) -> tuple[Status, int]:
        sizes.append(size)
        return allocate(size) if len(sizes) == 1 else (Status.cudaErrorMemoryAllocation, 0)

    cuda.cudaMalloc = second_fails  # type: ignore[method-assign]
    with pytest.raises(ProviderError, match="found cudaErrorMemoryAllocation in cudaMalloc"):
        Session(engine_path)
    assert (cuda.memory, cuda.streams) == ({}, 0)


def test_an_inference_that_fails(
    engine_path: Path, cuda: StandInCuda, tensorrt: StandInTensorRT, frame: np.ndarray
) -> None:
    session = Session(engine_path)
    tensorrt.fails = True
    with pytest.raises(ProviderError, match="could not run the engine on 2 pictures"):
        session([frame, frame])


@pytest.mark.parametrize("missing", ["tensorrt_rtx", "cuda.bindings.runtime"])
def test_missing_packages_name_the_extra(
    engine_path: Path, cuda: StandInCuda, tensorrt: StandInTensorRT, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=rf"expected {missing} .*pip install '\.\[rtx\]'"):
        Session(engine_path)


def test_options_of_onnx_files_are_refused(engine_path: Path) -> None:
    with pytest.raises(UsageError, match="no threads, provider_options or io_binding for a TensorRT"):
        Session(engine_path, threads=2)
    with pytest.raises(UsageError, match="expected provider 'auto' or 'nv_tensorrt_rtx' for this engine, found 'cpu'"):
        Session(engine_path, provider="cpu")


def test_a_tampered_engine(engine_path: Path) -> None:
    engine_path.write_bytes(engine_path.read_bytes().replace(b"plan", b"plot"))
    with pytest.raises(ArtefactError, match="changed or damaged"):
        Session(engine_path)


@pytest.mark.parametrize(
    "info, version, capability, words",
    [
        (INFO, "1.2.3", "8.9", ""),
        ({**INFO, "compute_capabilities": []}, "1.2.3", "12.0", ""),
        (INFO, "1.2.4", "8.9", "tensorrt_rtx 1.2.4 as installed, found one of 1.2.3; .*install tensorrt_rtx==1.2.3"),
        (INFO, "1.2.3", "7.5", "compute capability 7.5"),
    ],
)
def test_check_engine(info: dict[str, Any], version: str, capability: str, words: str) -> None:
    if not words:
        check_engine(info, version, capability, PATH)
        return
    with pytest.raises(ArtefactError, match=words):
        check_engine(info, version, capability, PATH)


def test_an_engine_of_another_package(
    tmp_path: Path, make_metadata: Callable[..., dict[str, Any]], seal_file: Callable[[bytes], bytes]
) -> None:
    text = json.dumps(make_metadata(tensorrt={**INFO, "package": "tvm"})).encode()
    (tmp_path / "a.engine").write_bytes(seal_file(len(text).to_bytes(4, "little") + text + b"plan"))
    with pytest.raises(ArtefactError, match="engine of tensorrt or tensorrt_rtx, found 'tvm'"):
        Session(tmp_path / "a.engine")


def test_names_exist_in_tensorrt_rtx() -> None:
    """Where the real package is installed: every name that the backend calls is there."""
    trt = pytest.importorskip("tensorrt_rtx")
    wanted = {
        trt.Runtime: ["get_engine_validity", "deserialize_cuda_engine"],
        trt.ICudaEngine: ["num_io_tensors", "get_tensor_name", "get_tensor_profile_shape"],
        trt.IExecutionContext: ["set_input_shape", "set_tensor_address", "execute_async_v3"],
        trt.IRuntimeConfig: ["create_runtime_cache", "set_runtime_cache"],
        trt.IRuntimeCache: ["serialize", "deserialize"],
        trt.EngineValidity: ["INVALID"],
        trt.Logger: ["ERROR"],
    }
    for owner, names in wanted.items():
        assert [name for name in names if not hasattr(owner, name)] == []
    assert hasattr(trt.ICudaEngine, "create_runtime_config")
    assert trt.EngineInvalidityDiagnostics.__members__


def test_a_real_engine(
    tmp_path: Path,
    make_graph: Callable[..., Any],
    make_metadata: Callable[..., dict[str, Any]],
    seal_file: Callable[[bytes], bytes],
    reference: Reference,
    frame: np.ndarray,
) -> None:
    """Building needs no GPU. Without one, opening says so; with one, results are compared."""
    trt = pytest.importorskip("tensorrt_rtx")
    runtime = pytest.importorskip("cuda.bindings.runtime")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, logger).parse(make_graph().SerializeToString())
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape("image", (1, 32, 48, 3), (1, 32, 48, 3), (4, 32, 48, 3))
    profile.set_shape("explain_class", (1,), (1,), (4,))
    config.add_optimization_profile(profile)
    plan = bytes(builder.build_serialized_network(network, config))
    info = {"package": "tensorrt_rtx", "version": trt.__version__, "compute_capabilities": []}
    text = json.dumps(make_metadata(tensorrt=info)).encode()
    path = tmp_path / "model.engine"
    path.write_bytes(seal_file(len(text).to_bytes(4, "little") + text + plan))
    if int(runtime.cudaGetDevice()[0]) != 0:
        with pytest.raises(ProviderError, match="expected an NVIDIA GPU with a working CUDA driver"):
            Session(path)
        return
    try:
        session = Session(path)
    except ArtefactError as error:
        assert "of compute capability" in str(error)
        pytest.skip(f"TensorRT-RTX does not support the GPU of this machine: {error}")
    results = session([frame, frame[::-1], frame], explain=[None, 2, 3])
    images = np.stack([session.preprocessing.array(f) for f in (frame, frame[::-1], frame)])
    logits, heatmaps, bases = reference(images, [-1, 2, 3])
    np.testing.assert_allclose([r.logits for r in results], logits, atol=1e-3)
    np.testing.assert_allclose([r.heatmap for r in results], heatmaps, atol=1e-3)
    np.testing.assert_allclose([r.base for r in results], bases, atol=1e-3)

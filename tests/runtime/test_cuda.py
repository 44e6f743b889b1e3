"""What only a machine with an NVIDIA GPU can show; skipped elsewhere. Needs onnxruntime-gpu or cuda-bindings."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edgex.runtime import Session
from edgex.runtime.backends.tensorrt import Cuda

Reference = Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]

# onnxruntime's CUDA provider multiplies in TensorFloat-32 by default.
TOLERANCE = 5e-3


def has_gpu() -> bool:
    """Whether CUDA's driver is here and finds a device."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


pytestmark = pytest.mark.skipif(not has_gpu(), reason="no NVIDIA GPU with its driver on this machine")


@pytest.fixture
def on_cuda() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider")


def batch(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 [count, 32, 48, 3] and classes int64 [count], -1 first."""
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, 32, 48, 3), dtype=np.uint8), np.arange(count) % 5 - 1


@pytest.mark.parametrize("io_binding", [False, True])
def test_results_are_those_of_the_arithmetic(
    on_cuda: None, model_path: Path, reference: Reference, io_binding: bool
) -> None:
    with Session(model_path, provider="cuda", io_binding=io_binding) as session:
        assert session.provider == "cuda"
        for count in (1, 3, 4, 1):
            images, explain = batch(count)
            for found, wanted in zip(session.run(images, explain), reference(images, explain), strict=True):
                np.testing.assert_allclose(found, wanted, atol=TOLERANCE)


def test_threads_that_come_and_go_share_the_graphs(on_cuda: None, model_path: Path, reference: Reference) -> None:
    """onnxruntime keeps graphs per thread; fifty threads must not mean fifty captures, nor two sessions a quarrel."""
    with Session(model_path, provider="cuda") as one, Session(model_path, provider="cuda") as other:
        for number in range(50):
            images, explain = batch(1 + number % 4)
            with ThreadPoolExecutor(2) as pool:
                runs = [pool.submit(session.run, images, explain) for session in (one, other)]
            for run in runs:
                for found, wanted in zip(run.result(), reference(images, explain), strict=True):
                    np.testing.assert_allclose(found, wanted, atol=TOLERANCE)


def test_auto_is_cuda(on_cuda: None, model_path: Path) -> None:
    assert Session(model_path).provider == "cuda"


@pytest.mark.parametrize("io_binding", [False, True])
def test_threads_share_a_session(on_cuda: None, model_path: Path, io_binding: bool) -> None:
    with Session(model_path, provider="cuda", io_binding=io_binding) as session:
        inputs = [batch(1 + number % 4) for number in range(64)]
        serial = [session.run(*arguments) for arguments in inputs]
        with ThreadPoolExecutor(8) as pool:
            parallel = list(pool.map(lambda arguments: session.run(*arguments), inputs))
    for one, other in zip(serial, parallel, strict=True):
        for first, second in zip(one, other, strict=True):
            np.testing.assert_array_equal(first, second)


def test_the_gpus_memory_keeps_what_is_copied_there() -> None:
    """The calls that engines are run with, on the real CUDA runtime."""
    cuda = Cuda(pytest.importorskip("cuda.bindings.runtime"))
    major, minor = cuda.compute_capability().split(".")
    assert int(major) >= 3
    assert minor.isdigit()
    stream = cuda.create_stream()
    values = np.random.default_rng(0).random((3, 5), np.float32)
    address = cuda.allocate(values.nbytes)
    back = np.zeros_like(values)
    cuda.to_device(address, values, stream)
    cuda.to_host(back, address, stream)
    cuda.synchronise(stream)
    cuda.free(address)
    cuda.destroy_stream(stream)
    np.testing.assert_array_equal(back, values)

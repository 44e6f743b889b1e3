"""Runs a TensorRT or TensorRT-RTX engine file without torch: checks it, loads the plan, copies, executes.

Written against tensorrt_rtx 1.7 and cuda-bindings 13. The checks before loading run anywhere. On a GPU the CUDA calls
and the validity check were run, on an H100, which TensorRT-RTX does not support; no engine was executed yet: the tests
of that replace CUDA and TensorRT by stand-ins.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from edgex.runtime.atomic_files import atomic_output
from edgex.runtime.backends.backend import INPUTS, OUTPUTS, BackendOptions, FusedFile, output_shapes
from edgex.runtime.errors import ArtefactError, MissingExtraError, ProviderError, UsageError, install_hint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import ModuleType

    from edgex.runtime.metadata import Metadata

PACKAGES = {"tensorrt": ("tensorrt", "trt"), "tensorrt_rtx": ("nv_tensorrt_rtx", "rtx")}
"""Python package that built an engine -> its provider name and the extra of edgex that brings it."""


class TensorRTBackend:
    """One engine with one execution context; callers in several threads take turns."""

    provider: str
    """"tensorrt" or "nv_tensorrt_rtx"."""
    shares_classes = False
    captured = False
    _runtime: Any
    _engine: Any
    _context: Any
    _cache: Any

    def __init__(self, file: FusedFile, options: BackendOptions) -> None:
        path, metadata, plan = file.path, file.metadata, file.plan
        if plan is None:
            raise ArtefactError(f"{path}: expected a TensorRT engine file, found another")
        if options.threads is not None or options.provider_options is not None or options.io_binding:
            raise UsageError(
                f"{path}: expected no threads, provider_options or io_binding for a TensorRT engine, found some"
            )
        self._path = path
        info = metadata.tensorrt or {}
        package = str(info.get("package"))
        if package not in PACKAGES:
            raise ArtefactError(f"{path}: expected an engine of {' or '.join(PACKAGES)}, found {package!r}")
        self.provider, extra = PACKAGES[package]
        if options.provider not in ("auto", self.provider):
            raise UsageError(
                f"{path}: expected provider 'auto' or {self.provider!r} for this engine, found {options.provider!r}"
            )
        trt = _import(package, extra)
        self._cuda = Cuda(_import("cuda.bindings.runtime", extra))
        check_engine(info, str(trt.__version__), self._cuda.compute_capability(), path)
        self._lock = threading.Lock()
        self._load(trt, plan)
        _check_contract(self._engine, metadata, path)
        self._allocate(metadata)

    def run(self, image: np.ndarray, explain_class: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """image uint8 [N, H, W, 3] and explain_class int64 [N] -> logits, heatmap and base.

        float32 [N, C], [N, rows, columns] and [N].
        """
        count = len(image)
        with self._lock:
            if self._context is None:
                raise UsageError(f"expected an open session, found one that was closed ({self._path})")
            for name, array in (("image", image), ("explain_class", explain_class)):
                self._context.set_input_shape(name, array.shape)
                self._cuda.to_device(self._buffers[name], np.ascontiguousarray(array), self._stream)
            if not self._context.execute_async_v3(self._stream):
                raise ProviderError(f"{self._path}: TensorRT could not run the engine on {count} pictures")
            outputs = [np.empty((count, *shape), np.float32) for shape in self._outputs.values()]
            for name, output in zip(self._outputs, outputs, strict=True):
                self._cuda.to_host(output, self._buffers[name], self._stream)
            self._cuda.synchronise(self._stream)
        return outputs[0], outputs[1], outputs[2]

    def close(self) -> None:
        """Frees the GPU's memory, after the inference that is running."""
        with self._lock:
            if self._context is None:
                return
            self._save_cache()
            # TensorRT wants them released in this order.
            self._context = self._cache = None
            self._engine = self._runtime = None
            self._free()

    def _load(self, trt: ModuleType, plan: bytes) -> None:
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        if hasattr(self._runtime, "get_engine_validity"):
            validity, diagnostics = self._runtime.get_engine_validity(plan)
            if validity == trt.EngineValidity.INVALID:
                raise ArtefactError(
                    f"{self._path}: expected an engine that runs on this GPU of compute capability "
                    f"{self._cuda.compute_capability()}, found one that TensorRT calls invalid "
                    f"({_reasons(trt, diagnostics)}); build it again here with `edgex export`, or, if this "
                    "TensorRT does not support the GPU, run the ONNX file with provider='cuda'"
                )
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise ArtefactError(
                f"{self._path}: expected an engine that TensorRT can load, found one that it refuses; "
                "build it again here with `edgex export`"
            )
        self._cache = None
        self._cache_path = self._path.with_name(self._path.name + ".jit-cache")
        if hasattr(self._engine, "create_runtime_config") and hasattr(trt, "IRuntimeCache"):
            # TensorRT-RTX compiles its kernels at the first run; the cache keeps them for the next start.
            config = self._engine.create_runtime_config()
            self._cache = config.create_runtime_cache()
            with contextlib.suppress(OSError):
                self._cache.deserialize(self._cache_path.read_bytes())
            config.set_runtime_cache(self._cache)
            self._context = self._engine.create_execution_context(config)
        else:
            self._context = self._engine.create_execution_context()

    def _allocate(self, metadata: Metadata) -> None:
        """GPU buffers for the largest batch."""
        self._outputs = output_shapes(metadata)
        image_bytes = math.prod(metadata.preprocessing.image_size) * 3
        sizes = {"image": image_bytes, "explain_class": 8}
        sizes |= {name: 4 * math.prod(shape) for name, shape in self._outputs.items()}
        self._stream = self._cuda.create_stream()
        self._buffers: dict[str, int] = {}
        try:
            for name, size in sizes.items():
                self._buffers[name] = self._cuda.allocate(size * metadata.max_batch)
                self._context.set_tensor_address(name, self._buffers[name])
        except ProviderError:
            self._free()
            raise

    def _free(self) -> None:
        for buffer in self._buffers.values():
            self._cuda.free(buffer)
        self._cuda.destroy_stream(self._stream)

    def _save_cache(self) -> None:
        """Writes the compiled kernels beside the engine; a folder that cannot be written costs only time."""
        if self._cache is None:
            return
        with contextlib.suppress(ArtefactError), atomic_output(self._cache_path) as temporary:
            temporary.write_bytes(bytes(self._cache.serialize()))


class Cuda:
    """The few calls of the CUDA runtime that an engine needs, from `cuda.bindings.runtime`.

    Pointers and streams are integers. Raises ProviderError where CUDA refuses.
    """

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime

    def compute_capability(self) -> str:
        """Of the current GPU, such as "8.9"."""
        device = self._call("cudaGetDevice")
        names = self._runtime.cudaDeviceAttr
        major = self._call("cudaDeviceGetAttribute", names.cudaDevAttrComputeCapabilityMajor, device)
        minor = self._call("cudaDeviceGetAttribute", names.cudaDevAttrComputeCapabilityMinor, device)
        return f"{major}.{minor}"

    def create_stream(self) -> int:
        """A stream of its own, so that other work on the GPU does not wait for it."""
        return int(self._call("cudaStreamCreate"))

    def destroy_stream(self, stream: int) -> None:
        """Releases the stream."""
        self._call("cudaStreamDestroy", stream)

    def allocate(self, size: int) -> int:
        """Address of `size` bytes on the GPU."""
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        """Releases memory of `allocate`."""
        self._call("cudaFree", address)

    def to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        """Copies a contiguous array to the GPU."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, stream)

    def to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        """Fills a contiguous array from the GPU; valid after `synchronise`."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, stream)

    def synchronise(self, stream: int) -> None:
        """Waits for everything in the stream."""
        self._call("cudaStreamSynchronize", stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *values = getattr(self._runtime, name)(*arguments)
        if int(status) != 0:
            reason = getattr(status, "name", status)
            raise ProviderError(f"expected an NVIDIA GPU with a working CUDA driver, found {reason} in {name}")
        return values[0] if values else None


def check_engine(info: Mapping[str, Any], version: str, capability: str, path: Path) -> None:
    """Raises ArtefactError unless this machine can load the engine.

    info: package, version and compute_capabilities ("8.9", ...; an empty list fits every GPU) of its metadata.
    version: of the installed package. capability: of this GPU.
    """
    built, capabilities = info["version"], info["compute_capabilities"]
    if built != version:
        raise ArtefactError(
            f"{path}: expected an engine of {info['package']} {version} as installed, found one of {built}; "
            f"build it again with `edgex export` or install {info['package']}=={built}"
        )
    if capabilities and capability not in capabilities:
        raise ArtefactError(
            f"{path}: expected an engine for compute capability {capability} of this GPU, found one for "
            f"{', '.join(map(str, capabilities))}; build it again here with `edgex export`"
        )


def _import(name: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"expected {name} to run this engine, found none that imports ({error}): {install_hint(extra)}"
        ) from error


def _check_contract(engine: Any, metadata: Metadata, path: Path) -> None:
    wanted = [*INPUTS, *OUTPUTS]
    found = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    if sorted(found) != sorted(wanted):
        raise ArtefactError(f"{path}: expected the inputs and outputs {', '.join(wanted)}, found {', '.join(found)}")
    largest = tuple(engine.get_tensor_profile_shape("image", 0)[2])
    expected = (metadata.max_batch, *metadata.preprocessing.image_size, 3)
    if largest != expected:
        raise ArtefactError(f"{path}: expected pictures of at most {expected} in the engine, found {largest}")


def _reasons(trt: ModuleType, diagnostics: int) -> str:
    """Names of the bits that are set."""
    names = trt.EngineInvalidityDiagnostics.__members__.items()
    return ", ".join(name for name, bit in names if int(bit) & int(diagnostics)) or "no reason given"

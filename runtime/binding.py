"""Memory that inputs and results of an onnxruntime session are bound to, so that no call has to allocate any.

In the host's memory each thread has its own. In a GPU's memory the addresses never change, which is what lets CUDA
replay a whole pass as one captured graph instead of launching its kernels one by one.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

Shapes = dict[str, tuple[int, ...]]
"""Name of an output -> its shape without the first dimension."""

_Inputs = dict[str, tuple[tuple[tuple[int, ...], np.dtype], Any]]
"""Name of an input -> (shape, type) and its place in the GPU's memory."""
_NO_GRAPH = -1


class HostBinding(threading.local):
    """Results in host memory; each thread has its own, per number of pictures and classes."""

    def __init__(self, onnxruntime: ModuleType, outputs: Shapes) -> None:
        self._onnxruntime, self._shapes = onnxruntime, outputs
        self._ready: dict[tuple[int, int], tuple[Any, list[Any]]] = {}

    def run(self, session: Any, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """As `session.run`; the results are copies, since the next call writes to the same memory."""
        pictures, classes = sizes = len(inputs["image"]), len(inputs["explain_class"])
        if sizes not in self._ready:
            binding = session.io_binding()
            outputs = []
            for name, shape in self._shapes.items():
                values = np.empty((pictures if name == "logits" else classes, *shape), np.float32)
                outputs.append(self._onnxruntime.OrtValue.ortvalue_from_numpy(values))
                binding.bind_ortvalue_output(name, outputs[-1])
            self._ready[sizes] = binding, outputs
        binding, outputs = self._ready[sizes]
        for name, value in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(value))
        session.run_with_iobinding(binding)
        return [output.numpy().copy() for output in outputs]


class CudaBinding:
    """Inputs and float32 results in a GPU's memory, one set per batch size; callers in several threads take turns.

    outputs: of the session, in the order wanted. largest: batches that get memory and a graph of their own; others,
    and calls whose inputs differ in length, run as without a binding. device_id: of the GPU that the session runs on.

    The session must have been opened with the CUDA provider's option enable_cuda_graph: a batch size's first call
    captures the graph that its later calls replay.
    """

    def __init__(self, onnxruntime: ModuleType, outputs: Shapes, largest: int, device_id: int = 0) -> None:
        self._onnxruntime, self._shapes, self._largest, self._device_id = onnxruntime, outputs, largest, device_id
        self._lock = threading.Lock()
        self._ready: dict[int, tuple[Any, Any, _Inputs, list[Any]]] = {}

    def run(self, session: Any, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """As `session.run` for the outputs of this binding."""
        lengths = {len(value) for value in inputs.values()}
        count = max(lengths)
        with self._lock:
            if len(lengths) > 1 or not 1 <= count <= self._largest:
                return session.run(list(self._shapes), inputs, self._options(_NO_GRAPH))
            if count not in self._ready:
                self._ready[count] = self._bind(session, inputs, count)
            binding, options, bound, outputs = self._ready[count]
            for name, value in inputs.items():
                kind = (value.shape, value.dtype)
                if kind != bound[name][0]:
                    raise ValueError(f"expected {name} of {bound[name][0]}, found {kind}")
                bound[name][1].update_inplace(np.ascontiguousarray(value))
            session.run_with_iobinding(binding, options)
            return [output.numpy() for output in outputs]

    def _bind(self, session: Any, inputs: Mapping[str, np.ndarray], count: int) -> tuple[Any, Any, _Inputs, list[Any]]:
        on_gpu = self._onnxruntime.OrtValue
        binding = session.io_binding()
        bound: _Inputs = {}
        for name, value in inputs.items():
            place = on_gpu.ortvalue_from_numpy(np.ascontiguousarray(value), "cuda", self._device_id)
            binding.bind_ortvalue_input(name, place)
            bound[name] = (value.shape, value.dtype), place
        outputs = []
        for name, shape in self._shapes.items():
            place = on_gpu.ortvalue_from_shape_and_type((count, *shape), np.float32, "cuda", self._device_id)
            binding.bind_ortvalue_output(name, place)
            outputs.append(place)
        return binding, self._options(count), bound, outputs

    def _options(self, graph: int) -> Any:
        """graph: the number by which onnxruntime tells captured graphs apart, -1 for none."""
        options = self._onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(graph))
        return options

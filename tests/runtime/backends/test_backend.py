"""Both backends have one shape: whoever knows one knows the other."""

from __future__ import annotations

import inspect

import pytest

from edgex.runtime import UsageError
from edgex.runtime.backends.backend import OUTPUTS, Backend, BackendOptions, output_shapes
from edgex.runtime.backends.onnxruntime import OnnxRuntimeBackend
from edgex.runtime.backends.tensorrt import TensorRTBackend
from edgex.runtime.metadata import Metadata
from small_model import describe

BACKENDS = [OnnxRuntimeBackend, TensorRTBackend]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_has_the_shape_of_the_protocol(backend: type) -> None:
    assert list(inspect.signature(backend).parameters) == ["file", "options"]
    for name in ("run", "close"):
        wanted = inspect.signature(getattr(Backend, name))
        assert inspect.signature(getattr(backend, name)) == wanted
    public = {name for name in (*vars(backend), *backend.__annotations__) if not name.startswith("_")}
    assert public == {"provider", "shares_classes", "captured", "run", "close"}


def test_outputs_of_the_contract() -> None:
    shapes = output_shapes(Metadata.from_dict(describe()))
    assert tuple(shapes) == OUTPUTS
    assert shapes == {"logits": (4,), "heatmap": (2, 3), "base": ()}


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_are_counted_from_one(threads: int) -> None:
    with pytest.raises(UsageError, match="expected at least 1 thread, found"):
        BackendOptions(threads=threads)

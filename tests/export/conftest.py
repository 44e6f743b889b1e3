"""One small export per precision, made once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgex.export import graph_builder
from edgex.export.onnx import write_onnx
from edgex.export.report import Stages

SHA = "ab" * 32


@pytest.fixture(scope="session", autouse=True)
def traced_once() -> Iterator[None]:
    """Traces each model of these tests once: tracing takes seconds and the same model gives the same graph."""
    original = graph_builder.trace
    graphs: dict[Any, Any] = {}
    modules: list[Any] = []  # kept alive, so that no address is used twice

    def trace(module: Any, image_size: tuple[int, int]) -> ir.Model:
        weights = tuple(weight.data_ptr() for weight in module.model.parameters())
        key = (weights, str(module.model.evidence), module.model.head.activation.name, image_size)
        if key not in graphs:
            modules.append(module)
            graphs[key] = ir.to_proto(original(module, image_size))
        return ir.from_proto(graphs[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_builder, "trace", trace)
        yield


@pytest.fixture(scope="session")
def small(random_model: Callable[..., Any]) -> Any:
    """(model, card) of a small ViT with class-token pooling."""
    return random_model("timm/test_vit", classes=7, alpha=1.0)


@pytest.fixture(scope="session")
def small_pictures(natural_pictures: Callable[..., Any]) -> Any:
    return natural_pictures(9, (160, 160))


@pytest.fixture(scope="session")
def exported(small: Any, small_pictures: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """`exported("fp16")` -> (path, report) of the small model; "static" is int8 with calibration."""
    folder: Path = tmp_path_factory.mktemp("exported")
    made: dict[str, Any] = {}

    def export(kind: str) -> Any:
        if kind not in made:
            model, card = small
            path = folder / f"{kind}.onnx"
            made[kind] = (
                path,
                write_onnx(
                    model,
                    card,
                    path,
                    pictures=small_pictures,
                    model_sha256=SHA,
                    precision="int8" if kind in ("dynamic", "static") else kind,  # type: ignore[arg-type]
                    # Random weights leave near ties between classes, which int8 may swap.
                    thresholds={"top1_agreement": 0.7} if kind in ("dynamic", "static") else None,
                    calibration=small_pictures[:4] if kind == "static" else None,
                ),
            )
        return made[kind]

    return export


@pytest.fixture(scope="session")
def fp32_graph(small: Any, small_pictures: np.ndarray) -> Callable[[], ir.Model]:
    """Makes the float32 graph of the small model as it is written to a file."""
    network, card = small
    built = graph_builder.build_graph(network, card, graph_builder.Recipe(), small_pictures, Stages(None))
    message = ir.to_proto(built.graph)
    return lambda: ir.from_proto(message)

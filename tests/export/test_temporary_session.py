import resource
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgex.errors import ArtefactError
from edgex.export.temporary_session import temporary_copy, temporary_session


@pytest.fixture
def doubled() -> ir.Model:
    """y = (x + w) * 2 with 400 kB of weights."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([100_000]))
    weights = np.arange(100_000, dtype=np.float32)
    w = ir.Value(name="w", type=x.type, shape=x.shape, const_value=ir.tensor(weights, name="w"))
    two = ir.Value(name="two", type=x.type, shape=ir.Shape([]), const_value=ir.tensor(np.float32(2), name="two"))
    total, product = ir.Value(name="total"), ir.Value(name="y", type=x.type, shape=x.shape)
    nodes = [ir.node("Add", [x, w], outputs=[total]), ir.node("Mul", [total, two], outputs=[product])]
    graph = ir.Graph([x], [product], nodes=nodes, initializers=[w, two], opset_imports={"": 20}, name="doubled")
    return ir.Model(graph, ir_version=10)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_session_gives_tensors_inside_of_the_graph(doubled: ir.Model, temporary: Path) -> None:
    with temporary_session(doubled, tensors=["total"]) as session:
        y, total = session.run(None, {"x": np.ones(100_000, dtype=np.float32)})
        assert list(temporary.iterdir())
    assert np.array_equal(total, np.arange(100_000, dtype=np.float32) + 1) and np.array_equal(y, 2 * total)
    assert not list(temporary.iterdir())
    assert [value.name for value in doubled.graph.outputs] == ["y"]


def test_a_copy_is_changed_alone(doubled: ir.Model, temporary: Path) -> None:
    with temporary_copy(doubled) as twin:
        twin.graph.initializers["two"].const_value = ir.tensor(np.float32(3), name="two")
        for model, factor in ((twin, 3), (doubled, 2)):
            with temporary_session(model) as session:
                assert session.run(None, {"x": np.zeros(100_000, dtype=np.float32)})[0][7] == 7 * factor
    assert not list(temporary.iterdir())


def test_a_full_temporary_folder_is_one_error(doubled: ir.Model, temporary: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with (
            pytest.raises(ArtefactError, match="working copy .* make room there, or set TMPDIR"),
            temporary_copy(doubled),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(temporary.iterdir())

"""Drift as a server says it: a line, and a gauge for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgex.runtime import Session
from edgex.runtime.drift import FEWEST, observation_of
from edgex.runtime.sketch import Sketch
from small_model import write
from streams import coloured, jpeg


@pytest.fixture
def session(tmp_path: Path) -> Any:
    """Of a file that was validated with as many pictures of each of three colours."""
    with Session(write(tmp_path / "plain.onnx"), "cpu", threads=1) as plain:
        seen = [observation_of(plain(coloured(number))) for number in range(3)]
        sketch = Sketch.of(seen * 100, len(plain.classes)).to_dict()
    path = write(tmp_path / "colours.onnx", calibration={"data": "val", "pictures": 300, "sketch": sketch})
    with Session(path, "cpu", threads=1) as opened:
        yield opened


def gauge(text: str, quantity: str) -> float:
    (line,) = [line for line in text.splitlines() if line.startswith(f'edgex_drift{{quantity="{quantity}"}}')]
    return float(line.split()[-1])


def ask(client: Any, picture: bytes, **parameters: str) -> None:
    assert client.post("/v1/predict", content=picture, params=parameters).status_code == 200


def test_requests_unlike_validation(serve: Callable[..., Any]) -> None:
    client = serve(log_requests=False)
    said = client.log
    order = np.random.default_rng(0).permutation([0] * 8 + [1] * 7 + [2] * (FEWEST - 15)).tolist()
    for number in order[:-1]:
        ask(client, jpeg(number))
    # Of a question about a class, the heatmap is another one.
    for _ in range(20):
        ask(client, jpeg(2), explain="nothing")
    assert said == [] and gauge(client.get("/metrics").text, "classes") == 0
    ask(client, jpeg(order[-1]))
    end = time.monotonic() + 10
    while not any("classes" in line for line in said) and time.monotonic() < end:
        time.sleep(0.01)
    (line,) = [line for line in said if "classes" in line]
    assert line.startswith("drift: classes come in other shares than in validation: blue thing 9")
    assert line.endswith(f"over the last {FEWEST} frames")
    assert gauge(client.get("/metrics").text, "classes") == 1

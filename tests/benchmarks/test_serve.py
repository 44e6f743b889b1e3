"""The load test of `edgex serve` in a short form: 16 clients on a small model, no error. Its speed is not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from small_model import write

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "serve.py"


@pytest.mark.skipif(sys.platform != "linux", reason="the server's CPU time is read from /proc")
def test_sixteen_clients_get_no_error(tmp_path: Path) -> None:
    model, out = write(tmp_path / "colours.onnx"), tmp_path / "serve.json"
    options = ["--clients", "16", "--rounds", "1", "--seconds", "1.5", "--threads", "1", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(model), *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["errors"] == 0 and report["answers"] >= 16 and report["clients"] == 16
    assert set(report["ratio"]) == {"per_second", "per_cpu_second"}
    assert report["rounds"][0]["server"]["per_second"] > 0

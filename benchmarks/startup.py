"""How long it takes until edgex can work: imports and the command line's help, each in a fresh interpreter.

    python benchmarks/startup.py [--rounds 15]

The CPU time of `from edgex.runtime import Session` is that of edgex's own modules: numpy, pillow and onnxruntime are
imported before. `edgex --help` is wall time of the whole process. Byte code is written by a first run that does not
count. Results go to results/startup.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, log

from edgex.bench.timing import Summary, machine

RUNTIME = """
import time
import numpy, PIL.Image, onnxruntime
start = time.process_time()
import edgex.runtime
from edgex.runtime import Session
print(1e3 * (time.process_time() - start))
"""
HELP = "import sys; sys.argv = ['edgex', '--help']; from edgex.cli import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS / "startup.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        times: dict[str, list[float]] = {"import_runtime_cpu_ms": [], "help_wall_ms": []}
        for number in range(arguments.rounds + 1):
            log(f"round {number} of {arguments.rounds}")
            found = float(run(RUNTIME, environment))
            start = time.perf_counter()
            run(HELP, environment)
            wall = 1e3 * (time.perf_counter() - start)
            if number > 0:
                times["import_runtime_cpu_ms"].append(found)
                times["help_wall_ms"].append(wall)
    report: dict[str, Any] = {"machine": machine(("numpy", "pillow", "onnxruntime", "typer", "rich"))}
    report |= {name: Summary.of(np.array(values)).to_dict() for name, values in times.items()}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


def run(program: str, environment: dict[str, str]) -> str:
    """Standard output of a fresh interpreter."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()

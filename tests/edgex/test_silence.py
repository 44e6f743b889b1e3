"""No job looks anything up or leaves a file beside those that were asked for, whatever library it runs on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[1] / "support"
NO_NETWORK = ["unshare", "--user", "--map-root-user", "--net"]
TRACE = ["strace", "-f", "--seccomp-bpf", "-e", "trace=connect,sendto,sendmsg", "-e", "signal=none", "-o"]


def works(command: list[str]) -> bool:
    """Whether a command is installed and allowed here."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0


def test_the_main_jobs_are_silent(tmp_path: Path) -> None:
    """Without a network; where strace is at hand, native code is watched as well as Python."""
    if not works(NO_NETWORK):
        pytest.skip("no network namespaces here")
    folders = {name: tmp_path / name for name in ("home", "temporary", "own", "work")}
    for folder in folders.values():
        folder.mkdir()
    trace = tmp_path / "trace"
    traced = [*TRACE, str(trace)] if works([*NO_NETWORK, *TRACE, os.devnull]) else []
    environment: dict[str, str] = {
        "HOME": str(folders["home"]),
        "TMPDIR": str(folders["temporary"]),
        "EDGEX_HOME": str(folders["own"]),
        "PYTHONPATH": str(SUPPORT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": os.environ["PATH"],
        "OMP_NUM_THREADS": "1",
    }
    command = [*NO_NETWORK, *traced, sys.executable, str(SUPPORT / "silent_job.py")]
    done = subprocess.run(
        command, cwd=folders["work"], env=environment, capture_output=True, text=True, check=False, timeout=1200
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((folders["work"] / "seen.json").read_text()) == []
    assert list(folders["home"].rglob("*")) == []
    # Which torch makes when it is imported.
    assert [entry.name for entry in folders["temporary"].rglob("*")] == ["torchinductor_root"]
    assert {entry.name for entry in folders["own"].iterdir()} == {"bakes", "cache"}
    if traced:
        assert [line for line in trace.read_text().splitlines() if "AF_INET" in line] == []


@pytest.mark.parametrize("module", ["edgex", "edgex.runtime"])
def test_telemetry_is_off_after_the_import_unless_the_user_wants_it(module: str) -> None:
    code = f"import {module}; from edgex.runtime import telemetry; print(telemetry.states())"
    for value, state in ((None, "off"), ("0", "on"), ("1", "off")):
        names = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY")
        environment = {name: entry for name, entry in os.environ.items() if name not in names}
        environment |= {} if value is None else dict.fromkeys(names, value)
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str({"onnxruntime": state, "huggingface_hub": state})


def test_huggingface_hub_reads_the_switch() -> None:
    code = "import edgex, huggingface_hub.constants as c; print(c.HF_HUB_DISABLE_TELEMETRY)"
    environment = {name: value for name, value in os.environ.items() if not name.endswith("TELEMETRY")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"

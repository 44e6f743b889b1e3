"""Kills commands at random moments, as a power cut would: what lay at the output stays whole, and the next run works.

`crash` starts this module as a process of its own, which imports everything once and forks a child for each run: a
child takes a fraction of a second, and is killed (SIGKILL) somewhere between its beginning and its end.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from fuzzing.campaign import scratch
from fuzzing.worker import ROOT, WORK

_PATIENCE = 120.0
"""Seconds that a run may take."""
_LONG = 2.0
"""Seconds from which a command is run again after the last kill only."""
_LATEST = 1.1
"""Of the time that a run takes, when the latest kill comes: some runs shall end before it."""


@dataclasses.dataclass(frozen=True)
class CrashReport:
    """What killing a command did. old, new: how often the output was what it was before, and a whole new one.

    problems: what was otherwise, a line each.
    """

    command: str
    kills: int
    old: int
    new: int
    problems: list[str]


def crash(command: str, kills: int, seed: int = 0) -> CrashReport:
    """Kills one of COMMANDS this many times."""
    folder = scratch(WORK)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "tests" / "support"),
        "OMP_NUM_THREADS": "1",
        "EDGEX_HOME": str(folder / "home"),
    }
    arguments = [sys.executable, "-m", "fuzzing.crashes", command, str(kills), str(seed), str(folder)]
    try:
        done = subprocess.run(arguments, env=environment, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            return CrashReport(command, 0, 0, 0, [done.stderr[-3000:]])
        return CrashReport(**json.loads(done.stdout.splitlines()[-1]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _bake(folder: Path) -> None:
    from edgex.vectors import workflow

    workflow.bake(folder / "model.safetensors", folder / "vector-fp32.safetensors", out=folder / "out/o.st", force=True)


def _export(folder: Path) -> None:
    import numpy as np

    from edgex.export.workflow import export_onnx
    from fuzzing import tiny

    pictures = np.random.default_rng(0).integers(0, 256, (4, tiny.SIDE, tiny.SIDE, 3), np.uint8)
    export_onnx(folder / "model.safetensors", folder / "out/o.onnx", pictures=pictures, max_batch=2, force=True)


def _label(folder: Path) -> None:
    from fuzzing.parsers.artefacts import write_labels

    # A cache that is complete would leave nothing to be killed in.
    shutil.rmtree(folder / "work", ignore_errors=True)
    write_labels(folder, folder / "model.safetensors", folder / "pictures", out=folder / "out/o.st", pairs=4)


def _train(folder: Path) -> None:
    from edgex.training import workflow
    from fuzzing import tiny

    workflow.train(
        folder / "shapes",
        tiny.ARCH,
        folder / "out/o.st",
        weights=folder / "model.pt",
        epochs=3,
        batch_size=4,
        val_fraction=0.25,
        device="cpu",
        precision="fp32",
        force=True,
        workers=0,
    )


def _is_model(path: Path) -> None:
    from edgex.files.model_file import load_model

    load_model(path)


def _is_labels(path: Path) -> None:
    from edgex.shapley.label_file import load_labels

    load_labels(path)


def _is_fused(path: Path) -> None:
    from edgex.runtime import Session

    Session(path, "cpu", threads=1).close()


COMMANDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
    "bake": (_bake, _is_model),
    "export": (_export, _is_fused),
    "label": (_label, _is_labels),
    "train": (_train, _is_model),
}
"""What each command does in a folder, and what fails for an output of it that is not whole."""


def _prepare(folder: Path) -> None:
    from fuzzing.parsers.artefacts import write_model, write_pictures, write_vector
    from pictures import picture_folder

    write_vector(folder, write_model(folder))
    write_pictures(folder / "pictures", 6)
    picture_folder(folder / "shapes", {"train": 4})
    (folder / "out").mkdir()


def _start(action: Callable[[Path], None], folder: Path) -> int:
    """Runs an action in a forked child; its number."""
    child = os.fork()
    if child:
        return child
    try:
        action(folder)
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def _succeeds(action: Callable[[Path], None], folder: Path) -> bool:
    """Whether a child ends well, in time."""
    child, until = _start(action, folder), time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _crash(command: str, kills: int, seed: int, folder: Path) -> CrashReport:
    import torch

    torch.set_num_threads(1)
    _prepare(folder)
    action, check = COMMANDS[command]
    assert _succeeds(action, folder), "the command does not run"
    started = time.monotonic()
    assert _succeeds(action, folder), "the command does not run again"
    duration = time.monotonic() - started
    (output,) = (path for path in (folder / "out").iterdir() if path.is_file())
    old = output.read_bytes()
    random, counts, problems = Random(seed), {"old": 0, "new": 0}, []
    for number in range(kills):
        output.write_bytes(old)
        before = {path.name for path in (folder / "out").iterdir()}
        child, moment = _start(action, folder), random.uniform(0, _LATEST * duration)
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        where = f"kill {number} after {moment:.3f} of {duration:.3f} s"
        is_old = output.is_file() and output.read_bytes() == old
        counts["old" if is_old else "new"] += 1
        if not is_old and not _succeeds(lambda _: check(output), folder):
            problems.append(f"{where}: the output is neither the old one nor a whole one")
        left = {path.name for path in (folder / "out").iterdir()} - before
        if strange := sorted(name for name in left if not _may_stay(name, output)):
            problems.append(f"{where}: leaves {', '.join(strange)}")
        if duration > _LONG and number < kills - 1:
            continue
        if not _succeeds(action, folder) or not _succeeds(lambda _: check(output), folder):
            problems.append(f"{where}: the next run fails")
        if parts := sorted(path.name for path in (folder / "out").glob(".*.part")):
            problems.append(f"{where}: the next run leaves {', '.join(parts)}")
    return CrashReport(command, kills, counts["old"], counts["new"], problems)


def _may_stay(name: str, output: Path) -> bool:
    """Temporary files, and the folder or file that an interrupted training resumes from."""
    return (name.startswith(".") and name.endswith(".part")) or (name != output.name and name.startswith(output.name))


def main() -> None:
    command, kills, seed, folder = sys.argv[1:]
    answers: Any = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    answers.write(json.dumps(dataclasses.asdict(_crash(command, int(kills), int(seed), Path(folder)))) + "\n")
    answers.flush()
    os._exit(0)


if __name__ == "__main__":
    main()

"""Decoding ahead: the same batches from a thread and from worker processes, and errors as they were raised."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from edgex.data import image_folders, loading
from edgex.data.crops import crops_of
from edgex.data.loading import default_workers, loaded
from edgex.errors import DataError, ImageError, UsageError
from edgex.runtime.preprocessing import Preprocessing
from pictures import picture_folder

PREPROCESSING = Preprocessing((32, 32), 36, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
WORKERS = (0, 1, 2)


def read(paths: Sequence[Path]) -> np.ndarray:
    return image_folders.load_batch(paths, PREPROCESSING)


def die(request: int) -> int:
    if request == 2:
        os._exit(1)
    return request


def own_number(request: int) -> int:
    time.sleep(0.02)
    return os.getpid()


def test_crops_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    paths = image_folders.list_images([picture_folder(tmp_path, {"": 3})])
    crops = crops_of(paths, PREPROCESSING, crops=3, crop_scale=0.4, seed=5, chunk=4)
    state = torch.get_rng_state()
    batches = [list(crops.batches(4, workers=workers)) for workers in WORKERS]
    assert [len(batch) for batch in batches[0]] == [4] * 6 + [3]
    for other in batches[1:]:
        assert all(torch.equal(*pair) for pair in zip(batches[0], other, strict=True))
    assert torch.equal(torch.get_rng_state(), state), "what training draws does not depend on them either"


@pytest.mark.parametrize("workers", WORKERS)
def test_a_picture_that_cannot_be_read_is_named_in_one_line(tmp_path: Path, workers: int) -> None:
    paths = image_folders.list_images([picture_folder(tmp_path, {"": 2})])
    paths[3].write_bytes(paths[3].read_bytes()[:300])
    batches = loaded(read, [[path] for path in paths], pictures=6, workers=workers)
    for path in paths[:3]:
        assert np.array_equal(next(batches), read([path]))
    with pytest.raises(ImageError) as raised:
        next(batches)
    with pytest.raises(ImageError) as directly:
        read([paths[3]])
    assert str(raised.value) == str(directly.value)
    assert str(paths[3]) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("workers", WORKERS)
def test_an_interruption_comes_through_and_ends_the_workers(tmp_path: Path, workers: int) -> None:
    paths = image_folders.list_images([picture_folder(tmp_path, {"": 2})])

    def interrupted() -> None:
        for _ in loaded(read, [[path] for path in paths], pictures=6, workers=workers):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    gc.collect()
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_is_one_error() -> None:
    with pytest.raises(DataError, match="a process that decodes pictures died"):
        list(loaded(die, range(6), pictures=6, workers=1))


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_signals_that_reach_all_processes_are_left_to_the_program(capfd: pytest.CaptureFixture[str]) -> None:
    numbers = loaded(own_number, range(40), pictures=40, workers=1)
    worker = next(numbers)
    os.kill(worker, signal.SIGINT)
    assert [next(numbers) for _ in range(20)] == [worker] * 20, "Ctrl-C does not end it"
    os.kill(worker, signal.SIGTERM)
    with pytest.raises(DataError, match="a process that decodes pictures died"):
        list(numbers)
    assert capfd.readouterr().err == ""


def test_few_pictures_start_no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert default_workers(loading.WORTH_WORKERS - 1) == 0
    assert default_workers(loading.WORTH_WORKERS) == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert default_workers(10**6) == 1
    with pytest.raises(UsageError, match="at least 0 processes that decode pictures, found -1"):
        list(loaded(die, [0], pictures=1, workers=-1))


def test_a_program_without_a_main_guard_is_not_run_again(tmp_path: Path) -> None:
    """Workers import what they decode with, not the file that called."""
    (tmp_path / "program.py").write_text(
        "from edgex.data.loading import loaded\n"
        "import json\n"
        "print('started')\n"
        "print(list(loaded(json.loads, ['[1]', '[2]', '3'], pictures=3, workers=2)))\n"
    )
    command = [sys.executable, "-W", "error", str(tmp_path / "program.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["started", "[[1], [2], 3]"]
    assert not done.stderr

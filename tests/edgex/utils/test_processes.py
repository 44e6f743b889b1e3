"""Several processes that work as one: launched for real, on CPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgex.errors import MissingExtraError, UsageError
from edgex.files.vector_file import load_vector
from edgex.utils.processes import Processes, joined

SCRIPT = """
import sys
import torch
from edgex.training import supervision, vector_training
from edgex.training.learning import LearnOptions
from edgex.shapley.labels import LabelOptions
from pathlib import Path

folder, out = Path(sys.argv[1]), Path(sys.argv[2])
vector_training.train(
    folder / "model.safetensors",
    supervision.VectorData((folder / "pictures",), labels=LabelOptions(pairs=4, side=5, classes=2), crops=(1,)),
    out,
    name="v",
    source_name=None,
    options=LearnOptions(
        blocks=2, steps=4, batch_size=8, look_every=2, learning_rate=1e-3, precision="fp32", device="cpu", held_out=0.4
    ),
    evidence_blocks=3,
    part=None,
    alpha=1.0,
    work=out.with_suffix(".work"),
    model_out=None,
    dtype=torch.float32,
    report=lambda line: print(line, flush=True),
)
"""


def learn(folder: Path, name: str, *launcher: str) -> tuple[Path, list[str]]:
    """Learns a vector in a process of its own, or in those of a launcher; returns its file and what was said."""
    script, out = folder / "learn.py", folder / f"{name}.safetensors"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(script), str(folder), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return out, done.stdout.splitlines()


def test_two_processes_learn_what_one_does(random_model: Callable[..., Any], tmp_path: Path) -> None:
    from edgex.files.model_file import save_model
    from pictures import draw

    model, card = random_model("timm/test_vit", classes=4)
    save_model(tmp_path / "model.safetensors", model, card)
    (tmp_path / "pictures").mkdir()
    for index in range(70):  # more than one chunk of labels
        draw("blue disc", index, size=170).save(tmp_path / "pictures" / f"{index:02}.png")
    one, said = learn(tmp_path, "one")
    two, said_by_two = learn(tmp_path, "two", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert len(said_by_two) == len(said) == 8, "the first process speaks for both"
    (alone, alone_card), (together, together_card) = load_vector(one), load_vector(two)
    assert alone_card.unchanged == together_card.unchanged
    largest = max(float(delta.abs().max()) for delta in alone.values())
    assert largest > 1e-4
    for name, delta in alone.items():
        if name.endswith("qkv.bias"):
            # No output depends on a key's bias, so its gradient is rounding noise, which Adam makes as large as any.
            for part in (delta, together[name]):
                part[len(part) // 3 : 2 * len(part) // 3] = 0
        assert torch.allclose(together[name], delta, atol=0.01 * largest), name
    for mine, theirs in zip(alone_card.metrics["history"], together_card.metrics["history"], strict=True):
        assert mine["step"] == theirs["step"]
        assert mine["held_out"] == pytest.approx(theirs["held_out"], rel=1e-4)
    names = [sorted(path.name for path in (tmp_path / f"{run}.work" / "labels").iterdir()) for run in ("one", "two")]
    assert names[0] == names[1]
    assert len(names[0]) == 2


def test_alone_there_is_nothing_to_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("cpu") as group:
        assert (group.index, group.count, group.is_main) == (0, 1, True)
        assert group.sum([1.0, 2.0]) == [1.0, 2.0]
        parameter = torch.nn.Parameter(torch.ones(2))
        parameter.grad = torch.tensor([1.0, 3.0])
        group.average_gradients([parameter])
        assert parameter.grad.tolist() == [1.0, 3.0]
        group.wait()


def test_shares_are_disjoint_and_complete() -> None:
    items = torch.arange(7)
    shares = [Processes(index, 3, torch.device("cpu")).share(items).tolist() for index in range(3)]
    assert sorted(item for share in shares for item in share) == items.tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_what_a_group_needs_is_said_before_it_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[distributed\]'"), joined("cpu"):
        pass
    monkeypatch.setattr("edgex.utils.devices.device_of", lambda name: torch.device(name))
    message = "device auto, cpu or cuda with several processes, found 'cuda:1'"
    with pytest.raises(UsageError, match=message), joined("cuda:1"):
        pass

"""From what transformers' Trainer left to answers on a device, in four commands without an option but the paths."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers_models
from libraries import CLASSES
from PIL import Image

import vectors
from edgex import samples
from edgex.files.model_file import load_model
from edgex.files.vector_file import save_vector
from edgex.models.self_explaining import Evidence
from edgex.runtime import Session


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The output folder of a training of three steps, each evaluated and saved."""
    from transformers import Trainer, TrainingArguments, ViTImageProcessorPil

    generator = torch.Generator().manual_seed(0)
    data = [{"pixel_values": torch.randn(3, 32, 32, generator=generator), "labels": i % 3} for i in range(6)]
    arguments: dict[str, Any] = {
        "max_steps": 3,
        "per_device_train_batch_size": 2,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_steps": 1,
        "metric_for_best_model": "eval_loss",
        "learning_rate": 0.3,
    }
    quiet: dict[str, Any] = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "logging_strategy": "no"}
    trainer = Trainer(
        transformers_models.make(transformers_models.MODELS["ViT"]),
        TrainingArguments(str(tmp_path / "my_run"), **arguments, **quiet, dataloader_pin_memory=False),
        train_dataset=data,
        eval_dataset=data,
        processing_class=ViTImageProcessorPil(size={"height": 32, "width": 32}),
    )
    trainer.train()
    return tmp_path / "my_run"


def test_four_commands_without_an_option_but_the_paths(trained: Path, tmp_path: Path, run: Callable[..., str]) -> None:
    from transformers import ViTForImageClassification, ViTImageProcessorPil

    state = json.loads((trained / "checkpoint-3" / "trainer_state.json").read_text(encoding="utf-8"))
    best = trained / Path(state["best_model_checkpoint"]).name
    said = run("import", str(trained))
    assert f"weights taken from {best.name}/model.safetensors" in said
    network, card = load_model(tmp_path / "my_run.safetensors")
    assert card.classes == CLASSES

    name = "blocks.1.attn.qkv.weight"
    delta = {name: 0.01 * torch.ones(192, 64)}
    # A vector of timm's own model: its norms have another epsilon.
    own = {option: value for option, value in card.architecture.options.items() if option != "norm_eps"}
    assert own != card.architecture.options
    described = dataclasses.replace(
        vectors.fitting(network, card, delta, evidence=Evidence("class-attention", 2, 0.45)),
        architecture=dataclasses.replace(card.architecture, options=own),
    )
    save_vector(tmp_path / "vector.safetensors", delta, described, dtype=torch.float32)
    run("bake", "--target", "my_run.safetensors", "--vector", "vector.safetensors", "--out", "baked.safetensors")
    run("export", "baked.safetensors")
    photograph = samples.paths()[0]
    said = run("predict", "my_run.onnx", str(photograph))

    picture = Image.open(photograph).convert("RGB")
    process = ViTImageProcessorPil.from_pretrained(best)
    with torch.no_grad():
        own = ViTForImageClassification.from_pretrained(best).eval()
        before = own(**process(picture, return_tensors="pt")).logits.softmax(-1)[0]
    result = Session(tmp_path / "my_run.onnx")(picture)
    assert f"{photograph}: {result.label}" in said
    assert result.label in CLASSES
    assert abs(result.probabilities - before.numpy()).max() < 0.05

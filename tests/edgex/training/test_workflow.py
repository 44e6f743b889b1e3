"""`edgex.train` and `edgex.learn_vector` as a Python user calls them: defaults, plain strings, names of the zoo."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgex.cli import evaluate as evaluate_command
from edgex.cli import train as train_command
from edgex.cli import vector as vector_command
from edgex.errors import UsageError
from edgex.evaluation import workflow as evaluation
from edgex.files.model_file import load_card, load_model, save_model
from edgex.files.vector_file import load_vector
from edgex.models.evidence import Own
from edgex.shapley import labelling
from edgex.training import workflow
from edgex.training.fine_tuning import TrainOptions
from edgex.training.learning import LearnOptions
from edgex.vectors.bake import add_vector
from pictures import picture_folder

SMALL: dict[str, Any] = {"steps": 3, "batch_size": 8, "evidence_blocks": 3, "precision": "fp32", "device": "cpu"}


@pytest.fixture
def home(random_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a predictor "shapes" in its zoo, and pictures of three classes that it knows."""
    monkeypatch.setenv("EDGEX_HOME", str(tmp_path))
    model, card = random_model("timm/test_vit", classes=3)
    card = dataclasses.replace(card, name="shapes", classes=("blue disc", "green square", "red disc"))
    save_model(tmp_path / "zoo" / "shapes.safetensors", model, card)
    picture_folder(tmp_path / "pictures", {"": 5})
    return tmp_path


@pytest.mark.parametrize(
    ("command", "function", "fewest"),
    [
        (train_command.train, workflow.train, 12),
        (vector_command.train, workflow.learn_vector, 20),
        (vector_command.label, labelling.make_labels, 9),
        (evaluate_command.evaluate, evaluation.evaluate, 4),
    ],
)
def test_functions_have_the_defaults_of_the_command_line(
    command: Callable[..., Any], function: Callable[..., Any], fewest: int
) -> None:
    of_command, of_function = (inspect.signature(either).parameters for either in (command, function))
    shared = [name for name, given in of_command.items() if name in of_function and given.default is not given.empty]
    assert len(shared) >= fewest
    for name in set(shared) - {"fill", "baselines"}:
        assert of_command[name].default == of_function[name].default, name


@pytest.mark.parametrize(
    ("function", "options"), [(workflow.train, TrainOptions), (workflow.learn_vector, LearnOptions)]
)
def test_functions_have_the_defaults_of_the_options(function: Callable[..., Any], options: Callable[..., Any]) -> None:
    given = inspect.signature(function).parameters
    for field in dataclasses.fields(options()):
        if field.name in given and given[field.name].default is not None:
            assert given[field.name].default == field.default, field.name


def test_a_vector_is_learned_from_a_name_of_the_zoo(home: Path) -> None:
    said: list[str] = []
    labels = str(home / "labels.safetensors")
    labelling.make_labels("shapes", str(home / "pictures"), labels, pairs=3, players=25, precision="fp32", device="cpu")
    learned = workflow.learn_vector(
        "shapes", str(home / "a.safetensors"), labels=labels, **SMALL, model_out=str(home / "m.safetensors"),
        dtype="fp16", report=said.append,
    )  # fmt: skip
    assert (learned.path, learned.model_path) == (home / "a.safetensors", home / "m.safetensors")
    assert (learned.card.name, learned.card.source) == ("a", "pictures")
    assert any(line.startswith("labels: 15 crops of 15 pictures") for line in said)
    first, card = load_vector(learned.path)
    assert (card.evidence, card.provenance) == (learned.card.evidence, learned.card.provenance)
    again = workflow.learn_vector(
        home / "zoo" / "shapes.safetensors", home / "b.safetensors", data=home / "pictures", pairs=3, players=25,
        **SMALL, workers=1,
    )  # fmt: skip
    second = load_vector(again.path).deltas
    assert first
    assert all(torch.equal(first[name], second[name].half().float()) for name in first | second)
    assert load_model(home / "m.safetensors").card.alpha == 1.0
    assert (home / "b.safetensors.work").is_dir()


def test_training_takes_strings_and_depends_on_no_worker(home: Path) -> None:
    import timm

    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit", num_classes=2).state_dict(), home / "base.pt")
    said: list[str] = []
    weights = []
    for name, workers in (("none", 0), ("one", 1)):
        trained = workflow.train(
            str(home / "pictures"), "timm/test_vit", str(home / f"{name}.safetensors"),
            weights=str(home / "base.pt"), epochs=2, batch_size=4, precision="fp32", device="cpu", dtype="fp16",
            workers=workers, report=said.append,
        )  # fmt: skip
        assert load_card(trained.path)[0] == trained.card
        assert trained.card.name == name
        weights.append(torch.cat([t.flatten() for t in load_model(trained.path).network.backbone.tensors().values()]))
    assert torch.equal(*weights)
    beginnings = [str(home / "pictures"), "training timm/test_vit (160x160 px, token pooling)"]
    assert [line.partition(":")[0] for line in said] == [*beginnings, "epoch 1/2", "epoch 2/2"] * 2
    assert said[:4] == said[4:]


def test_minutes_ask_for_fresh_coalitions_and_steps_may_stand_for_them(home: Path) -> None:
    said: list[str] = []
    learned = workflow.learn_vector(
        "shapes", home / "a.safetensors", data=home / "pictures", minutes=0.01, batch_size=4, device="cpu",
        precision="fp32", report=said.append,
    )  # fmt: skip
    card = load_vector(learned.path).card
    assert card.evidence.readout
    assert card.evidence.blocks == 6, "all of them"
    step = card.provenance[-1]
    assert step["coalitions"] == "fresh"
    assert step["options"]["minutes"] == 0.01
    assert step["data"]["pictures"] == 15
    assert card.metrics["pairs"] == 4 * 4 * card.metrics["history"][-1]["step"]
    assert "learning from 15 pictures: 0.01 minutes, 4 crops a step" in said
    assert any(line.startswith("with explanations, step 0, 0 pairs") for line in said)
    assert not (home / "a.safetensors.work" / "a.safetensors.with.checkpoint").exists()
    again = workflow.learn_vector(
        "shapes", home / "b.safetensors", data=home / "pictures", coalitions="fresh", steps=2, pairs=2, batch_size=4,
        evidence_blocks=2, own_blocks=3, own_weight=0.25, device="cpu", precision="fp32",
    )  # fmt: skip
    assert again.card.metrics["pairs"] == 2 * 2 * 4
    assert again.card.evidence.blocks == 2
    assert again.card.evidence.own == Own(3, 0.25, 0.0), "the mixture is held"
    assert card.evidence.correction == again.card.evidence.correction == "base"


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"labels": "labels", "pairs": 3}, "pairs"),
        ({"coalitions": "new"}, "coalitions"),
        ({"coalitions": "fresh", "supervision": "masks"}, "coalitions"),
        ({"coalitions": "fresh", "learn": "weights"}, "coalitions"),
        ({"coalitions": "fresh", "players": 49}, "players"),
        ({"coalitions": "fresh", "explain_weight": 2.0}, "explain_weight"),
        ({"coalitions": "kept", "minutes": 1.0}, "minutes"),
        ({"learn": "weights", "minutes": 1.0}, "minutes"),
        ({"coalitions": "fresh", "minutes": 1.0}, "minutes"),
        ({"labels": "labels", "limit": 3}, "limit"),
        ({"supervision": "masks", "players": 49}, "players"),
        ({"blocks": 2}, "blocks"),
        ({"own_blocks": 2, "learn": "weights"}, "own_blocks"),
        ({"own_blocks": -1}, "own_blocks"),
        ({"own_weight": 1.0}, "own_weight"),
        ({"own_blocks": 2, "own_blur": 1.5}, "own_blur"),
        ({"learn_mixture": True}, "learn_mixture"),
        ({"class_loss": "labels"}, "class_loss"),
        ({"dtype": "bf16"}, "dtype"),
        ({"data": None}, "data"),
        ({"masks": "masks"}, "masks"),
        ({"learn": "head"}, "learn"),
        ({"model_out": "pictures"}, "model_out"),
        ({"workers": -1}, "workers"),
    ],
)
def test_arguments_that_mean_nothing_are_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], argument: str
) -> None:
    monkeypatch.chdir(home)
    given: dict[str, Any] = {"data": "pictures", **SMALL, **change}
    before = sorted(home.rglob("*"))
    with pytest.raises(UsageError) as raised:
        workflow.learn_vector("shapes", "v.safetensors", **given)
    assert raised.value.argument == argument
    assert "--" not in str(raised.value)
    assert sorted(home.rglob("*")) == before, "before anything long begins"


@pytest.mark.usefixtures("tiny_clips")
@pytest.mark.parametrize("coalitions", ["fresh", "kept"])
@pytest.mark.parametrize(("name", "seed"), [("timm/vit_base_patch16_siglip_224", 0), ("open_clip/tiny-coca", 1)])
def test_attention_pooling_learns_a_readout(
    home: Path, random_model: Callable[..., Any], name: str, seed: int, coalitions: str
) -> None:
    """Of seeds of which a dozen pictures teach something that holds for the few that are held out."""
    options = {"depth": 2, "embed_dim": 64, "num_heads": 2, "patch_size": 16} if name.startswith("timm") else None
    model, card = random_model(name, classes=3, image_size=64, options=options, seed=seed, head="linear")
    card = dataclasses.replace(card, classes=("blue disc", "green square", "red disc"))
    save_model(home / "pool.safetensors", model, card)
    how: dict[str, Any] = {"pairs": 3, "players": 16} if coalitions == "kept" else {"pairs": 4}
    learned = workflow.learn_vector(
        home / "pool.safetensors",
        home / "v.safetensors",
        data=home / "pictures",
        model_out=home / "m.safetensors",
        coalitions=coalitions,
        learning_rate=1e-3,
        **SMALL | how | {"steps": 20},
    )
    evidence = learned.card.evidence
    assert evidence.readout and (evidence.kind, evidence.blocks) == ("attention-pool", 0)
    history = learned.card.metrics["history"]
    assert min(row["held_out"] for row in history) < history[0]["held_out"]
    assert set(load_vector(learned.path).deltas) <= {n for n in model.backbone.tensors() if "attn_pool" in n}
    baked, _ = add_vector(home / "pool.safetensors", home / "v.safetensors", home / "b.safetensors", alpha=1.0)
    assert baked.evidence == evidence
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = load_model(home / "pool.safetensors").network(images)
        source, found = (load_model(home / file).network(images) for file in ("m.safetensors", "b.safetensors"))
    assert torch.equal(plain.logits, found.logits)
    # Stored in half precision, the vector; the source model, too.
    torch.testing.assert_close(found.heatmap, source.heatmap, atol=1e-2, rtol=1e-2)
    assert (found.heatmap - plain.heatmap).abs().max() > 1e-3


@pytest.mark.parametrize("learn", ["readout", "weights"])
def test_a_vector_is_learned_from_a_multi_label_model(home: Path, random_model: Callable[..., Any], learn: str) -> None:
    """Its heatmaps explain logits that are not centred, and its class scores are held by a divergence of sigmoids."""
    model, card = random_model("timm/test_vit", classes=3, activation="sigmoid", thresholds=(0.2, 0.5, 0.9))
    save_model(home / "several.safetensors", model, card)
    learned = workflow.learn_vector(
        home / "several.safetensors",
        home / "v.safetensors",
        data=home / "pictures",
        model_out=home / "m.safetensors",
        learn=learn,
        pairs=3,
        players=25,
        coalitions="kept",
        **SMALL,
    )
    network, made = load_model(home / "m.safetensors")
    assert learned.card.metrics["history"] and (made.head_activation, made.thresholds) == ("sigmoid", (0.2, 0.5, 0.9))
    assert (network.readout is not None) == (learn == "readout")
    images = torch.randn(3, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = network(images, torch.arange(3))
        folded = network.inference_copy().fold_classes()(images, torch.arange(3))
    own = found.logits.diagonal()
    torch.testing.assert_close(found.heatmap.sum(dim=(1, 2)) + found.base, own, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(folded.heatmap, found.heatmap, atol=1e-4, rtol=1e-3)
    if learn == "weights":
        with pytest.raises(UsageError, match="class loss 'labels' needs a class for each picture, found the multi-lab"):
            workflow.learn_vector(
                home / "several.safetensors",
                home / "w.safetensors",
                data=home / "pictures",
                learn=learn,
                pairs=3,
                players=25,
                class_loss="labels",
                coalitions="kept",
                **SMALL,
            )

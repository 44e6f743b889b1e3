"""The weights in a checkpoint, as wrappers and training scripts leave them: which are taken, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgex.errors import ArtefactError, UsageError
from edgex.importers.weight_sets import choose

PATH = Path("c.pth")
Tensors = dict[str, torch.Tensor]


def model(value: float = 1.0) -> Tensors:
    names = ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.1.attn.qkv.weight", "head.weight")
    return {name: torch.full((2, 2), value) for name in names}


def prefixed(prefix: str, tensors: Tensors | None = None) -> Tensors:
    return {prefix + name: tensor for name, tensor in (tensors or model()).items()}


def inside(part: str) -> Tensors:
    return {name.replace("blocks.0.", f"blocks.0.{part}."): tensor for name, tensor in model().items()}


OPTIMIZER = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]}
EMA = model(2.0)


@pytest.mark.parametrize(
    ("content", "key", "value"),
    [
        (model(), "", 1),
        ({"state_dict": model(), "optimizer": OPTIMIZER, "epoch": 3, "metric": 80.0}, "state_dict", 1),
        ({"model": model(), "opt": {"state": [], "hypers": []}}, "model", 1),
        ({"module": model(), "buffer_names": [], "ds_config": {}, "ds_version": "0.15"}, "module", 1),
        ({"net": model(), "rng_state": torch.zeros(8, dtype=torch.uint8)}, "net", 1),
        ({"weights": model()}, "weights", 1),
        ({"model_state": model()}, "model_state", 1),
        ({"my_own_name": model()}, "my_own_name", 1),
        ({"model": {"state_dict": model()}}, "model.state_dict", 1),
        ({"state_dict": model(), "state_dict_ema": EMA}, "state_dict_ema", 2),
        ({"model": model(), "model_ema": EMA}, "model_ema", 2),
        ({"model": model(), "ema": {"module": EMA, "updates": 4}}, "ema.module", 2),
        ({"ema": EMA, "updates": 4}, "ema", 2),
        ({"model": model(), "shadow_params": list(EMA.values())}, "model", 1),
        ({"state_dict": prefixed("model.") | prefixed("model_ema.", EMA)}, "state_dict.model_ema", 2),
        (prefixed("online_model.") | prefixed("ema_model.", EMA), "ema_model", 2),
        ({"state_dict": model(), "model": model(3.0)}, "state_dict", 1),
        ({"model": model(), "critic": {"net": {"w": torch.ones(2)}}}, "model", 1),
    ],
)
def test_wrapped_weights_are_found(content: Any, key: str, value: float) -> None:
    found = choose(content, PATH)
    assert found.key == key
    assert found.tensors.keys() == model().keys()
    assert all((tensor == value).all() for tensor in found.tensors.values())


@pytest.mark.parametrize(
    "tensors",
    [
        *(prefixed(prefix) for prefix in ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.")),
        *(prefixed(prefix) for prefix in ("model.", "ema.", "net.backbone.", "_fsdp_wrapped_module.", "0.")),
        *(inside(part) for part in ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")),
        prefixed("model._orig_mod.", inside("_checkpoint_wrapped_module")),
        {name.removeprefix("backbone.head"): t for name, t in prefixed("backbone.").items() if "head" not in name}
        | {"head.weight": torch.ones(2, 2)},
        prefixed("model.") | {"criterion.weight": torch.ones(2), "val_acc.tp": torch.ones(2, dtype=torch.int64)},
    ],
)
def test_prefixes_of_the_whole_tower_are_removed(tensors: Tensors) -> None:
    assert choose(tensors, PATH).tensors.keys() == model().keys()


@pytest.mark.parametrize(
    "names",
    [
        ("visual.conv1.weight", "visual.class_embedding", "ln_final.weight"),
        ("conv1.weight", "class_embedding", "proj"),
        ("vision_model.embeddings.patch_embedding.weight", "text_model.encoder.layers.0.mlp.fc1.weight"),
        ("embeddings.patch_embedding.weight", "embeddings.class_embedding"),
        ("conv1.weight", "layer1.0.conv1.weight", "layer2.0.conv1.weight", "fc.weight"),
        ("weight", "bias"),
    ],
)
def test_names_without_a_prefix_stay(names: tuple[str, ...]) -> None:
    tensors = {name: torch.ones(2) for name in names}
    assert choose(tensors, PATH).tensors.keys() == tensors.keys()
    assert choose(prefixed("module.", tensors), PATH).tensors.keys() == tensors.keys()


def test_two_tensors_never_become_one() -> None:
    tensors = prefixed("model.") | {"head.weight": torch.zeros(5, 2)}
    assert choose(tensors, PATH).tensors.keys() == {*model(), "model.head.weight"}


def test_a_choice_is_told_and_can_be_made() -> None:
    content = {"state_dict": model(), "state_dict_ema": EMA}
    found = choose(content, PATH)
    assert found.remark == ("weights taken from 'state_dict_ema'; the file also has 'state_dict', to be chosen by key")
    assert found.name(PATH) == "c:state_dict_ema"
    plain = choose(content, PATH, "state_dict")
    assert (plain.key, plain.others) == ("state_dict", ("state_dict_ema",))
    assert (plain.tensors["head.weight"] == 1).all()
    only = choose({"state_dict": model()}, PATH)
    assert only.remark is None and only.name(PATH) == "c"


def test_an_unknown_key_lists_what_there_is() -> None:
    content = {"state_dict": model(), "state_dict_ema": EMA}
    with pytest.raises(
        UsageError, match="no weights under 'state_dict_emma', it has 'state_dict_ema', 'state_dict'; did you mean"
    ) as caught:
        choose(content, PATH, "state_dict_emma")
    assert caught.value.argument == "weights_key"
    with pytest.raises(UsageError, match="no weights under 'ema', it has 'the whole file'"):
        choose(model(), PATH, "ema")


@pytest.mark.parametrize(
    "wrap", [lambda sets: sets, lambda sets: prefixed("a.", sets["a"]) | prefixed("b.", sets["b"])]
)
def test_sets_of_equal_rank_are_not_guessed_at(wrap: Callable[[Any], Any]) -> None:
    content = wrap({"a": model(), "b": EMA})
    with pytest.raises(UsageError, match=r"several sets of weights \('a', 'b'\): name one"):
        choose(content, PATH)
    assert (choose(content, PATH, "b").tensors["head.weight"] == 2).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (prefixed("base_model.model.", {"blocks.0.attn.qkv.lora_A.weight": torch.ones(8, 2)}), "merge_and_unload()"),
        (model() | {"blocks.0.attn.qkv.lora_A": torch.ones(8, 2)}, "loralib: model.eval()"),
        (prefixed("base_model.model.", inside("base_layer")), "an adapter that is not merged into its model"),
        (
            {"optimizer_state_dict": {"zero_stage": 2, "groups": [torch.zeros(9)]}, "ds_version": "0.15"},
            "zero_to_fp32.py",
        ),
        ({"module": {"w": torch.zeros(0), "v": torch.zeros(2)}, "ds_version": "0.15"}, "zero_to_fp32.py"),
        ({"decay": 0.9, "shadow_params": [torch.zeros(3)], "collected_params": []}, "ema.copy_to(model.parameters())"),
        ({"optimizer": OPTIMIZER}, "expected tensors by name, found dict under 'optimizer'"),
        (model() | {"epoch": 3}, "expected tensors only, found int under 'epoch'"),
        ([torch.zeros(3)], "expected a dictionary of named tensors, found list"),
    ],
)
def test_what_is_no_whole_model_is_named_with_the_way_out(content: Any, message: str) -> None:
    with pytest.raises(ArtefactError) as caught:
        choose(content, PATH)
    assert message in str(caught.value)
    assert str(caught.value).startswith("c.pth")


def test_a_dictionary_in_itself_ends() -> None:
    content: dict[str, Any] = {"model": model()}
    content["self"] = content
    with pytest.raises(UsageError, match="several sets"):
        choose(content, PATH)

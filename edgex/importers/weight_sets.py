"""Finds the weights in a checkpoint: what training scripts and wrappers put around them, and which are taken.

A checkpoint may hold several sets of weights, such as a model's and their moving average. Each has a key: the names of
the dictionaries that lead to it, joined by dots, or the prefix that all tensors of its image tower share.
Where a tensor belongs in a model is decided in `edgex.importers.state_dicts`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from edgex.errors import ArtefactError, UsageError
from edgex.files.torch_pickle import Placeholder
from edgex.importers.checkpoint_files import DEEPSPEED
from edgex.importers.transformers import registry
from edgex.runtime.printable import printable
from edgex.utils.text import nearest

# What holds an optimizer's state, a schedule's or a loop's, and no weights.
_NO_WEIGHTS = re.compile(
    r"optim|^opt$|sched|scaler|rng|callbacks|loops|hyper_?param|hparams|args|config", re.IGNORECASE
)
_AVERAGED = re.compile(r"(^|[._])(ema|swa|shadow|averaged?)([._]|$)", re.IGNORECASE)
_PLAIN = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights")
"""Keys of a model's own weights, in order of preference."""
_INNER = r"(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module|_forward_module)\."
_WRAPPERS = re.compile(rf"^(?:module\.|{_INNER})+|(?<=\.){_INNER}")
"""Names that torch.compile, FSDP and data parallelism put into the names of tensors, at any depth."""
_BASES = "|".join({re.escape(base) for family in registry.families().values() for base in family.names.bases})
_TOWER = re.compile(
    r"(?P<prefix>(?:.*?\.)??)"
    r"(?:(?:(?:visual\.)?trunk\.)?patch_embed\.proj\.weight|(?P<clip>visual\.)?conv1\.weight"
    rf"|(?:{_BASES})?embeddings\.patch_embeddings?(?:\.projection)?\.weight)"
)
"""The patch embedding of an image tower of timm, open_clip or transformers, and what stands before it."""
_OF_TRAINING = re.compile(
    r"(criterion|loss|loss_fn|loss_func|loss_function|(train|val|valid|test)_(acc|accuracy|loss|metrics?|f1|auroc|confmat))\."
)
"""Begins the names of tensors that a training module holds beside its model, such as the class weights of its loss."""
_ADAPTER = re.compile(r"(^|\.)(lora_|loha_|hada_|lokr_|ia3_|oft_|boft_|vera_|base_layer\.)")


@dataclasses.dataclass(frozen=True)
class WeightSet:
    """The weights that were taken of a file.

    key: of the set, "" where they are the file's whole content. others: the keys of the sets that were not taken.
    """

    key: str
    tensors: dict[str, Tensor]
    others: tuple[str, ...] = ()

    @property
    def remark(self) -> str | None:
        """A line for people on what was chosen among several, None where there was no choice."""
        if not self.others:
            return None
        others = ", ".join(f"'{key}'" for key in self.others)
        return f"weights taken from '{self.key}'; the file also has {others}, to be chosen by key"

    def name(self, path: Path) -> str:
        """What the weights are called, from their file's name: with the key where there was a choice."""
        return printable(f"{path.stem}:{self.key}" if self.others else path.stem)


def choose(content: Any, path: Path, key: str | None = None) -> WeightSet:
    """The set of weights under `key`, or by default the moving average, else the model's own.

    content: what `edgex.importers.checkpoint_files.read` returns; path names it in errors.
    Raises UsageError for an unknown key and for several sets none of which is the default, ArtefactError where there is
    no set, or one that is no whole model: an adapter, a shard of an optimizer's state, tensors without names.
    """
    sets = _sets(content)
    if not sets:
        raise ArtefactError(f"{path}{_no_weights(content)}")
    keys = sorted(sets, key=_rank)
    if key is not None and key not in sets:
        listed = ", ".join(f"'{known or 'the whole file'}'" for known in keys)
        raise UsageError(
            f"{path} has no weights under '{key}', it has {listed}{nearest(key, keys)}", argument="weights_key"
        )
    chosen = keys[0] if key is None else key
    if key is None and len(keys) > 1 and _rank(keys[1]) == _rank(chosen):
        listed = ", ".join(f"'{known}'" for known in keys)
        raise UsageError(f"{path} has several sets of weights ({listed}): name one", argument="weights_key")
    tensors = sets[chosen]
    _check_whole(tensors, content, path)
    return WeightSet(chosen, tensors, tuple(known for known in keys if known != chosen))


def _rank(key: str) -> int:
    """Place in the order of preference: averaged weights, the names of `_PLAIN`, anything else."""
    if _AVERAGED.search(key):
        return 0
    last = key.rpartition(".")[2]
    return 1 + (_PLAIN.index(last) if last in _PLAIN else len(_PLAIN))


def _sets(content: Any) -> dict[str, dict[str, Tensor]]:
    """Every set of weights by its key."""
    return {
        ".".join(part for part in (key, prefix) if part): tensors
        for key, mapping in _mappings(content).items()
        for prefix, tensors in _towers(mapping).items()
    }


def _mappings(content: Any, depth: int = 3) -> dict[str, dict[str, Tensor]]:
    """The innermost dictionaries that hold tensors of at least one dimension, by the names that lead to them."""
    if not isinstance(content, Mapping):
        return {}
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in content.items():
        if depth and isinstance(name, str) and not _NO_WEIGHTS.search(name):
            for key, tensors in _mappings(value, depth - 1).items():
                found[f"{name}.{key}" if key else name] = tensors
    if not found and any(isinstance(value, Tensor) and value.ndim for value in content.values()):
        found[""] = dict(content)
    return found


def _towers(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors without wrappers' names, one dictionary for each prefix that an image tower has in them."""
    tensors = _renamed(tensors, lambda name: _WRAPPERS.sub("", name))
    prefixes = {
        match["prefix"]
        for name in tensors
        if (match := _TOWER.fullmatch(name))
        # ResNets have layers of this name as well.
        and ("conv1." not in name or f"{match['prefix']}{match['clip'] or ''}class_embedding" in tensors)
    }
    if len(prefixes) < 2:
        prefix = next(iter(prefixes), "")
        if prefix:
            tensors = {name: tensor for name, tensor in tensors.items() if not _OF_TRAINING.match(name)}
        return {"": _without(prefix, tensors)}
    shared = {name: tensor for name, tensor in tensors.items() if not name.startswith(tuple(prefixes - {""}))}
    found = {}
    for prefix in sorted(prefixes - {""}):
        own = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        found[prefix.removesuffix(".")] = _without(prefix, shared | own)
    return found | ({"": shared} if "" in prefixes else {})


def _without(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return _renamed(tensors, lambda name: name.removeprefix(prefix))


def _renamed(tensors: Mapping[str, Tensor], rename: Callable[[str], str]) -> dict[str, Tensor]:
    """The tensors under other names; one whose new name is another's keeps its own, so that matching reports it."""
    return {
        new if (new := rename(str(name))) == name or new not in tensors else str(name): tensor
        for name, tensor in tensors.items()
    }


def _check_whole(tensors: Mapping[str, Any], content: Any, path: Path) -> None:
    """Raises ArtefactError for a set with something else than tensors, and for one that is no whole model."""
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise ArtefactError(f"{path}: expected tensors only, found {_kind(value)} under '{name}'")
    if adapter := next((name for name in tensors if _ADAPTER.search(name)), None):
        raise ArtefactError(
            f"{path} holds an adapter that is not merged into its model ('{adapter}'): merge it (PEFT: "
            "model.merge_and_unload(), loralib: model.eval()), then save the state_dict() of the merged model alone"
        )
    if _is_deepspeed(content) and any(not tensor.numel() for tensor in tensors.values()):
        raise ArtefactError(f"{path}{DEEPSPEED}")


def _is_deepspeed(content: Any) -> bool:
    return isinstance(content, Mapping) and ("ds_version" in content or "zero_stage" in content)


def _no_weights(content: Any) -> str:
    """What a checkpoint without a set of weights is, to follow its path."""
    if not isinstance(content, Mapping) or not content:
        return f": expected a dictionary of named tensors, found {_kind(content)}"
    if _is_deepspeed(content):
        return DEEPSPEED
    if "shadow_params" in content:
        return (
            " holds the moving average of torch_ema, whose tensors have no names: call ema.copy_to(model.parameters()) "
            "and save the model's state_dict()"
        )
    name, value = next(iter(content.items()))
    return f": expected tensors by name, found {_kind(value)} under '{name}'"


def _kind(value: Any) -> str:
    """What a value is, for a person."""
    return "settings" if isinstance(value, Placeholder) else type(value).__name__

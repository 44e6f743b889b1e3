"""Other libraries' weights, and the files that a training run resumes from."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from fuzzing import formats
from fuzzing.campaign import picked
from fuzzing.mutations import damaged
from fuzzing.parser import Case, Parser
from fuzzing.parsers.artefacts import CLASSES, write_model, write_pictures

_LARGEST = 1e6
"""No trained weight is as large; one flipped bit of an exponent is."""


def torch_archives() -> Parser:
    """`edgex import` of a mutated torch.save archive of several kinds.

    Wrongly accepted: weights other than a base's where a member's checksum is not right any more; weights that are no
    numbers; a program that was run.
    """
    return Parser("torch-zip", _archive_bases, _mutate_archive, _import, _wrong_archive)


def torch_legacy() -> Parser:
    """The same for torch's file format before 1.6, which has no checksums. Wrongly accepted: weights beyond reason."""
    return Parser("torch-legacy", _legacy_bases, _mutate_plain, _import, _wrong_weights)


def foreign_safetensors() -> Parser:
    """The same for safetensors of other programs, which record no digest."""
    return Parser("import-safetensors", _safetensors_bases, _mutate_safetensors, _import, _wrong_weights)


def zero_shot() -> Parser:
    """The same for a CLIP model whose text tower makes the class weights."""
    return Parser("zero-shot", _clip_bases, _mutate_safetensors, _import_clip, _wrong_weights)


def label_cache() -> Parser:
    """Labelling over a mutated label cache: what is damaged is made anew.

    Wrongly accepted: labels that differ from those that are computed.
    """
    return Parser("label-cache", _cache_bases, _mutate_cache, _label, _wrong_labels, names_file=False)


def training_checkpoint() -> Parser:
    """Resuming from a mutated training checkpoint: it is refused or begun anew.

    Wrongly accepted: a state that differs from the one that was saved, or from a new one.
    """
    return Parser("training-checkpoint", _checkpoint_bases, _mutate_archive, _restore, _wrong_state)


def _saved(content: Any, legacy: bool = False) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def _archive_bases(folder: Path) -> Sequence[Case]:
    import torch

    from fuzzing import tiny

    state = tiny.state_dict()
    small = torch.nn.Parameter(torch.zeros(2))
    trained = {"state_dict": state, "epoch": 3, "optimizer": torch.optim.AdamW([small]).state_dict()}
    return [Case(_saved(content), ".pt") for content in (state, {"module." + k: v for k, v in state.items()}, trained)]


def _legacy_bases(folder: Path) -> Sequence[Case]:
    from fuzzing import tiny

    return [Case(_saved(tiny.state_dict(), legacy=True), ".pth")]


def _safetensors_bases(folder: Path) -> Sequence[Case]:
    from safetensors.torch import save

    from fuzzing import tiny

    return [Case(save(tiny.state_dict()), ".safetensors")]


def _clip_bases(folder: Path) -> Sequence[Case]:
    from safetensors.torch import save

    from fuzzing import tiny

    state = tiny.clip_state_dict(folder)
    return [Case(save({name: tensor.contiguous() for name, tensor in state.items()}), ".safetensors")]


def _mutate_archive(random: Random, bases: Sequence[Case]) -> Case:
    base = picked(random, bases)
    if random.random() < 0.5:
        return Case(formats.changed_zip(random, base.data), base.suffix)
    return Case(damaged(random, base.data, [other.data for other in bases]), base.suffix)


def _mutate_plain(random: Random, bases: Sequence[Case]) -> Case:
    base = picked(random, bases)
    if random.random() < 0.1:
        return Case(random.choice(formats.PICKLES), base.suffix)
    return Case(damaged(random, base.data, [other.data for other in bases]), base.suffix)


def _mutate_safetensors(random: Random, bases: Sequence[Case]) -> Case:
    base = picked(random, bases)
    if random.random() < 0.6:
        return Case(formats.changed_safetensors(random, base.data), base.suffix)
    return Case(damaged(random, base.data, [other.data for other in bases]), base.suffix)


def _import(path: Path, arch: str = "timm/fuzz_vit") -> Any:
    from edgex.files.model_file import load_model
    from edgex.importers import workflow

    out = path.with_name("imported.safetensors")
    workflow.import_weights(arch, CLASSES, path, out=out, force=True)
    network, _ = load_model(out)
    return {**network.backbone.tensors(), **network.head.state_dict()}


def _import_clip(path: Path) -> Any:
    return _import(path, "open_clip/fuzz-clip")


def _wrong_weights(meaning: Any, case: Case) -> str | None:
    if Path("FUZZ_WAS_HERE").exists():
        Path("FUZZ_WAS_HERE").unlink()
        return "a program in the file was run"
    for name, tensor in meaning.items():
        if tensor.is_floating_point() and tensor.numel() and not tensor.abs().max() <= _LARGEST:
            return f"weights beyond reason in {name}"
    return None


def _wrong_archive(meaning: Any, case: Case) -> str | None:
    if reason := _wrong_weights(meaning, case):
        return reason
    if formats.zip_is_whole(case.data) or _same(meaning, _expected_weights()):
        return None
    return "other weights under a wrong checksum"


_weights: dict[str, Any] = {}


def _expected_weights() -> dict[str, Any]:
    if not _weights:
        from fuzzing import tiny

        _weights.update({name.removeprefix("head."): tensor for name, tensor in tiny.state_dict().items()})
    return _weights


def _same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    import torch

    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


# Caches and checkpoints of edgex's own.


class _Labelling:
    """What labels are made of, once a process."""

    network: Any = None
    card: Any = None
    paths: Sequence[Path] = ()
    expected: Any = None


def _cache_bases(folder: Path) -> Sequence[Case]:
    from edgex.files.model_file import load_model

    _Labelling.network, _Labelling.card = load_model(write_model(folder))
    _Labelling.paths = sorted(write_pictures(folder / "pictures").rglob("*.png"))
    _Labelling.expected = _labels(folder / "cache")
    (file,) = (folder / "cache").glob("*.pt")
    return [Case(file.read_bytes(), ".pt")]


def _labels(cache: Path) -> Any:
    import torch

    from edgex.shapley.labels import LabelOptions, label
    from edgex.utils.processes import Processes

    return label(
        _Labelling.network,
        _Labelling.paths,
        _Labelling.card.preprocessing,
        LabelOptions(pairs=2, side=2, classes=2, features=True),
        cache,
        group=Processes(0, 1, torch.device("cpu")),
        precision="fp32",
        model_digest="m",
    )


def _mutate_cache(random: Random, bases: Sequence[Case]) -> Case:
    if random.random() < 0.15:
        return Case(_changed_content(random, bases[0].data), ".pt")
    return _mutate_archive(random, bases)


def _changed_content(random: Random, data: bytes) -> bytes:
    """A whole cache file of edgex's with one entry of another type, shape or value."""
    import torch

    content = torch.load(io.BytesIO(data), weights_only=True)
    key = random.choice(sorted(content))
    value = content[key]
    choices: list[Any] = [None, 1, "text", [], torch.zeros(0), torch.zeros(1, 1)]
    if isinstance(value, torch.Tensor):
        choices += [value[:0], value.double(), value + 1 if value.dtype != torch.bool else ~value, value[..., :1]]
    content[key] = random.choice(choices)
    return _saved(content)


def _label(path: Path) -> Any:
    cache = path.with_name("cache")
    (file,) = cache.glob("*.pt")
    file.write_bytes(path.read_bytes())
    return _labels(cache)


def _wrong_labels(meaning: Any, case: Case) -> str | None:
    import torch

    for name in ("classes", "coalitions", "differences", "features"):
        found, expected = getattr(meaning, name), getattr(_Labelling.expected, name)
        if found.dtype != expected.dtype or not torch.equal(found, expected):
            return f"other {name} than those that are computed"
    return None


def _parts() -> dict[str, Any]:
    import torch

    torch.manual_seed(0)
    module = torch.nn.Linear(5, 3)
    return {"model": module, "optimizer": torch.optim.AdamW(module.parameters(), lr=1e-3)}


_IDENTITY = {"data": "ab" * 8, "options": {"epochs": 3, "seed": 0}}


def _trained() -> dict[str, Any]:
    import torch

    parts = _parts()
    torch.manual_seed(1)
    for _ in range(2):
        parts["model"](torch.randn(4, 5)).square().sum().backward()
        parts["optimizer"].step()
    return parts


def _checkpoint_bases(folder: Path) -> Sequence[Case]:
    from edgex.training.resume import TrainingCheckpoint

    path = folder / "base.pt"
    TrainingCheckpoint(path, _IDENTITY).save(_trained(), 2)
    return [Case(path.read_bytes(), ".pt")]


def _restore(path: Path) -> Any:
    from edgex.training.resume import TrainingCheckpoint

    parts = _parts()
    position = TrainingCheckpoint(path, _IDENTITY).restore(parts)
    return position, parts


def _wrong_state(meaning: Any, case: Case) -> str | None:
    import torch

    position, parts = meaning
    if position not in (0, 2):
        return f"resumes at {position}"
    expected = _trained() if position else _parts()
    if not _same(parts["model"].state_dict(), expected["model"].state_dict()):
        return "other weights than were saved"
    found, saved = (each["optimizer"].state_dict()["state"] for each in (parts, expected))
    if found.keys() != saved.keys():
        return "another optimizer's state than was saved"
    for key in saved:
        if any(not torch.equal(found[key][name], saved[key][name]) for name in saved[key]):
            return "another optimizer's state than was saved"
    return None

"""Weights from other libraries become backbones and models of edgex.

Which tensor is what is decided in `edgex.importers.state_dicts`; files are read in `edgex.importers.weights`, hub names
in `edgex.files.hub`, weights that timm and open_clip publish under a tag are found in `edgex.importers.pretrained`, and
CLIP's text tower lies in `edgex.importers.zero_shot`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgex.errors import ArtefactError, MismatchError, UsageError
from edgex.files import model_file
from edgex.files.model_file import BaseWeights, ModelCard
from edgex.files.tensor_file import TensorFile
from edgex.importers import pretrained
from edgex.importers.state_dicts import StateDict, sort_tensors
from edgex.importers.weights import read_state_dict
from edgex.importers.zero_shot import DEFAULT_TEMPLATES, zero_shot_head
from edgex.models.backbones import Architecture, Backbone, build
from edgex.models.self_explaining import Evidence, Head, SelfExplainingViT
from edgex.runtime.preprocessing import Preprocessing
from edgex.utils import provenance


def load_base(architecture: Architecture, weights: Path) -> tuple[Backbone, BaseWeights]:
    """A backbone to start training from, its head dropped, and what it is called.

    weights: a state dict of timm, open_clip or transformers (see `edgex.importers.state_dicts`), or a model artefact,
        which passes on the base that it started from itself: a vector fits all descendants of its base.

    Raises ArtefactError for a damaged file or NaN, MismatchError for tensors that do not fit.
    """
    if _is_artefact(weights):
        model, card = model_file.load_model(weights)
        if card.architecture != architecture:
            raise MismatchError(f"{weights}: expected weights of {architecture}, found a model of {card.architecture}")
        return model.backbone.requires_grad_(True), card.base
    state = sort_tensors(read_state_dict(weights), architecture, source=str(weights))
    backbone = build(architecture)
    model_file.load_backbone(backbone, state.image, source=str(weights))
    _check_configuration(weights, state, backbone)
    return backbone, BaseWeights(weights.stem, model_file.fingerprint(backbone.tensors()))


def import_model(
    weights: Path,
    architecture: Architecture,
    classes: Sequence[str],
    *,
    name: str,
    templates: Sequence[str] | None = None,
    head: Path | None = None,
    base_weights: Path | None = None,
    preprocessing: Preprocessing | None = None,
    resize: int | None = None,
) -> tuple[SelfExplainingViT, ModelCard]:
    """A frozen model and its card from one file of another library's weights; save it with `save_model`.

    weights: safetensors, or torch.save of plain tensors: a timm VisionTransformer, an open_clip CLIP model,
        or transformers' CLIPModel or CLIPVisionModel with or without projection. transformers' tensors do not
        tell which activation they were trained with: OpenAI's weights need quick GELU
        (open_clip/<model>-quickgelu or timm/vit_*_clip_quickgelu_*), others mostly plain GELU. A config.json
        beside them is compared.
    classes: names in the order of the head's rows, or in any order for a zero-shot head.
    templates: prompts of the zero-shot head; defaults to "a photo of a {}.".
    head: file of a linear head to use instead: weight [C, D] and perhaps bias [C], D the backbone's
        output_width.
    base_weights: the file that fine-tuned weights started from, in any form that `load_base` takes; defaults
        to `weights` themselves. Vectors fit models of the same base.
    preprocessing: how pictures become inputs, where it differs from the architecture's own.
    resize: the same for its short side alone, in pixels.

    Raises MismatchError naming a missing, extra or misshapen tensor, ArtefactError for damaged weights or
    NaN, UsageError where classes, templates and head contradict each other or the file.
    """
    if _is_artefact(weights):
        raise UsageError(f"{weights} is an edgex artefact already: use it as it is")
    state = sort_tensors(read_state_dict(weights), architecture, source=str(weights))
    return _assemble(
        state,
        architecture,
        classes,
        name=name,
        source=str(weights),
        inputs=[_input("weights", weights)],
        base_name=weights.stem,
        configuration=weights,
        templates=templates,
        head=head,
        base_weights=base_weights,
        preprocessing=preprocessing,
        resize=resize,
    )


def import_pretrained(
    architecture: Architecture,
    classes: Sequence[str],
    *,
    name: str,
    tag: str | None = None,
    templates: Sequence[str] | None = None,
    head: Path | None = None,
    preprocessing: Preprocessing | None = None,
    resize: int | None = None,
) -> tuple[SelfExplainingViT, ModelCard]:
    """As `import_model`, for weights that the architecture's library publishes under `tag`."""
    found = pretrained.find(architecture, tag)
    return _assemble(
        sort_tensors(found.tensors, architecture, source=found.name),
        architecture,
        classes,
        name=name,
        source=found.name,
        inputs=[{**_input("weights", found.path), "name": found.name}],
        base_name=found.name,
        templates=templates,
        head=head,
        preprocessing=preprocessing or found.preprocessing,
        resize=resize,
    )


def pretrained_backbone(architecture: Architecture, tag: str | None = None) -> tuple[Backbone, BaseWeights]:
    """As `load_base`, for weights that the architecture's library publishes under `tag`."""
    found = pretrained.find(architecture, tag)
    state = sort_tensors(found.tensors, architecture, source=found.name)
    backbone = build(architecture)
    model_file.load_backbone(backbone, state.image, source=found.name)
    backbone.preprocessing = found.preprocessing or backbone.preprocessing
    return backbone, BaseWeights(found.name, model_file.fingerprint(backbone.tensors()))


def _assemble(
    state: StateDict,
    architecture: Architecture,
    classes: Sequence[str],
    *,
    name: str,
    source: str,
    inputs: list[dict[str, Any]],
    configuration: Path | None = None,
    base_name: str,
    templates: Sequence[str] | None = None,
    head: Path | None = None,
    base_weights: Path | None = None,
    preprocessing: Preprocessing | None = None,
    resize: int | None = None,
) -> tuple[SelfExplainingViT, ModelCard]:
    """As `import_model`, from sorted tensors; inputs say in the provenance which files they came from."""
    _check_classes(classes)
    backbone = build(architecture)
    if preprocessing is not None and preprocessing.image_size != architecture.image_size:
        raise UsageError(
            f"expected preprocessing to {architecture.image_size} px for {architecture.name}, found "
            f"{preprocessing.image_size}"
        )
    preprocessing = preprocessing or backbone.preprocessing
    if resize is not None:
        preprocessing = dataclasses.replace(preprocessing, resize=resize)
    model_file.load_backbone(backbone, state.image, source=source)
    if configuration is not None:
        _check_configuration(configuration, state, backbone)
    made = _head(state, architecture, classes, templates, head, source)
    _check_head(made, backbone, classes, str(head or source))
    if base_weights is not None:
        base = load_base(architecture, base_weights)[1]
    else:
        base = BaseWeights(base_name, model_file.fingerprint(backbone.tensors()))
    if head is not None:
        inputs = [*inputs, _input("head", head)]
    model = SelfExplainingViT(backbone, made, Evidence.default(backbone)).freeze()
    card = ModelCard(
        name=name,
        architecture=architecture,
        classes=tuple(classes),
        preprocessing=preprocessing,
        head_kind=made.kind,
        head_scale=made.scale,
        evidence=model.evidence,
        base=base,
        provenance=(_step(inputs, made, templates),),
    )
    return model, card


def parse_classes(text: str) -> tuple[str, ...]:
    """Class names from the command line: "cat,dog", or "@file": one name a line, or a JSON list of names."""
    if not text.startswith("@"):
        return tuple(name.strip() for name in text.split(","))
    path = Path(text[1:])
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ArtefactError(f"cannot read class names from {path} ({reason}): check the path") from error
    if path.suffix != ".json":
        return tuple(line.strip() for line in content.splitlines() if line.strip())
    try:
        names = json.loads(content)
    except ValueError as error:
        raise UsageError(f"{path} is not JSON ({error}): expected a list of class names") from error
    if not isinstance(names, list) or not all(isinstance(entry, str) for entry in names):
        raise UsageError(f"expected a JSON list of class names in {path}, found another structure")
    return tuple(names)


def _input(role: str, path: Path) -> dict[str, Any]:
    """A file as a provenance step names it: role, name and sha256."""
    with path.open("rb") as file:
        return {"role": role, "name": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _is_artefact(weights: Path) -> bool:
    if weights.suffix != ".safetensors":
        return False
    with TensorFile(weights) as file:
        return bool(file.metadata)


def _check_classes(classes: Sequence[str]) -> None:
    if not classes or not all(name.strip() for name in classes):
        raise UsageError("expected at least one class, every one with a name")
    repeated = {name for name in classes if classes.count(name) > 1}
    if repeated:
        raise UsageError(f"class '{min(repeated)}' is named twice: give each class once")


def _head(
    state: StateDict,
    architecture: Architecture,
    classes: Sequence[str],
    templates: Sequence[str] | None,
    file: Path | None,
    source: str,
) -> Head:
    """From the separate file, else the weights' own linear head, else zero-shot through their text tower."""
    linear = _read_head(file) if file is not None else state.head
    if templates is not None and linear:
        raise UsageError(
            f"prompt templates make a zero-shot head, but {file or source} has a linear one: leave one out"
        )
    if linear:
        model_file.check_tensors(linear, source=str(file or source), prefix=model_file.HEAD_PREFIX)
        if "weight" not in linear:
            raise MismatchError(f"{source}: missing tensor 'head.weight' (the class weights)")
        return Head(linear["weight"], linear.get("bias"), kind="linear")
    if not state.text or architecture.family != "open_clip":
        raise UsageError(
            f"{source} has neither a class head nor a text tower for {architecture.name}: give --head FILE"
        )
    return zero_shot_head(architecture, state.text, classes, templates or DEFAULT_TEMPLATES, source=source)


def _read_head(path: Path) -> dict[str, Tensor]:
    """A head file's tensors as "weight" and "bias", whatever prefix they have in common."""
    tensors = read_state_dict(path)
    heads = {name.rpartition(".")[2]: tensor for name, tensor in tensors.items()}
    prefixes = {name.rpartition(".")[0] for name in tensors}
    if not {"weight"} <= heads.keys() <= {"weight", "bias"} or len(prefixes) > 1 or heads["weight"].ndim != 2:
        found = ", ".join(f"'{name}' {list(tensor.shape)}" for name, tensor in list(tensors.items())[:3])
        raise MismatchError(f"{path}: expected a weight [C, D] and perhaps a bias [C] of a linear head, found {found}")
    return heads


def _check_head(head: Head, backbone: Backbone, classes: Sequence[str], source: str) -> None:
    expected = (len(classes), backbone.output_width)
    if tuple(head.weight.shape) != expected:
        raise MismatchError(
            f"{source}: the head's weight has shape {list(head.weight.shape)}, expected {list(expected)} for "
            f"{len(classes)} classes on {backbone.architecture.name}"
        )
    if head.bias is not None and tuple(head.bias.shape) != expected[:1]:
        raise MismatchError(f"{source}: the head's bias has shape {list(head.bias.shape)}, expected {[len(classes)]}")


def _check_configuration(weights: Path, state: StateDict, backbone: Backbone) -> None:
    """Compares what tensors cannot tell with transformers' config.json, if one lies beside the weights."""
    path = weights.with_name("config.json")
    if state.library != "transformers" or not path.is_file():
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        vision: Mapping[str, Any] = content.get("vision_config", content)
    except (ValueError, AttributeError, OSError):
        return  # some other program's file
    own = {
        "hidden_act": "quick_gelu" if _is_quick(backbone.module) else "gelu",
        "num_attention_heads": backbone.blocks[0].heads,
        "layer_norm_eps": backbone.norm.eps,
    }
    for key, value in own.items():
        if key in vision and vision[key] != value:
            raise MismatchError(
                f"{path} says {key} {vision[key]}, {backbone.architecture.name} has {value}: choose the "
                "architecture that the weights were trained with (quick_gelu: names with 'quickgelu')"
            )


def _is_quick(module: nn.Module) -> bool:
    return any(type(part).__name__ == "QuickGELU" for part in module.modules())


def _step(inputs: list[dict[str, Any]], head: Head, templates: Sequence[str] | None) -> dict[str, Any]:
    prompts: dict[str, Any] = {"templates": list(templates or DEFAULT_TEMPLATES)} if head.kind == "cosine" else {}
    return provenance.step("import", inputs=inputs, head=head.kind, **prompts)

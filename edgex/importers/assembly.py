"""Models from other libraries' weights: backbone, class head and card put together.

Which tensor is what is decided in `edgex.importers.state_dicts`; files are read in `edgex.importers.weights`, hub names
in `edgex.files.hub`, weights that timm and open_clip publish under a tag are found in `edgex.importers.pretrained`.
Heads are in `edgex.importers.class_heads`, backbones alone, to start training from, in `edgex.importers.base_weights`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgex.errors import MismatchError, UsageError
from edgex.files import hub, model_file
from edgex.files.model_file import BaseWeights, ModelCard
from edgex.importers import checkpoint_files
from edgex.importers.base_weights import check_configuration, is_artefact, load_base
from edgex.importers.class_heads import check_head, class_head, class_names
from edgex.importers.pretrained import Pretrained
from edgex.importers.settings import ARGUMENT, Settings, preprocess
from edgex.importers.state_dicts import StateDict, sort_tensors
from edgex.importers.weight_sets import WeightSet
from edgex.importers.weights import read_weights
from edgex.importers.zero_shot import DEFAULT_TEMPLATES
from edgex.models.backbones import Architecture, build
from edgex.models.backbones.positions import fit_positions
from edgex.models.self_explaining import Evidence, Head, SelfExplainingViT
from edgex.runtime.preprocessing import Preprocessing
from edgex.utils import provenance


def import_model(
    weights: str | os.PathLike[str],
    architecture: Architecture,
    classes: Sequence[str],
    *,
    name: str,
    templates: Sequence[str] | None = None,
    head: str | os.PathLike[str] | None = None,
    base_weights: str | os.PathLike[str] | None = None,
    preprocessing: Preprocessing | None = None,
    settings: Settings | None = None,
    weights_key: str | None = None,
    multi_label: bool = False,
    report: Callable[[str], None] | None = None,
) -> tuple[SelfExplainingViT, ModelCard]:
    """A frozen model and its card from a checkpoint of another library; save it with `save_model`.

    weights: safetensors, a file of torch.save, a TorchScript archive, an index of shards, or a folder with one of them:
        a timm VisionTransformer, an open_clip CLIP model,
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
    settings: where the architecture, the classes and the preprocessing come from, for the provenance.
    weights_key: which weights to take where the file holds several sets, such as "state_dict" beside "state_dict_ema".
        Defaults to the moving average (EMA), else to the model's own. The provenance records the choice.
    multi_label: whether a picture may have several classes, or none, each with a sigmoid of its own. A head of one
        output and one class has a sigmoid anyway; with two classes, it becomes the softmax that is the same.
    report: called with a line for people on a choice among several sets.

    Raises MismatchError naming a missing, extra or misshapen tensor, ArtefactError for damaged weights or
    NaN, UsageError where classes, templates and head contradict each other or the file.
    """
    weights, head = checkpoint_files.find(weights), None if head is None else Path(head)
    if is_artefact(weights):
        raise UsageError(f"{weights} is an edgex artefact already: use it as it is")
    found = read_weights(weights, key=weights_key)
    if report is not None and found.remark is not None:
        report(found.remark)
    return _assemble(
        sort_tensors(found.tensors, architecture, source=str(weights)),
        architecture,
        classes,
        name=name,
        source=str(weights),
        inputs=[_input("weights", file, found) for file in checkpoint_files.parts(weights)],
        base_name=found.name(weights),
        configuration=weights,
        templates=templates,
        head=head,
        base_weights=base_weights,
        preprocessing=preprocessing,
        settings=settings,
        multi_label=multi_label,
        resample=settings is not None and settings.taken_from["image_size"] == ARGUMENT,
    )


def import_pretrained(
    found: Pretrained,
    architecture: Architecture,
    classes: Sequence[str],
    *,
    name: str,
    templates: Sequence[str] | None = None,
    head: str | os.PathLike[str] | None = None,
    preprocessing: Preprocessing | None = None,
    settings: Settings | None = None,
    multi_label: bool = False,
) -> tuple[SelfExplainingViT, ModelCard]:
    """As `import_model`, for weights that `edgex.importers.pretrained.find` found for the architecture."""
    head = None if head is None else Path(head)
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
        preprocessing=preprocessing or preprocess(found.stated, {}, build(architecture).preprocessing)[0],
        settings=settings,
        multi_label=multi_label,
        resample=True,
    )


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
    base_weights: str | os.PathLike[str] | None = None,
    preprocessing: Preprocessing | None = None,
    settings: Settings | None = None,
    multi_label: bool = False,
    resample: bool = False,
) -> tuple[SelfExplainingViT, ModelCard]:
    """As `import_model`, from sorted tensors; inputs say in the provenance which files they came from."""
    classes = class_names(classes, twins=True)
    backbone = build(architecture)
    if preprocessing is not None and preprocessing.image_size != architecture.image_size:
        raise UsageError(
            f"expected preprocessing to {architecture.image_size} px for {architecture.name}, found "
            f"{preprocessing.image_size}"
        )
    preprocessing = preprocessing or backbone.preprocessing
    image = fit_positions(state.image, backbone, source=source) if resample else state.image
    try:
        model_file.load_backbone(backbone, image, source=source)
    except MismatchError as error:
        if (file := _stating("arch", settings)) is None:
            raise
        raise MismatchError(f"{error}: the weights are of another model than {file} describes") from None
    if configuration is not None:
        check_configuration(configuration, state, backbone)
    made = class_head(state, architecture, classes, templates, head, source, multi_label=multi_label)
    check_head(made, backbone, classes, str(head or source), names_of=_stating("classes", settings))
    if base_weights is not None:
        base = load_base(architecture, base_weights, resample=resample)[1]
    else:
        base = BaseWeights(base_name, model_file.fingerprint(state.image))
    if head is not None:
        inputs = [*inputs, _input("head", head)]
    if settings is not None:
        inputs = [*inputs, *(_input("configuration", file) for file in settings.files)]
    model = SelfExplainingViT(backbone, made, Evidence.default(backbone)).freeze()
    card = ModelCard(
        name=name,
        architecture=architecture,
        classes=classes,
        preprocessing=preprocessing,
        head_kind=made.kind,
        head_scale=made.scale,
        head_activation=made.activation.name,
        evidence=model.evidence,
        base=base,
        provenance=(_step(inputs, made, templates, settings),),
    )
    return model, card


def _stating(setting: str, settings: Settings | None) -> str | None:
    """The name of the file that a setting was taken from, None where it was taken from elsewhere."""
    found = None if settings is None else settings.taken_from.get(setting)
    return found if settings is not None and found in {file.name for file in settings.files} else None


def _input(role: str, path: Path, weights: WeightSet | None = None) -> dict[str, Any]:
    """A file as a provenance step names it: role, name, sha256, from the hub its name there, and the weights' key."""
    source = hub.origin(path)
    hub_name = {"hub": str(source)} if source else {}
    key = {"key": weights.key} if weights is not None and weights.key else {}
    return {"role": role, "name": path.name, "sha256": provenance.sha256_of(path), **hub_name, **key}


def _step(
    inputs: list[dict[str, Any]], head: Head, templates: Sequence[str] | None, settings: Settings | None
) -> dict[str, Any]:
    more: dict[str, Any] = {"templates": list(templates or DEFAULT_TEMPLATES)} if head.kind == "cosine" else {}
    if settings is not None:
        more["taken_from"] = settings.taken_from
    return provenance.step("import", inputs=inputs, head=head.kind, activation=head.activation.name, **more)

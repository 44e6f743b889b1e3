"""A zero-shot head: class names and prompt templates through CLIP's text tower become class weights.

Source: Radford et al., 2021, arXiv 2103.00020, section 3.1.4 (prompt ensembles in embedding space).
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgex.errors import MismatchError, MissingExtraError, UnsupportedError, UsageError
from edgex.files.hub import fetch
from edgex.files.model_file import check_tensors, match_shapes
from edgex.models.backbones import Architecture
from edgex.models.self_explaining import Head

DEFAULT_TEMPLATES = ("a photo of a {}.",)


def zero_shot_head(
    architecture: Architecture,
    text: Mapping[str, Tensor],
    classes: Sequence[str],
    templates: Sequence[str],
    *,
    activation: str = "softmax",
    source: str,
) -> Head:
    """A cosine head [C, output_width] with CLIP's own scale, exp(logit_scale), and SigLIP's bias, of all classes alike.

    architecture: "open_clip/<model>", whose text tower reads the prompts. text: its tensors under open_clip's
    names, with "logit_scale". templates: prompts with "{}" where the class name goes, as it is written; the
    embeddings of all templates are averaged. activation: "softmax", or "sigmoid" as SigLIP is trained (Zhai et al.,
    2023, arXiv 2303.15343, section 3.2). source: names the weights in errors.

    Raises MismatchError for a missing, extra or misshapen tensor, UnsupportedError for a text tower that
    open_clip does not hold itself.
    """
    from open_clip import build_zero_shot_classifier

    for template in templates:
        _check_template(template)
    if not templates:
        raise UsageError("expected at least one prompt template like 'a photo of a {}.', found none")
    if "logit_scale" not in text:
        raise MismatchError(f"{source}: missing tensor 'logit_scale' that a zero-shot head needs")
    check_tensors(text, source=source)
    tower = _TextTower(architecture)
    tower.load({name: tensor for name, tensor in text.items() if name not in ("logit_scale", "logit_bias")}, source)
    weight = build_zero_shot_classifier(tower, _tokenizer(architecture), list(classes), list(templates))
    bias = text["logit_bias"].expand(len(classes)).clone() if "logit_bias" in text else None
    return Head(
        weight.T.contiguous(), bias, kind="cosine", scale=text["logit_scale"].exp().item(), activation=activation
    )


class _TextTower(nn.Module):
    """open_clip's text tower alone, with the one method that `build_zero_shot_classifier` calls."""

    def __init__(self, architecture: Architecture) -> None:
        from open_clip import get_model_config
        from open_clip.model import CLIPTextCfg, _build_text_tower

        super().__init__()
        config = get_model_config(architecture.model)
        text = CLIPTextCfg(**{**config["text_cfg"], "output_tokens": False})
        if text.hf_model_name:
            raise UnsupportedError(
                f"{architecture.name} reads text with {text.hf_model_name}, which open_clip does not hold: "
                "give the class weights as a file",
                argument="head",
            )
        self.name = architecture.name
        with torch.device("meta"):
            tower = _build_text_tower(config["embed_dim"], text, quick_gelu=config.get("quick_gelu", False))
        self.tower = tower.eval()

    def load(self, tensors: Mapping[str, Tensor], source: str) -> None:
        expected = {name: tuple(tensor.shape) for name, tensor in self.tower.state_dict().items()}
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        match_shapes(found, expected, source=source, target=f"the text tower of {self.name}")
        self.tower.load_state_dict(dict(tensors), strict=True, assign=True)
        if self.tower.attn_mask is not None:  # a constant that no file holds
            self.tower.attn_mask = self.tower.build_causal_mask()

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        features = self.tower(text)
        return F.normalize(features, dim=-1) if normalize else features


def _tokenizer(architecture: Architecture) -> Callable[[list[str]], Tensor]:
    from open_clip import get_model_config, get_tokenizer

    from_hub = get_model_config(architecture.model)["text_cfg"].get("hf_tokenizer_name")
    if not from_hub:
        return get_tokenizer(architecture.model)
    # open_clip asks the hub for it; without this the client would retry for minutes where there is none.
    fetch(from_hub, ["tokenizer.json", "vocab.txt", "tokenizer_config.json"])
    try:
        return get_tokenizer(architecture.model)
    except ImportError as error:
        raise MissingExtraError(
            f"the text tower of {architecture.name} needs the tokenizer {from_hub}: pip install transformers"
        ) from error


def _check_template(template: str) -> None:
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError:
        fields = []
    if fields != [""]:
        raise UsageError(f"expected a prompt template with one '{{}}' for the class name, found '{template}'")

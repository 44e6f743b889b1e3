"""Published weights: tags, the hub's cache as the libraries fill it, and no network."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from edgex.errors import ArtefactError, MismatchError, UsageError
from edgex.files import model_file
from edgex.importers.assembly import import_pretrained
from edgex.importers.base_weights import pretrained_backbone
from edgex.importers.pretrained import find
from edgex.importers.workflow import import_weights
from edgex.models.backbones import Architecture, architecture

pytestmark = pytest.mark.usefixtures("tiny_clips")


COMMIT = "0123456789abcdef0123456789abcdef01234567"
B32 = Architecture("open_clip/ViT-B-32", (224, 224), "token")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty hub cache, and no hub: port 9 (discard) is closed."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setenv("EDGEX_HOME", str(tmp_path / "home"))
    return tmp_path / "cache"


def cached(cache: Path, repository: str, file: str, tensors: dict[str, torch.Tensor]) -> None:
    """Puts a file into the cache as the hub's client does."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, snapshot / file)


def test_timm_offline_is_one_line(cache: Path) -> None:
    with pytest.raises(ArtefactError) as caught:
        pretrained_backbone(architecture("timm/deit_tiny_patch16_224"))
    message = str(caught.value)
    assert message.startswith("cannot get hf://timm/deit_tiny_patch16_224.fb_in1k/model.safetensors")
    assert "give its path instead" in message
    assert "\n" not in message


def test_open_clip_offline_is_one_line(cache: Path) -> None:
    with pytest.raises(ArtefactError, match=r"cannot get hf://laion/CLIP-ViT-B-32-laion2B-s34B-b79K/open_clip_model"):
        pretrained_backbone(B32, "laion2b_s34b_b79k")


def test_timm_weights_from_the_cache(cache: Path) -> None:
    import timm

    torch.manual_seed(0)
    module: Any = timm.create_model("test_vit", num_classes=1000).eval()
    cached(cache, "timm/test_vit.r160_in1k", "model.safetensors", module.state_dict())
    arch = architecture("timm/test_vit")
    backbone, base = pretrained_backbone(arch)
    assert base.name == "timm/test_vit.r160_in1k"
    assert base.fingerprint == model_file.fingerprint(backbone.tensors())
    assert torch.equal(backbone.tensors()["pos_embed"], module.pos_embed)

    classes = [str(index) for index in range(1000)]
    model, card = import_pretrained(find(arch, "r160_in1k"), arch, classes, name="mine")
    images = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        assert (model(images).logits - module(images)).abs().max() < 1e-5
    assert card.base == base
    assert card.provenance[0]["inputs"][0]["name"] == "timm/test_vit.r160_in1k"

    larger, _ = pretrained_backbone(architecture("timm/test_vit", image_size=192))
    assert larger.tensors()["pos_embed"].shape[1] == 12 * 12 + 1, "timm resizes positions itself"


def test_the_preprocessing_is_that_of_the_tag(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import timm
    from timm.models import _registry

    module: Any = timm.create_model("test_vit", num_classes=1000)
    cached(cache, "timm/test_vit.other", "model.safetensors", module.state_dict())
    own = timm.get_pretrained_cfg("test_vit")
    assert own is not None
    other = dataclasses.replace(own, tag="other", hf_hub_id="timm/test_vit.other", crop_pct=0.5, mean=(0.1, 0.2, 0.3))
    monkeypatch.setitem(_registry._model_pretrained_cfgs, "test_vit.other", other)
    monkeypatch.setitem(_registry._model_with_tags, "test_vit", ["test_vit.r160_in1k", "test_vit.other"])
    monkeypatch.setattr(_registry, "_model_has_pretrained", {*_registry._model_has_pretrained, "test_vit.other"})

    names = tmp_path / "names.txt"
    names.write_text("\n".join(str(index) for index in range(1000)))
    said: list[str] = []
    card = import_weights(
        "timm/test_vit",
        f"@{names}",
        pretrained="other",
        std=(0.4, 0.4, 0.4),
        out=tmp_path / "m.safetensors",
        report=said.append,
    ).card
    assert (card.preprocessing.resize, card.preprocessing.mean) == (320, (0.1, 0.2, 0.3))
    assert said == [
        "taken from timm/test_vit.other: mean, interpolation, resize",
        "warning: std 0.4 0.4 0.4 as given replaces 0.5 0.5 0.5 of timm/test_vit.other",
    ]
    assert pretrained_backbone(card.architecture, "other")[0].preprocessing.resize == 320


def test_timm_weights_that_do_not_fit(cache: Path) -> None:
    cached(cache, "timm/test_vit.r160_in1k", "model.safetensors", {"cls_token": torch.zeros(1, 1, 64)})
    with pytest.raises(MismatchError) as caught:
        pretrained_backbone(architecture("timm/test_vit"))
    assert "does not fit timm/test_vit" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_open_clip_weights_from_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip
    from open_clip import pretrained

    published: dict[str, Any] = {
        "hf_hub": "org/tiny/",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "interpolation": "bilinear",
    }
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny-token", {"some_tag": published})
    module = open_clip.create_model("tiny-token").eval()
    cached(cache, "org/tiny", "open_clip_model.safetensors", module.state_dict())
    arch = architecture("open_clip/tiny-token")
    backbone, base = pretrained_backbone(arch, "some_tag")
    assert base.name == "open_clip/tiny-token:some_tag"
    assert torch.equal(backbone.tensors()["proj"], module.visual.proj)
    assert backbone.preprocessing.interpolation == "bilinear"
    assert backbone.preprocessing.mean == (0.5, 0.5, 0.5)

    model, card = import_pretrained(find(arch, "some_tag"), arch, ["cat", "dog"], name="mine")
    images = torch.randn(1, 3, 64, 64)
    tokens = open_clip.get_tokenizer("tiny-token")(["a photo of a cat.", "a photo of a dog."])
    with torch.no_grad():
        assert (model(images).logits - module.get_logits(images, tokens)[0]).abs().max() < 1e-5
    assert card.preprocessing == backbone.preprocessing
    json.dumps(card.to_metadata())


def test_unknown_and_missing_tags(cache: Path) -> None:
    with pytest.raises(UsageError, match=r"no pretrained weights 'laion2b_s34b' for ViT-B-32; did you mean laion2b_"):
        pretrained_backbone(B32, "laion2b_s34b")
    with pytest.raises(UsageError, match=r"ViT-B-32 needs the tag .*known tags: openai"):
        pretrained_backbone(B32)
    with pytest.raises(UsageError, match=r"timm publishes no weights .*known tags: fb_in1k"):
        pretrained_backbone(architecture("timm/deit_tiny_patch16_224"), "nothing")
    with pytest.raises(UsageError, match=r"timm publishes no weights .*it has no weights"):
        pretrained_backbone(architecture("timm/vit_small_patch16_18x2_224"))


def test_quick_gelu_is_part_of_the_architecture(cache: Path) -> None:
    with pytest.raises(UsageError, match="'openai' were trained with quick GELU: use open_clip/ViT-B-32-quickgelu"):
        pretrained_backbone(B32, "openai")
    quick = Architecture("open_clip/ViT-B-32-quickgelu", (224, 224), "token")
    with pytest.raises(ArtefactError, match="the hub was not reached"):
        pretrained_backbone(quick, "openai")

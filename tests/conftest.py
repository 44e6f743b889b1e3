"""Fixtures shared by the tests of all packages: models with random weights, pictures, the shared folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ../shared with real weights and pictures; tests that need it skip where it is absent."""
    if not (SHARED / "weights").is_dir():
        pytest.skip("no ../shared beside the repository: real weights and pictures are not at hand")
    return SHARED


@pytest.fixture(scope="session")
def tiny_clips(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Adds small CLIP models ("open_clip/tiny-token" and others) to open_clip's own list."""
    from tiny_clips import add_tiny_clips

    add_tiny_clips(tmp_path_factory.mktemp("open_clip"))


@pytest.fixture(scope="session")
def random_model() -> Callable[..., Any]:
    """`random_model(name, classes=5, seed=0, image_size=None, pooling=None, ...)`: see `_random_model`."""
    return _random_model


@pytest.fixture(scope="session")
def unchanged() -> Callable[[Any], AbstractContextManager[None]]:
    """`with unchanged(network): ...` fails where the block changes anything of a network: see `_unchanged`."""
    return _unchanged


@pytest.fixture(scope="session")
def natural_pictures() -> Callable[..., np.ndarray]:
    """`natural_pictures(count, image_size, seed=0)` -> uint8 [count, H, W, 3]: see `_natural_pictures`."""
    return _natural_pictures


@pytest.fixture(scope="session")
def deit_tiny(shared: Path) -> Callable[[], Any]:
    """Makes (SelfExplainingViT, ModelCard) of DeiT-tiny with its real ImageNet weights."""
    return lambda: _deit_tiny(shared)


@pytest.fixture(scope="session")
def real_pictures(shared: Path) -> Callable[..., np.ndarray]:
    """`real_pictures(count, image_size)` -> uint8 [count, H, W, 3]: photographs spread over ImageNet's classes."""

    def load(count: int, image_size: tuple[int, int] = (224, 224)) -> np.ndarray:
        from PIL import Image, ImageOps

        files = sorted((shared / "data" / "imagenet").glob("*.jpg"))
        chosen = files[:: max(1, len(files) // count)][:count]
        size = (image_size[1], image_size[0])
        return np.stack([np.asarray(ImageOps.fit(Image.open(f).convert("RGB"), size)) for f in chosen])

    return load


def _random_model(
    name: str,
    classes: int = 5,
    seed: int = 0,
    *,
    image_size: int | tuple[int, int] | None = None,
    pooling: str | None = None,
    options: dict[str, Any] | None = None,
    head: str | None = None,
    alpha: float | None = None,
    activation: str = "softmax",
    thresholds: tuple[float, ...] | None = None,
) -> Any:
    """A frozen (SelfExplainingViT, ModelCard) whose attention and evidence are not degenerate.

    Matrices have variance 1 / fan-in and query, key and value 1.5 times that, so attention is neither uniform
    nor one-hot; norms, biases, positions and layer scales are all away from their neutral values.
    head: "linear" or "cosine"; defaults to cosine for open_clip, linear for timm.
    """
    import torch

    from edgex.files import model_file
    from edgex.files.model_file import BaseWeights, ModelCard
    from edgex.models.backbones import architecture, build
    from edgex.models.self_explaining import Evidence

    arch = architecture(name, image_size=image_size, pooling=pooling, options=options)
    backbone = build(arch)
    generator = torch.Generator().manual_seed(seed)
    weights = {key: _random_tensor(key, t, generator) for key, t in backbone.tensors().items()}
    kind = head or ("cosine" if arch.family == "open_clip" else "linear")
    rows = torch.randn(classes, backbone.output_width, generator=generator)
    if kind == "cosine":
        tensors = {"weight": torch.nn.functional.normalize(rows, dim=-1)}
    else:
        bias = torch.randn(classes, generator=generator)
        tensors = {"weight": 3 * rows / math.sqrt(backbone.output_width), "bias": bias}
    card = ModelCard(
        name="random",
        architecture=arch,
        classes=tuple(f"class {index}" for index in range(classes)),
        preprocessing=backbone.preprocessing,
        head_kind=kind,  # type: ignore[arg-type]
        head_scale=100.0 if kind == "cosine" else 1.0,
        evidence=Evidence.default(backbone),
        base=BaseWeights("random", model_file.fingerprint(weights)),
        alpha=alpha,
        provenance=({"step": "random weights", "seed": seed},),
        head_activation=activation,
        thresholds=thresholds,
    )
    model = model_file.assemble_model(card, weights, tensors, source="random weights")
    return model.freeze(), card


@contextmanager
def _unchanged(network: Any) -> Iterator[None]:
    """Compares all of a network before and after: modes, requires_grad, identity, type, place and values of tensors."""

    def state() -> tuple[dict[str, Any], dict[str, Any]]:
        tensors = dict(network.named_parameters()) | dict(network.named_buffers(remove_duplicate=False))
        described = {name: (id(t), t.requires_grad, t.dtype, t.device, t.data_ptr()) for name, t in tensors.items()}
        described |= {f"mode of {name}": module.training for name, module in network.named_modules()}
        return described, {name: tensor.detach().clone() for name, tensor in tensors.items()}

    described, values = state()
    assert len(values) > 1
    yield
    described_after, values_after = state()
    assert described_after == described
    assert all(bool((values_after[name] == tensor).all()) for name, tensor in values.items())


def _random_tensor(name: str, like: Any, generator: Any) -> Any:
    import torch

    noise = torch.randn(like.shape, generator=generator)
    if any(part in name for part in ("pos_embed", "positional_embedding", "token", "class_embedding", "latent")):
        return 0.5 * noise
    if like.ndim == 1:
        return 1 + 0.1 * noise if name.endswith(("weight", "gamma", "gamma_1", "gamma_2")) else 0.05 * noise
    fan_in = like.shape[0] if name == "proj" else math.prod(like.shape[1:])
    gain = 1.5 if any(part in name for part in ("qkv", "in_proj", "attn_pool")) else 1.0
    return gain * noise / math.sqrt(fan_in)


def _natural_pictures(count: int, image_size: tuple[int, int] = (224, 224), seed: int = 0) -> np.ndarray:
    """Pictures with the 1/f spectrum of photographs (Field, 1987), correlated channels and full contrast."""
    height, width = image_size
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    amplitude = 1 / np.maximum(frequency, 1 / max(height, width))
    noise = rng.standard_normal((count, 3, height, width))
    waves = np.fft.ifft2(np.fft.fft2(noise) * amplitude).real
    mixed = waves + 1.5 * waves.mean(axis=1, keepdims=True)
    low, high = mixed.min(axis=(1, 2, 3), keepdims=True), mixed.max(axis=(1, 2, 3), keepdims=True)
    return np.round(255 * (mixed - low) / (high - low)).astype(np.uint8).transpose(0, 2, 3, 1)


def _deit_tiny(shared: Path) -> Any:
    from edgex.files import model_file
    from edgex.files.model_file import BaseWeights, ModelCard
    from edgex.importers.weights import read_state_dict
    from edgex.models.backbones import architecture, build
    from edgex.models.self_explaining import Evidence

    tensors = read_state_dict(shared / "weights" / "deit_tiny_patch16_224.safetensors")
    head = {key.removeprefix("head."): tensors.pop(key) for key in ("head.weight", "head.bias")}
    arch = architecture("timm/deit_tiny_patch16_224")
    backbone = build(arch)
    names = [f.stem.partition("_")[2] for f in sorted((shared / "data" / "imagenet").glob("*.jpg"))]
    card = ModelCard(
        name="deit-tiny",
        architecture=arch,
        classes=tuple(names) if len(names) == 1000 else tuple(str(index) for index in range(1000)),
        preprocessing=backbone.preprocessing,
        head_kind="linear",
        head_scale=1.0,
        evidence=Evidence.default(backbone),
        base=BaseWeights("deit-tiny", model_file.fingerprint(tensors)),
    )
    return model_file.assemble_model(card, tensors, head, source="deit-tiny").freeze(), card

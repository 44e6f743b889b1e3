"""Where and how precisely torch computes: device names, mixed precision, seeds."""

from __future__ import annotations

import contextlib
import platform
import random
from typing import Any

import numpy as np
import torch

from edgex.errors import UsageError


def device_of(name: str) -> torch.device:
    """ "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:<n>" -> torch device; UsageError otherwise."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"expected device auto, cpu or cuda[:<n>], found '{name}'", argument="device") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(
            f"expected device auto, cpu or cuda[:<n>], found '{name}', which edgex does not compute on",
            argument="device",
        )
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device '{name}' was asked for, but torch sees no GPU here: use 'cpu'", argument="device")
    return device


def mixed_precision(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Autocast for "fp32" (none), "bf16", or "auto": bf16 where the hardware multiplies it fast."""
    use_bf16 = precision_of(device, precision) == "bf16"
    return torch.autocast(device.type, dtype=torch.bfloat16) if use_bf16 else contextlib.nullcontext()


def precision_of(device: torch.device, precision: str) -> str:
    """What "auto" stands for on a device: "fp32" or "bf16"; UsageError for another precision."""
    if precision not in ("auto", "fp32", "bf16"):
        raise UsageError(f"expected precision auto, fp32 or bf16, found '{precision}'", argument="precision")
    if precision == "auto":
        return "bf16" if _fast_bf16(device) else "fp32"
    return precision


def _fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def machine() -> str:
    """The machine that long work ran on, for its record: processor architecture and number of torch's threads."""
    return f"{platform.machine()}, {torch.get_num_threads()} threads"


def seed_everything(seed: int) -> None:
    """Seeds Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)

"""Tensors under transformers' names, renamed by a table to those of timm or open_clip.

A table maps modules, such as "layernorm" to "norm", and single tensors, such as "embeddings.cls_token" to "cls_token".
A tensor that the table does not know keeps its name, so that strict matching reports it as extra.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from edgex.models.backbones import Architecture

Packed = tuple[tuple[str, tuple[str, ...]], ...]


@dataclasses.dataclass(frozen=True)
class Names:
    """The names of one family's tensors.

    marks: tensors one of which every model of the family has, and no family that is asked after it.
    parts: modules and tensors outside the blocks -> their new names.
    block: pattern of what stands before a block's tensors; its only group is the block's number.
    block_parts: modules and tensors of a block -> their new names.
    packed: tensors of a block under their new names, each with those that it is made of, one below the other; several
        entries of one name are the names of several versions of transformers.
    bases: what the family's classifiers call their backbone, with a dot. A bare backbone's tensors lack this prefix.
    unread: pattern of tensors that serve pre-training alone, and of buffers that hold no weights.
    blocks: what stands before a block's number under the new names.
    finish: tensors under their new names and the architecture -> those that the architecture needs.
    """

    marks: tuple[str, ...]
    parts: Mapping[str, str]
    block: str
    block_parts: Mapping[str, str]
    packed: Packed
    bases: tuple[str, ...]
    unread: str = r"embeddings\.mask_token"
    blocks: str = "blocks."
    finish: Callable[[dict[str, Tensor], Architecture], dict[str, Tensor]] | None = None

    def fit(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether tensors are of this family."""
        return any(f"{base}{mark}" in tensors for mark in self.marks for base in ("", *self.bases))

    def renamed(self, tensors: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
        """The tensors under their new names; of a packed one that lacks a part, the parts stay as they are."""
        found = {self._bare(name): (name, tensor) for name, tensor in tensors.items()}
        result: dict[str, Tensor] = {}
        for bare, (name, tensor) in found.items():
            if re.fullmatch(self.unread, bare) or not tensor.numel():
                continue
            match = re.match(self.block, bare)
            if match is None:
                result[_replaced(bare, self.parts) or name] = tensor
                continue
            start, inner, block = match[0], bare[match.end() :], f"{self.blocks}{match[1]}."
            whole, parts = next((entry for entry in self.packed if inner in entry[1]), ("", ()))
            if not whole:
                new = _replaced(inner, self.block_parts)
                result[f"{block}{new}" if new else name] = tensor
            elif any(start + part not in found for part in parts):
                result[name] = tensor
            elif f"{block}{whole}" not in result:
                result[f"{block}{whole}"] = torch.cat([found[start + part][1] for part in parts])
        return self.finish(result, architecture) if self.finish else result

    def _bare(self, name: str) -> str:
        """A tensor's name inside its backbone."""
        base = next((base for base in self.bases if name.startswith(base)), "")
        return name.removeprefix(base)


def packed_modules(*parts: str, into: str = "attn.qkv.{}", kinds: tuple[str, ...] = ("weight", "bias")) -> Packed:
    """`Names.packed` of modules, by default of those for query, key and value."""
    return tuple((into.format(kind), tuple(f"{part}.{kind}" for part in parts)) for kind in kinds)


def _replaced(name: str, table: Mapping[str, str]) -> str | None:
    """A tensor's name by a table of tensors and modules; None for one that it does not know."""
    if name in table:
        return table[name]
    module, _, kind = name.rpartition(".")
    return f"{table[module]}.{kind}" if module in table else None

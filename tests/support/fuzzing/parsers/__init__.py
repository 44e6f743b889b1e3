"""Every parser of edgex, one function each; a module for each kind of file."""

from __future__ import annotations

from collections.abc import Callable

from fuzzing.parser import Parser
from fuzzing.parsers import artefacts, checkpoints, command_line, fused, network, pictures, streams, texts

FILES: dict[str, Callable[[], Parser]] = {
    "onnx": fused.onnx_files,
    "engine": fused.engine_files,
    "model": artefacts.models,
    "vector": artefacts.vectors,
    "labels": artefacts.labels,
    "torch-zip": checkpoints.torch_archives,
    "torch-legacy": checkpoints.torch_legacy,
    "import-safetensors": checkpoints.foreign_safetensors,
    "zero-shot": checkpoints.zero_shot,
    "label-cache": checkpoints.label_cache,
    "training-checkpoint": checkpoints.training_checkpoint,
}
"""Files with weights, or with what they are learned from."""
INPUTS: dict[str, Callable[[], Parser]] = {
    "classes": texts.class_files,
    "names": texts.names_files,
    "boxes": texts.boxes_files,
    "configuration": texts.configurations,
    "bake-record": texts.bake_records,
    "picture": pictures.pictures,
    "pipe": streams.pipes,
    "video": streams.videos,
    "url": network.urls,
    "request": network.requests,
    "option": command_line.options,
}
"""Everything else that comes from outside."""
PARSERS = FILES | INPUTS

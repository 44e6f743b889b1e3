"""The plain classifier of a model, exported as its users would without edgex: what a heatmap's cost is held against.

The library's own forward pass and the head through `torch.onnx.export` with its defaults, image float32
[N, 3, H, W] (normalised outside) -> logits float32 [N, C]; onnxruntime's own tools make int8 and fp16 of it.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgex.models.self_explaining import SelfExplainingViT


class PlainClassifier(nn.Module):
    """The library's own image tower and a model's head, sharing the model's weights.

    forward: normalised pictures float32 [N, 3, H, W] -> logits float32 [N, C].
    """

    def __init__(self, model: SelfExplainingViT) -> None:
        super().__init__()
        self.tower, self.head = model.backbone.module, model.head

        self.pooling, self.prefix = model.backbone.pooling, model.backbone.prefix_tokens

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        return self.head(self.features(image))

    def features(self, image: Tensor) -> Tensor:
        """What the head reads, [N, D']; two poolings side by side are not the library's own, but their tokens are."""
        if "+" not in self.pooling:
            return self.tower(image)
        tower: Any = self.tower
        tokens = tower.forward_features(image)
        second = tokens[:, 1] if self.pooling == "token+distillation" else tokens[:, self.prefix :].mean(dim=1)
        return torch.cat([tokens[:, 0], second], dim=1)


def export_plain(model: SelfExplainingViT, image_size: tuple[int, int], path: Path) -> None:
    """Writes the plain classifier as ONNX fp32 with a free batch size; image_size: (height, width)."""
    # Two pictures: an example batch of one would be taken for a constant.
    image = torch.zeros(2, 3, *image_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own use of deprecated parts of torch
        torch.onnx.export(
            PlainClassifier(model.inference_copy("cpu")).eval(),
            (image,),
            path,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )


def plain_int8(fp32: Path, path: Path) -> None:
    """Writes a plain classifier's file in int8: onnxruntime's dynamic quantisation with its defaults."""
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    # The quantiser refuses the exporter's shape notes where it transposes the head.
    bare = onnx.load(fp32)
    del bare.graph.value_info[:]
    quantize_dynamic(bare, path)


def plain_fp16(fp32: Path, path: Path) -> None:
    """Writes a plain classifier's file in fp16: onnxruntime's converter with its defaults, inputs kept in fp32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(fp32), keep_io_types=True), path)

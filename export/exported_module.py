"""The module that is exported: pixels in, class scores and one heatmap out.

Everything that concerns graphs for devices and not the model itself lies here: uint8 NHWC input, mean and standard
deviation folded into the patch embedding, named outputs. The maths of the heatmap is `edgex.models.self_explaining`'s.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgex.models.self_explaining import Explained, SelfExplainingViT
from edgex.runtime.preprocessing import Preprocessing

INPUT_NAMES = ("image", "explain_class")
OUTPUT_NAMES = ("logits", "heatmap", "base")


class ExportedModule(nn.Module):
    """A `SelfExplainingViT` behind the fused model contract; holds the network's weights and leaves it as it is.

    forward: image uint8 [N, H, W, 3] RGB, explain_class int64 [N] (-1 for the predicted class) -> logits
    float32 [N, C], heatmap float32 [N, gh, gw], base float32 [N], all in logit units. A class that there is not has a
    heatmap and a base of NaN, so that no runtime reads outside of a tensor for it.
    """

    def __init__(self, model: SelfExplainingViT, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model.inference_copy("cpu").fold_classes()
        weight, bias = folded_projection(model.backbone.patch_projection, preprocessing)
        self.register_buffer("patch_weight", weight)
        self.register_buffer("patch_bias", bias)

    patch_weight: Tensor
    patch_bias: Tensor

    def forward(self, image: Tensor, explain_class: Tensor) -> Explained:
        """See the class."""
        backbone = self.model.backbone
        rows, columns = backbone.grid
        size = backbone.patch_projection.kernel_size
        # Each patch becomes one row of a matrix product, which every runtime multiplies (and quantises) like any
        # other layer. Cast first: TensorRT takes uint8 at the network's input only.
        cut = image.float().unflatten(1, (rows, size[0])).unflatten(3, (columns, size[1]))
        patches = cut.transpose(2, 3).flatten(3).flatten(1, 2)
        embedded = F.linear(patches, self.patch_weight, self.patch_bias)
        return self.model.explain(backbone.assemble(embedded), explain_class)


def folded_projection(projection: nn.Conv2d, preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
    """Patch projection over raw pixels: weight [D, p * p * 3] for NHWC patches of [0, 255], bias [D].

    conv((x / 255 - mean) / std) = sum w / (255 std) * x + (bias - sum w * mean / std), exact because the patches
    do not overlap and are not padded. Folded in float64: the bias is a difference of large numbers.
    """
    weight = projection.weight.detach().double()
    mean = torch.tensor(preprocessing.mean, dtype=torch.float64)[None, :, None, None]
    std = torch.tensor(preprocessing.std, dtype=torch.float64)[None, :, None, None]
    bias = -(weight * mean / std).sum(dim=(1, 2, 3))
    if projection.bias is not None:
        bias = bias + projection.bias.detach().double()
    folded = (weight / (255 * std)).permute(0, 2, 3, 1).flatten(1)
    return folded.float().contiguous(), bias.float()

"""Models of one input channel, as models of three: the conversion to grey is a part of the patch projection.

A device hands every model uint8 RGB. Grey is Pillow's mode "L", which timm's data loaders convert to: the luma of ITU-R
BT.601 in 16 bits. Pillow rounds it to a whole number, which a linear map does not: the two differ by at most half a
level of 255.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)
"""Shares of R, G and B; they add up to 1, so that mean and standard deviation of grey hold for each of them."""


class GreyscaleProjection(nn.Conv2d):
    """A patch projection of three channels that reads the weights of one of a single channel; it has none itself."""

    source: nn.Conv2d

    def __init__(self, source: nn.Conv2d) -> None:
        nn.Module.__init__(self)
        # A plain attribute: registered here as well, its weights would have two names.
        self.__dict__["source"] = source
        self.in_channels, self.out_channels = 3, source.out_channels
        self.kernel_size, self.stride = source.kernel_size, source.stride

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """[D, 3, p, p]: the weights for grey, shared out by `LUMA`."""
        own = self.source.weight
        return own * own.new_tensor(LUMA)[:, None, None]

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        """[D], if any."""
        return self.source.bias

    def forward(self, image: Tensor) -> Tensor:
        """Pictures [N, 3, H, W] -> patches [N, D, rows, columns]."""
        return F.conv2d(image, self.weight, self.bias, self.stride)


def for_colour(projection: nn.Conv2d) -> nn.Conv2d:
    """The projection as it is, or for pictures of three channels where it reads one."""
    return GreyscaleProjection(projection) if projection.in_channels == 1 else projection

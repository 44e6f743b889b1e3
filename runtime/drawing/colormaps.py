"""Colour maps of evidence: from no evidence to the strongest.

Negative evidence never looks like positive evidence: the sequential maps show evidence for the class only; the signed
map shows both, for in yellow to red, against in blue.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from edgex.runtime.errors import UsageError

# 17 equidistant colours each, interpolated linearly in between (within 7/255 of the full tables).
# turbo: Anton Mikhailov, Google, Apache-2.0. inferno, plasma and viridis: Nathaniel Smith and Stefan van der Walt for
# matplotlib, CC0. for / against: of this project.
_COLOURS = {
    "plasma": "0d0887 310597 4c02a1 6600a7 7e03a8 9511a1 aa2395 bc3587 cc4778 "
    "da5a6a e66c5c f0804e f89540 fdac33 fdc527 f8df25 f0f921",
    "inferno": "000004 0b0724 210c4a 3c0965 57106d 70196e 89226a a32b61 bb3755 "
    "d14644 e35932 f1711e f98d0a fcab0f f9ca32 f2e865 fcffa4",
    "viridis": "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26818e 21908c "
    "1f9f88 28ae80 3ebc74 5dc963 82d34c abdc32 d5e21a fde725",
    "turbo": "30123b 4040a1 466be3 4293ff 29bbec 18dcc3 31f299 6bfd64 a3fd3c "
    "cced34 edd03a fdae35 fb8022 ec520f d23105 ac1701 7a0403",
    "for": "ffe45c ffa62b f2612c d7263d 8f0b2e",
    "against": "a8d8ff 5aa9f0 2f74d0 2148a5 14246b",
}
COLORMAPS = ("plasma", "inferno", "viridis", "turbo", "signed")
"""The first one is the default: perceptually uniform, and told apart by people who confuse red and green."""


def check_colormap(name: str) -> None:
    """Raises UsageError for a map that there is not."""
    if name not in COLORMAPS:
        raise UsageError(f"expected one of {', '.join(COLORMAPS)}, found {name!r}", argument="colormap")


@lru_cache(maxsize=16)
def colours(name: str) -> np.ndarray:
    """float64 [256, 3] RGB in 0..255, from no evidence to the strongest.

    name: a sequential map, or one half of the signed map, "for" or "against".
    """
    knots = np.array([list(bytes.fromhex(colour)) for colour in _COLOURS[name].split()], np.float64)
    position = np.linspace(0, len(knots) - 1, 256)
    return np.stack([np.interp(position, np.arange(len(knots)), knots[:, channel]) for channel in range(3)], axis=1)

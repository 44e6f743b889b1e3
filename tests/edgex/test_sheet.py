from __future__ import annotations

import numpy as np

from edgex.sheet import sheet


def test_pictures_stand_side_by_side_at_one_height() -> None:
    red = np.zeros((100, 50, 3), np.uint8)
    red[..., 0] = 255
    blue = np.zeros((40, 40, 3), np.uint8)
    blue[..., 2] = 255
    pixels = np.asarray(sheet([("a", [red, blue]), ("b", [blue]), ("c", [red])], height=80, columns=2))
    assert (pixels == (255, 0, 0)).all(axis=-1).sum() == 2 * 80 * 40
    assert (pixels == (0, 0, 255)).all(axis=-1).sum() == 2 * 80 * 80
    top = np.flatnonzero((pixels == (255, 0, 0)).all(axis=-1).any(axis=0))[0]
    assert (pixels[60, top] == (255, 0, 0)).all()

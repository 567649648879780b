"""How well maps of importance find the target's box.

Maps are (N, H, W) and not negative; boxes are (N, 4): x0, y0, x1, y1 in px, x1 and y1 exclusive. An
empty map, 0 everywhere, points nowhere: it counts as a miss in all three measures, so that leaving
images without an answer flatters no network.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Interpolation repeats a maximum at the image's edge, and rounding tells the repetitions apart.
TIED = 1e-5


def energy_in_box(maps: NDArray[np.floating], boxes: NDArray[np.integer]) -> Floats:
    """Return the share of each map's sum that lies inside its box, 0 to 1.

    The energy-based pointing game (Wang et al. 2020, Score-CAM, section 4.2).
    """
    values = maps.astype(np.float64)
    total = values.sum(axis=(1, 2))
    inside = np.where(_inside(maps.shape, boxes), values, 0).sum(axis=(1, 2))
    return np.asarray(np.divide(inside, total, out=np.zeros_like(total), where=total > 0))


def hit(maps: NDArray[np.floating], boxes: NDArray[np.integer]) -> Floats:
    """Return whether each map's maximum is inside its box: the pointing game (Zhang et al. 2016).

    1 or 0; where several pixels share the maximum, the share of them that is inside, as picking one
    at random scores. There is no tolerance around the box.
    """
    highest = maps.max(axis=(1, 2), keepdims=True)
    maximal = (maps >= highest * (1 - TIED)) & (highest > 0)
    found = (maximal & _inside(maps.shape, boxes)).sum(axis=(1, 2))
    return np.asarray(found / np.maximum(maximal.sum(axis=(1, 2)), 1))


def iou(maps: NDArray[np.floating], boxes: NDArray[np.integer], threshold: float) -> Floats:
    """Return intersection over union of {map >= threshold * maximum} and the box."""
    highest = maps.max(axis=(1, 2), keepdims=True)
    chosen = (maps >= threshold * highest) & (highest > 0)
    inside = _inside(maps.shape, boxes)
    both, either = (part.sum(axis=(1, 2)) for part in (chosen & inside, chosen | inside))
    return np.asarray(both / either)


def box_share(size: tuple[int, int], boxes: NDArray[np.integer]) -> Floats:
    """Return each box's share of an image of `size` (H, W) px: the energy of a uniform map."""
    return np.asarray(_inside((len(boxes), *size), boxes).mean(axis=(1, 2)))


def _inside(shape: tuple[int, ...], boxes: NDArray[np.integer]) -> NDArray[np.bool_]:
    x0, y0, x1, y1 = (corner[:, None, None] for corner in boxes.T)
    y, x = np.ogrid[: shape[1], : shape[2]]
    return np.asarray((x >= x0) & (x < x1) & (y >= y0) & (y < y1))

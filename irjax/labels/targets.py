"""What a mask says about its targets, and masks made of points: arrays in, arrays out."""

from __future__ import annotations

import dataclasses
import hashlib
import os

import numpy as np

from irjax.data.annotations import check_points
from irjax.errors import UsageError, UserError
from irjax.ops.regions import Regions, find_regions

POINT_RULES = ("centroid", "coarse", "uniform")
_COARSE_DEVIATION = 1 / 8  # of the side of a target's box: a quarter of its half


@dataclasses.dataclass(frozen=True)
class Labels:
    """The targets of one image.

    Attributes:
      points: [K, 2] float32 (x, y) in pixels, pixel centres at integers.
      boxes: [K, 4] (x_min, y_min, x_max, y_max) in pixels, upper edges exclusive; int64 from masks, float64 from files;
        None where only points are known.
      areas: [K] int64 in pixels, or None where they are not known.
    """

    points: np.ndarray
    boxes: np.ndarray | None = None
    areas: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.points)


@dataclasses.dataclass(frozen=True)
class ImageLabels:
    """The targets of one image, and which image it is.

    Attributes:
      name: file name without ending.
      labels: the targets.
      size: (height, width) in pixels, or None where it is not known.
      file_name: of the image, with its ending, where it is known.
      rule: how its mask was made binary (see `irjax.data.read_mask`), where it has one.
    """

    name: str
    labels: Labels
    size: tuple[int, int] | None = None
    file_name: str | None = None
    rule: str | None = None


def label_mask(
    mask: np.ndarray,
    connectivity: int = 8,
    *,
    points: str = "centroid",
    rng: np.random.Generator | None = None,
) -> Labels:
    """The targets of a mask.

    Args:
      mask: [H, W] bool (or any type; nonzero is target).
      connectivity: 8 or 4: which pixels touch.
      points: "centroid", the mean of the pixel centres; "coarse" or "uniform", see `coarse_points`.
      rng: what draws the points, for the last two.

    Returns:
      Points, boxes (int64) and areas in raster order of the targets; K is 0 for an empty mask.

    Raises:
      UserError: if the mask is not two-dimensional, an argument is unknown, or points are to be drawn without `rng`.
    """
    if points not in POINT_RULES:
        raise UsageError(f"points must be one of {', '.join(POINT_RULES)}, got {points!r}")
    if points != "centroid" and rng is None:
        raise UserError(f"points={points!r} are drawn: give rng, a numpy Generator")
    regions = find_regions(mask, connectivity)
    drawn = regions.centroids if points == "centroid" else _draw(regions, rng, points)
    return Labels(drawn.astype(np.float32), regions.boxes, regions.areas)


def coarse_points(
    mask: np.ndarray, rng: np.random.Generator, *, connectivity: int = 8, rule: str = "coarse"
) -> np.ndarray:
    """One random pixel of each target: single-point annotation by a person who does not hit the centre.

    Rule "coarse" has the distribution of LESPS (Ying et al., CVPR 2023, arXiv 2304.01484), as its published program
    `coarse_anno.m` draws it: x = floor(c_x + w g / 8) and y = floor(c_y + h g' / 8) with the centroid c, the width w
    and the height h of the target's box and g, g' standard normal, drawn again until the pixel is of the target. Rule
    "uniform" takes each pixel of the target with the same probability.

    Args:
      mask: [H, W] bool (or any type; nonzero is target).
      rng: draws one number for each target.
      connectivity: 8 or 4.
      rule: "coarse" or "uniform".

    Returns:
      [K, 2] float32 (x, y), whole numbers, in the order of `label_mask`.

    Raises:
      UserError: if the mask is not two-dimensional or an argument is unknown.

    Note:
      The program accepts a pixel of any target, here it is one of its own. The rounding down is the program's: before
      the target's edge cuts them off, its points lie half a pixel up and to the left of the centroid on average.
    """
    if rule not in POINT_RULES[1:]:
        raise UserError(f"rule must be one of {', '.join(POINT_RULES[1:])}, got {rule!r}")
    return label_mask(mask, connectivity, points=rule, rng=rng).points


def _draw(regions: Regions, rng: np.random.Generator, rule: str) -> np.ndarray:
    """[K, 2] int64: one pixel of each region. Probabilities are summed, so that nothing is drawn and thrown away."""
    if not len(regions):
        return np.zeros((0, 2), np.int64)
    labels = regions.labels.reshape(-1)
    pixels = np.flatnonzero(labels)
    pixels = pixels[np.argsort(labels[pixels], kind="stable")]
    points = np.stack(np.divmod(pixels, regions.labels.shape[1])[::-1], axis=1)
    owner = labels[pixels] - 1
    ends = np.cumsum(regions.areas)
    weights = _coarse_weights(points, owner, regions) if rule == "coarse" else np.ones(len(points))
    weights /= np.add.reduceat(weights, ends - regions.areas)[owner]
    # Each region has weight 1, so number k's share of the line is from k to k + 1.
    line = np.cumsum(weights)
    before = np.concatenate([[0.0], line])[ends - regions.areas]
    chosen = np.searchsorted(line, before + rng.random(len(regions)), side="right")
    return points[np.clip(chosen, ends - regions.areas, ends - 1)]


def _coarse_weights(points: np.ndarray, owner: np.ndarray, regions: Regions) -> np.ndarray:
    """The probability that floor(centroid + deviation * normal) is each pixel of its region."""
    from scipy.special import ndtr

    deviation = (regions.boxes[:, 2:] - regions.boxes[:, :2]) * _COARSE_DEVIATION
    low = (points - regions.centroids[owner]) / deviation[owner]
    high = (points + 1 - regions.centroids[owner]) / deviation[owner]
    # In the upper tail both are near 1 and their difference would vanish: there the lower tail, mirrored.
    mirrored = low > 0
    low, high = np.where(mirrored, -high, low), np.where(mirrored, -low, high)
    return np.prod(ndtr(high) - ndtr(low), axis=1)


def name_rng(seed: int, name: str) -> np.random.Generator:
    """The generator of one image: from the seed and the name alone, so the order and the other images do not matter.

    Raises:
      UserError: if the seed is negative.
    """
    if seed < 0:
        raise UsageError(f"the seed must not be negative, got {seed}")
    digest = hashlib.sha256(name.encode()).digest()[:16]
    return np.random.default_rng([seed, *np.frombuffer(digest, "<u4").tolist()])


def point_mask(points: np.ndarray, shape: tuple[int, int], radius: float = 0.0) -> np.ndarray:
    """A mask with a disc around each point.

    Args:
      points: [K, 2] (x, y) in pixels.
      shape: (H, W).
      radius: of the disc in pixels: pixels whose centre is no farther from the point, and always the point's own pixel.

    Returns:
      [H, W] bool; discs may touch or overlap, and are then one region.

    Raises:
      UserError: if a point lies outside the image (a pixel reaches half a pixel beyond its centre) or is not finite,
        or the radius is negative.
    """
    if not radius >= 0:
        raise UsageError(f"the radius must not be negative, got {radius}")
    points = np.asarray(points, np.float64).reshape(-1, 2)
    check_points(points, shape, "point_mask")
    height, width = shape
    mask = np.zeros((height, width), np.bool_)
    own = np.floor(points + 0.5).astype(np.int64)
    reach = np.arange(-int(radius + 0.5) - 1, int(radius + 0.5) + 2)
    offsets = np.stack(np.meshgrid(reach, reach), axis=-1).reshape(-1, 2)
    pixels = own[:, None] + offsets
    near = np.sum((pixels - points[:, None]) ** 2, axis=-1) <= radius**2
    inside = np.all((pixels >= 0) & (pixels < [width, height]), axis=-1)
    x, y = np.concatenate([pixels[near & inside], own]).T
    mask[y, x] = True
    return mask


def box_centres(boxes: np.ndarray) -> np.ndarray:
    """[K, 2] float32: the middles (x, y) of boxes [K, 4], in coordinates where pixel centres are integers."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return ((boxes[:, :2] + boxes[:, 2:] - 1) / 2).astype(np.float32)


def checked_boxes(
    boxes: np.ndarray, size: tuple[int, int], where: str | os.PathLike, tolerance: float = 0.01
) -> np.ndarray:
    """Boxes that lie in an image.

    Args:
      boxes: [K, 4] (x_min, y_min, x_max, y_max) in pixels, upper edges exclusive.
      size: (height, width) of the image.
      where: the file, for errors.
      tolerance: in pixels: so far may an edge be outside, as printed decimals are rounded; it is then put on the edge.

    Raises:
      UserError: if a box is empty or outside the image; the message names the file.
    """
    height, width = size
    boxes = np.asarray(boxes).reshape(-1, 4)
    limits = np.array([width, height, width, height])
    with np.errstate(invalid="ignore"):
        good = np.all((boxes >= -tolerance) & (boxes <= limits + tolerance), axis=1)
        good &= np.all(boxes[:, :2] < boxes[:, 2:], axis=1)
    if not good.all():
        edges = ", ".join(f"{edge:g}" for edge in boxes[np.argmin(good)])
        raise UserError(
            f"{os.fspath(where)}: the box ({edges}) is empty or outside the image of {width}x{height} pixels"
        )
    return np.clip(boxes, 0, limits)

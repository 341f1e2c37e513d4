"""Targets of masks, and masks made from points, as functions of arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from irjax.errors import UsageError, UserError
from irjax.io.points import check_points
from irjax.ops.polygons import box_polygon, fill_polygons
from irjax.ops.regions import Regions, find_regions
from irjax.types import Labels

POINT_RULES = ("centroid", "coarse", "uniform")
_COARSE_DEVIATION = 1 / 8  # standard deviation as a fraction of the side of a target's box (1/4 of the half side)


def label_mask(
    mask: np.ndarray,
    connectivity: int = 8,
    *,
    points: str = "centroid",
    rng: np.random.Generator | None = None,
) -> Labels:
    """Returns the targets of a mask.

    Args:
      mask: [H, W] bool (or any type; nonzero is target).
      connectivity: 8 or 4, the number of neighbours of a pixel.
      points: "centroid", the mean of the pixel centres; "coarse" or "uniform", see `coarse_points`.
      rng: generator of the points, required for "coarse" and "uniform".

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
    if points == "centroid":
        drawn = regions.centroids
    else:
        assert rng is not None
        drawn = _draw(regions, rng, points)
    return Labels(drawn.astype(np.float32), regions.boxes, regions.areas)


def coarse_points(
    mask: np.ndarray, rng: np.random.Generator, *, connectivity: int = 8, rule: str = "coarse"
) -> np.ndarray:
    """Draws one random pixel of each target, to simulate single-point annotation that misses the centre.

    Rule "coarse" has the distribution of LESPS (Ying et al., CVPR 2023, arXiv 2304.01484), as drawn by its published
    program `coarse_anno.m`: x = floor(c_x + w g / 8) and y = floor(c_y + h g' / 8) with the centroid c, the width w and
    the height h of the target's box and g, g' standard normal, drawn again until the pixel belongs to the target. Rule
    "uniform" takes each pixel of the target with the same probability.

    Args:
      mask: [H, W] bool (or any type; nonzero is target).
      rng: generator; one number is drawn for each target.
      connectivity: 8 or 4.
      rule: "coarse" or "uniform".

    Returns:
      [K, 2] float32 (x, y), whole numbers, in the order of `label_mask`.

    Raises:
      UserError: if the mask is not two-dimensional or an argument is unknown.

    Note:
      The program accepts a pixel of any target; here it must belong to the target itself. Rounding down is that of the
      program: before truncation by the target's edge, points lie on average half a pixel above and to the left of the
      centroid.
    """
    if rule not in POINT_RULES[1:]:
        raise UserError(f"rule must be one of {', '.join(POINT_RULES[1:])}, got {rule!r}")
    return label_mask(mask, connectivity, points=rule, rng=rng).points


def _draw(regions: Regions, rng: np.random.Generator, rule: str) -> np.ndarray:
    """Draws one pixel of each region, [K, 2] int64, by inverting cumulative probabilities rather than by rejection."""
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
    # Each region has total weight 1, so region k covers the interval from k to k + 1.
    line = np.cumsum(weights)
    before = np.concatenate([[0.0], line])[ends - regions.areas]
    chosen = np.searchsorted(line, before + rng.random(len(regions)), side="right")
    return points[np.clip(chosen, ends - regions.areas, ends - 1)]


def _coarse_weights(points: np.ndarray, owner: np.ndarray, regions: Regions) -> np.ndarray:
    """Returns for each pixel the probability that floor(centroid + deviation * normal) of its region equals it."""
    from scipy.special import ndtr

    deviation = (regions.boxes[:, 2:] - regions.boxes[:, :2]) * _COARSE_DEVIATION
    low = (points - regions.centroids[owner]) / deviation[owner]
    high = (points + 1 - regions.centroids[owner]) / deviation[owner]
    # In the upper tail both values are near 1 and their difference cancels, so the mirrored lower tail is used there.
    mirrored = low > 0
    low, high = np.where(mirrored, -high, low), np.where(mirrored, -low, high)
    return np.prod(ndtr(high) - ndtr(low), axis=1)


def inverted_masks(images: Iterable[tuple[Labels, tuple[int, int] | None]]) -> str:
    """Returns what to say of masks whose targets cover more than half of their pixels, as small ones never do.

    Args:
      images: the targets of each mask, and its (height, width); those without areas do not count.
    """
    areas = [(int(found.areas.sum()), size[0] * size[1]) for found, size in images if found.areas is not None and size]
    target, pixels = (sum(column) for column in zip(*areas, strict=True)) if areas else (0, 0)
    if 2 * target <= pixels:
        return ""
    return (
        f"targets cover {target} of the {pixels} pixels of {len(areas)} masks ({target / pixels:.0%}): the upper level "
        "is the target, and here it may be the background; if so, invert the mask files first"
    )


def name_rng(seed: int, name: str) -> np.random.Generator:
    """Returns the generator of one image, which depends on the seed and the name only, not on other images.

    Raises:
      UserError: if the seed is negative.
    """
    if seed < 0:
        raise UsageError(f"the seed must not be negative, got {seed}")
    digest = hashlib.sha256(name.encode()).digest()[:16]
    return np.random.default_rng([seed, *np.frombuffer(digest, "<u4").tolist()])


def target_mask(labels: Labels, shape: tuple[int, int], radius: float | None = None) -> np.ndarray:
    """Returns the mask of targets: polygons and boxes filled, or discs around points.

    Args:
      labels: the targets.
      shape: (H, W).
      radius: None: fill the polygons of each target, else its box, by the rule of `irjax.ops.polygons.fill_polygons`;
        a target with neither is the pixel of its point. A number: `point_mask` of this radius.

    Returns:
      [H, W] bool; targets that touch or overlap are one region.

    Raises:
      UserError: see `point_mask`.
    """
    if radius is not None:
        return point_mask(labels.points, shape, radius)
    mask = np.zeros(shape, np.bool_)
    bare = []
    for number, point in enumerate(labels.points):
        polygons = labels.polygons[number] if labels.polygons is not None else ()
        if not polygons and labels.boxes is not None:
            polygons = (box_polygon(labels.boxes[number]),)
        if polygons:
            mask |= fill_polygons(polygons, shape)
        else:
            bare.append(point)
    return mask | point_mask(np.reshape(bare, (-1, 2)), shape)


def point_mask(points: np.ndarray, shape: tuple[int, int], radius: float = 0.0) -> np.ndarray:
    """Returns a mask with a disc around each point.

    Args:
      points: [K, 2] (x, y) in pixels.
      shape: (H, W).
      radius: radius of the discs in pixels. A disc contains the pixels whose centres are at most this far from the
        point, and always the pixel of the point itself.

    Returns:
      [H, W] bool; discs that touch or overlap are one region.

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

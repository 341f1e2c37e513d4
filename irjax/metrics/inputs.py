"""Inputs of the metrics, and their validation.

Maps can be scored against masks, points against points, and either against the centroids of the other. All checks are
done here, once, so that the counting code can rely on its inputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np

from irjax.errors import UsageError, UserError
from irjax.ops.regions import find_regions

MASK_LEVEL = 128  # lowest target level of 8-bit truth masks and predictions; 128 / 255 is the first level above 0.5


def _points(points: Any, what: str) -> np.ndarray:
    array = np.asarray(points, np.float64)
    if array.size == 0:
        return np.zeros((0, 2))
    if array.ndim != 2 or array.shape[1] != 2:
        raise UserError(f"{what} must be [N, 2] (x, y), got shape {array.shape}")
    if not np.isfinite(array).all():
        raise UserError(f"{what} must be finite, got {array[~np.isfinite(array).all(axis=1)][0]}")
    return array


@dataclasses.dataclass(frozen=True)
class PointPredictions:
    """The targets predicted in one image, as points.

    Attributes:
      points: [N, 2] (x, y) in pixels of the original image; converted to float64. N may be 0.
      scores: [N], higher means more confident; converted to float64. None (the default) is replaced by ones.

    Raises:
      UserError: if shapes disagree or a number is not finite.
    """

    points: np.ndarray
    scores: np.ndarray | None = None

    def __post_init__(self):
        points = _points(self.points, "predicted points")
        scores = np.ones(len(points)) if self.scores is None else np.asarray(self.scores, np.float64).reshape(-1)
        if scores.shape != (len(points),):
            raise UserError(f"{len(points)} predicted points need as many scores, got {scores.shape[0]}")
        if not np.isfinite(scores).all():
            raise UserError(f"scores must be finite, got {scores[~np.isfinite(scores)][0]}")
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "scores", scores)

    def __len__(self) -> int:
        return len(self.points)

    def above(self, threshold: float) -> PointPredictions:
        """Returns the points with ``score >= threshold``, in the same order."""
        assert self.scores is not None  # set by `__post_init__`
        keep = self.scores >= threshold
        return self if keep.all() else PointPredictions(self.points[keep], self.scores[keep])


@dataclasses.dataclass(frozen=True)
class PointTruth:
    """The true targets of one image, as points.

    Attributes:
      points: [K, 2] centroids (x, y) in pixels; converted to float64. K may be 0.
      height: height of the image in pixels; Fa is per pixel, so it needs the image size.
      width: width of the image in pixels.

    Raises:
      UserError: if a point is not finite or a side is not positive.
    """

    points: np.ndarray
    height: int
    width: int

    def __post_init__(self):
        object.__setattr__(self, "points", _points(self.points, "true points"))
        if self.height < 1 or self.width < 1:
            raise UserError(f"an image has positive sides, got height {self.height}, width {self.width}")

    def __len__(self) -> int:
        return len(self.points)


def from_detections(detections: Any) -> list[PointPredictions]:
    """Converts an `irjax.types.Detections` to one `PointPredictions` for each image, without padding.

    Args:
      detections: points [B, N, 2], scores [B, N], valid [B, N].

    Raises:
      UserError: if there is no batch axis.
    """
    points, scores, valid = (np.asarray(getattr(detections, name)) for name in ("points", "scores", "valid"))
    if points.ndim != 3:
        raise UserError(f"detections need a batch axis, points [B, N, 2]; got {points.shape}")
    return [PointPredictions(p[v], s[v]) for p, s, v in zip(points, scores, valid, strict=True)]


def is_points(item: Any) -> bool:
    """Returns whether an item holds points rather than a map or mask."""
    return isinstance(item, PointPredictions | PointTruth)


def is_example(item: Any) -> bool:
    """Returns whether an item looks like an `irjax.types.Example`, which is not imported as metrics run without JAX."""
    return hasattr(item, "image") and hasattr(item, "points")


@overload
def truth_of_example(example: Any, needs_mask: Literal[True]) -> np.ndarray: ...


@overload
def truth_of_example(example: Any, needs_mask: Literal[False]) -> PointTruth: ...


@overload
def truth_of_example(example: Any, needs_mask: bool) -> np.ndarray | PointTruth: ...


def truth_of_example(example: Any, needs_mask: bool) -> np.ndarray | PointTruth:
    """Returns the truth of an `irjax.types.Example`: its mask if `needs_mask`, else its points.

    Raises:
      UserError: if a mask is needed and the data set has only points.
    """
    if not needs_mask:
        height, width = np.shape(example.image)[:2]
        return PointTruth(example.points, height, width)
    if example.mask is None:
        raise UserError(f"{example.name}: this protocol scores pixels and needs a mask; the data set has only points")
    return example.mask


def _plane(array: Any, what: str) -> np.ndarray:
    array = np.asarray(array)
    array = array.reshape(map_shape(array))
    if array.ndim != 2 or array.size == 0:
        raise UserError(f"{what} must be [H, W], got shape {array.shape}")
    return array


def truth_mask(mask: Any) -> tuple[np.ndarray, str]:
    """Converts a truth mask to booleans.

    Booleans and numbers within {0, 1} are used as they are. In other 8-bit masks, pixels from 128 on are targets:
    published masks contain gray rims and JPEG noise, with which "above 0" or "equal to 255" gives other targets.

    Args:
      mask: [H, W] bool, or integers in [0, 255], or floats within {0, 1}.

    Returns:
      The mask [H, W] bool and the rule applied: "as it is" or "gray, >= 128".

    Raises:
      UserError: for other values or shapes.
    """
    mask = _plane(mask, "a truth mask")
    if mask.dtype == bool:
        return mask, "as it is"
    if np.issubdtype(mask.dtype, np.integer):
        low, high = mask.min(), mask.max()
        if low >= 0 and high <= 1:
            return mask.astype(bool), "as it is"
        if low >= 0 and high <= 255:
            return mask >= MASK_LEVEL, "gray, >= 128"
        raise UserError(f"an integer truth mask must lie in [0, 255], got {low} to {high}")
    if np.isin(mask, (0, 1)).all():
        return mask.astype(bool), "as it is"
    raise UserError(
        f"a truth mask of {mask.dtype} must hold only 0 and 1, got {mask.min()} to {mask.max()}; "
        "give gray masks as 8-bit integers, which are split at 128"
    )


def gray_levels(mask: Any) -> tuple[np.ndarray, bool]:
    """Converts a truth mask to the 256 gray levels that published programs compare, truncate or sum.

    Args:
      mask: [H, W] bool, integers in [0, 255], or floats in [0, 1], which represent level / 255.

    Returns:
      The mask, [H, W] bool if it is binary, else uint8; and whether it is binary, that is, contains only 0 and the full
      level (1 if no value exceeds 1, else 255).

    Raises:
      UserError: for other values or shapes.
    """
    mask = _plane(mask, "a truth mask")
    if mask.dtype == bool:
        return mask, True
    low, high = mask.min(), mask.max()
    if np.issubdtype(mask.dtype, np.integer):
        if low < 0 or high > 255:
            raise UserError(f"an integer truth mask must lie in [0, 255], got {low} to {high}")
        full = 255 if high > 1 else 1
        on = mask == full
        return (on, True) if (on | (mask == 0)).all() else (mask.astype(np.uint8), False)
    if not (low >= 0 and high <= 1):
        raise UserError(f"a truth mask of {mask.dtype} must lie in [0, 1], got {low} to {high}")
    on = mask == 1
    return (on, True) if (on | (mask == 0)).all() else (np.rint(mask * 255).astype(np.uint8), False)


def size_text(shape: Sequence[int]) -> str:
    """Formats (H, W) as "HxW", for messages."""
    return f"{shape[0]}x{shape[1]}"


def map_shape(array: Any) -> tuple[int, ...]:
    """Returns (H, W) of a map or mask, without axes of length 1 before or after; the whole shape if it is no map."""
    shape = np.shape(array)
    while len(shape) > 2 and 1 in (shape[0], shape[-1]):
        shape = shape[1:] if shape[0] == 1 else shape[:-1]
    return shape


def check_sizes(predicted: tuple[int, ...], truth: tuple[int, ...]) -> None:
    """Checks that prediction and truth have the same size (H, W), without which their pixels do not correspond.

    Raises:
      UserError: if the sizes differ; the message gives both.
    """
    if predicted != truth:
        raise UserError(f"the prediction is {size_text(predicted)}, the truth {size_text(truth)} (height x width)")


def own_scale(prediction: Any) -> int | None:
    """Returns the value that represents p = 1 in one integer map: 1 if no value exceeds 1, else 255.

    Returns:
      1 or 255; None for points, other dtypes and empty arrays.

    Raises:
      UserError: if an integer map exceeds 255 or is negative.
    """
    if is_points(prediction):
        return None
    array = np.asarray(prediction)
    if not np.issubdtype(array.dtype, np.integer) or not array.size:
        return None
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 255:
        raise UserError(f"an integer map must lie in [0, 255], got {low} to {high}")
    return 255 if high > 1 else 1


def integer_scale(predictions: Sequence[Any]) -> int:
    """Returns the value that represents p = 1 in the integer maps of a prediction set: 1 if none exceeds 1, else 255.

    The whole set decides, because a single 8-bit map whose maximum is 1 of 255 is not a mask.

    Raises:
      UserError: if an integer map exceeds 255 or is negative.
    """
    scale = 1
    for number, item in enumerate(predictions):
        try:
            scale = max(scale, own_scale(item) or 1)
        except UserError as error:
            raise UserError(f"prediction {number}: {error}") from error
    return scale


def _checked_map(scores: Any, logits: bool, scale: int) -> np.ndarray:
    scores = _plane(scores, "a predicted map")
    if scores.dtype == bool:
        return scores
    low, high = scores.min(), scores.max()
    if np.issubdtype(scores.dtype, np.integer):
        if low < 0 or high > scale:
            raise UserError(f"an integer map must lie in [0, {scale}], got {low} to {high}")
    elif not (np.isfinite(low) and np.isfinite(high)):
        raise UserError("a predicted map must be finite, got NaN or infinity")
    elif not logits and (low < 0 or high > 1):
        raise UserError(
            f"a predicted map must hold probabilities in [0, 1], got {low} to {high}; for logits pass logits=True"
        )
    return scores


def cut_level(threshold: float, *, logits: bool = False) -> float:
    """Returns a probability threshold t, converted to log(t / (1 - t)) if `logits`, which is infinite at 0 and 1.

    Raises:
      UserError: if the threshold is not in [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise UsageError(f"the threshold of a map is a probability in [0, 1], got {threshold}")
    if not logits:
        return threshold
    with np.errstate(divide="ignore"):
        return float(np.log(threshold) - np.log1p(-threshold))


def adaptive_level(scores: np.ndarray, deviations: float) -> float:
    """Returns the threshold mean + `deviations` * standard deviation of a response [H, W], as of classical programs.

    It is at most 1, which no probability exceeds; that of a constant map is its value, so that no pixel exceeds it.
    """
    low, high = float(scores.min()), float(scores.max())
    if low == high:  # the mean may be rounded below the value
        return min(high, 1.0)
    return min(float(scores.mean(dtype=np.float64) + deviations * scores.std(dtype=np.float64)), 1.0)


def predicted_mask(scores: Any, threshold: float, *, logits: bool = False, scale: int = 255) -> np.ndarray:
    """Returns the target pixels of a predicted map, those with p > threshold.

    Args:
      scores: [H, W]: bool; floats in [0, 1], or any finite floats if `logits`; or integers in [0, scale].
      threshold: probability t; a pixel with p equal to it is background.
      logits: whether `scores` are logits. They are compared as logit > log(t / (1 - t)), for t = 0.5 as logit > 0.
      scale: the value that represents p = 1 in an integer map.

    Returns:
      [H, W] bool.

    Raises:
      UserError: for other values or shapes.
    """
    scores = _checked_map(scores, logits, scale)
    level = cut_level(threshold, logits=logits)
    if scores.dtype == bool:
        return scores
    if np.issubdtype(scores.dtype, np.integer):
        return (np.arange(scale + 1) / scale > threshold)[scores]
    return scores > level


def probabilities(scores: Any, *, logits: bool = False, scale: int = 255) -> np.ndarray:
    """Converts a predicted map to probabilities.

    Args:
      scores: [H, W] as for `predicted_mask`.
      logits: whether `scores` are logits.
      scale: the value that represents p = 1 in an integer map.

    Returns:
      [H, W] floats in [0, 1]: float32 for booleans, float64 for integers, else the dtype of `scores`.

    Raises:
      UserError: for other values or shapes.
    """
    scores = _checked_map(scores, logits, scale)
    if scores.dtype == bool:
        return scores.astype(np.float32)
    if np.issubdtype(scores.dtype, np.integer):
        return scores / np.float64(scale)
    if logits:
        import scipy.special

        return scipy.special.expit(scores)
    return scores


def mask_centroids(mask: np.ndarray, connectivity: int) -> PointTruth:
    """Returns the centroids of the regions of a mask, with the size of the image."""
    return PointTruth(find_regions(mask, connectivity).centroids, *mask.shape)

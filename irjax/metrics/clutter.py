"""Signal-to-clutter-ratio gain and background suppression factor, which work on classical filters reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from irjax.errors import UsageError
from irjax.metrics.inputs import check_sizes
from irjax.ops.regions import find_regions

MARGIN = 20  # pixels around the box of a target that are its neighbourhood, unless another width is said


@dataclasses.dataclass(frozen=True)
class Clutter:
    """One target against its neighbourhood, before and after a detector.

    Attributes:
      x: column of the target's centroid in pixels.
      y: row of the target's centroid in pixels.
      scr_in: signal-to-clutter ratio in the image; infinite over a flat background, nan where the target is as flat.
      scr_out: the same in the response.
      scr_gain: scr_out / scr_in; nan where it is undefined.
      bsf: background suppression factor; infinite where the response's background is flat, nan where both are.
    """

    x: float
    y: float
    scr_in: float
    scr_out: float
    scr_gain: float
    bsf: float


def clutter(image: np.ndarray, response: np.ndarray, mask: np.ndarray, *, margin: int = MARGIN) -> list[Clutter]:
    """Measures how much a response raises each target over its background.

    With mean m and standard deviation s over the pixels of a target (t) or of its background (b), in the image (in) and
    the response (out),

        SCR = |m_t - m_b| / s_b,    SCR gain = SCR_out / SCR_in,    BSF = s_b,in / s_b,out.

    The background of a target are the pixels of no target within `margin` of its bounding box. Image and response are
    each stretched to [0, 1] first; the BSF depends on that, the gain does not. A gain or factor of infinity says that
    the background of the response is flat.

    Note:
      Published programs agree on the ratios, not on the background, so figures of papers are only comparable with
      their own: github.com/fengyiwu98/TensorISTD (utils/measure_calculator.m) takes the 21x21 pixels about a target
      without the inner 5x5, and the target's maximum for its mean; github.com/hahamyt/ISTD (scrg_bsf_cg.m) the whole
      image without the target. A box widened by d on each side, as here, is the neighbourhood of Gao et al.; their
      width could not be looked up, and 20 is irjax's choice.

    References:
      Gao et al., Infrared Patch-Image Model for Small Target Detection in a Single Image, IEEE TIP 22(12), 2013, for
      the ratios and the neighbourhood; Moradi et al., arXiv:2301.03796, for what both figures can and cannot say.

    Args:
      image: [H, W], any real dtype.
      response: [H, W], any real dtype.
      mask: [H, W] bool, the true targets.
      margin: width of the background around a target's box in pixels, at least 1.

    Returns:
      One record for each 8-connected target, in raster order.

    Raises:
      UserError: if sizes differ, or the margin is below 1.
    """
    if margin < 1:
        raise UsageError(f"the margin of a target's background must be at least 1 pixel, got {margin}")
    check_sizes(response.shape, mask.shape)
    check_sizes(image.shape, mask.shape)
    before, after = _stretched(image), _stretched(response)
    regions, found = find_regions(mask), []
    for number, ((x, y), (left, top, right, bottom)) in enumerate(zip(regions.centroids, regions.boxes, strict=True)):
        window = np.s_[max(top - margin, 0) : bottom + margin, max(left - margin, 0) : right + margin]
        labels = regions.labels[window]
        (scr_in, spread_in), (scr_out, spread_out) = (
            _contrast(values[window], labels == number + 1, labels == 0) for values in (before, after)
        )
        gain = float("nan") if np.isinf(scr_in) else _ratio(scr_out, scr_in)
        bsf = _ratio(spread_in, spread_out)
        found.append(Clutter(float(x), float(y), scr_in, scr_out, gain, bsf))
    return found


def summary(values: Sequence[float]) -> dict[str, float | int]:
    """Summarises the gains or factors of all targets.

    Returns:
      "median" over the defined values, infinite ones included; "mean" over the finite ones; "infinite" and "undefined",
      how many of the values are. Median and mean are nan where there are none.
    """
    array = np.array(values, np.float64)
    defined, finite = array[~np.isnan(array)], array[np.isfinite(array)]
    return {
        "median": float(np.quantile(defined, 0.5, method="lower")) if defined.size else float("nan"),
        "mean": float(finite.mean()) if finite.size else float("nan"),
        "infinite": int(np.isinf(array).sum()),
        "undefined": int(np.isnan(array).sum()),
    }


def _stretched(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _contrast(values: np.ndarray, target: np.ndarray, background: np.ndarray) -> tuple[float, float]:
    """Returns the signal-to-clutter ratio and the standard deviation of the background."""
    around = values[background]
    if not around.size:
        return float("nan"), float("nan")
    spread = 0.0 if around.min() == around.max() else float(around.std())  # rounding may leave a flat one above 0
    return _ratio(abs(float(values[target].mean() - around.mean())), spread), spread


def _ratio(one: float, other: float) -> float:
    if other:
        return one / other
    return float("inf") if one > 0 else float("nan")

"""Point-response prior supervision (PRPS), the target of SPIRE: a Gaussian on the heatmap's grid times local contrast.

Source: SPIRE (arXiv 2604.05363), Section 3.2, Eqs. 2-6; peak search and averaging as in its published code.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from irjax.errors import UserError
from irjax.types import Array

FORMS = ("prps", "gaussian", "impulse")
AGGREGATES = ("max", "average")
CENTRES = ("cell", "peak")
_SEARCH = 5  # the radiometric peak is searched for in the (2 * 5 + 1)^2 pixels around a point


def _minmax(patch: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the patch scaled to [0, 1], and whether it is flat (then the scaled patch is zero)."""
    low, high = jnp.min(patch), jnp.max(patch)
    flat = high <= low
    return (patch - low) / jnp.where(flat, 1.0, high - low), flat


def _peak(searchable: jax.Array, point: jax.Array) -> jax.Array:
    """Returns the brightest pixel [2] (x, y) int32 near a point; `searchable` is the image padded with -inf."""
    column, row = jnp.floor(point).astype(jnp.int32)
    window = jax.lax.dynamic_slice(searchable, (row, column), (2 * _SEARCH + 1,) * 2)
    brightest = jnp.argmax(window)
    return jnp.stack([column + brightest % window.shape[1], row + brightest // window.shape[1]]) - _SEARCH


def _shape(image: jax.Array, peak: jax.Array, gaussian: jax.Array) -> jax.Array:
    """Returns the (2r+1)^2 target of a peak: Gaussian times contrast, min-max scaled; the Gaussian if flat."""
    side = gaussian.shape[0]
    column, row = peak
    # At the border the patch is shifted inside. `dynamic_slice` counts negative starts from the end, hence the clip.
    top = jnp.clip(row - side // 2, 0, image.shape[0] - side)
    left = jnp.clip(column - side // 2, 0, image.shape[1] - side)
    patch = jax.lax.dynamic_slice(image, (top, left), (side, side))
    contrast, flat = _minmax(patch)
    shaped, degenerate = _minmax(gaussian * contrast)
    return jnp.where(flat | degenerate, gaussian, shaped)


def _heatmap(
    image: jax.Array,
    points: jax.Array,
    mask: jax.Array,
    *,
    stride: int,
    gaussian: jax.Array,
    form: str,
    aggregate: str,
    centre: str,
) -> jax.Array:
    """Computes the target [H / stride, W / stride] of one image [H, W] with points [K, 2]."""
    reach = gaussian.shape[0] // 2
    height, width = image.shape[0] // stride, image.shape[1] // stride
    searchable = jnp.pad(image, _SEARCH, constant_values=-jnp.inf)

    def place(canvas: jax.Array, target: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        point, real = target
        peak = _peak(searchable, point)
        new = _shape(image, peak, gaussian) if form == "prps" else gaussian
        column, row = jnp.floor((peak if centre == "peak" else point) / stride + 0.5).astype(jnp.int32)
        old = jax.lax.dynamic_slice(canvas, (row, column), gaussian.shape)
        if aggregate == "max":
            merged = jnp.maximum(old, new)
        else:
            merged = jnp.where(old > 0, (old + new) / 2, new)
        merged = jnp.where(real, merged, old)
        return jax.lax.dynamic_update_slice(canvas, merged, (row, column)), None

    # A margin of `reach` on each side, and one more cell for points that round up past the last cell.
    canvas = jnp.zeros((height + 2 * reach + 1, width + 2 * reach + 1), jnp.float32)
    canvas, _ = jax.lax.scan(place, canvas, (points, mask))
    return canvas[reach : reach + height, reach : reach + width]


@functools.partial(jax.jit, static_argnames=("stride", "sigma", "form", "aggregate", "centre"))
def prps(
    images: Array,
    points: Array,
    mask: Array,
    *,
    stride: int = 4,
    sigma: float = 2.0,
    form: str = "prps",
    aggregate: str = "max",
    centre: str = "cell",
) -> jax.Array:
    """Computes target heatmaps from images and the target points in them.

    Args:
      images: [B, H, W] float32, the letterboxed images after augmentation; any scale, since contrast is relative.
      points: [B, K, 2] float32 (x, y) in pixels, inside the image where `mask` is True.
      mask: [B, K] bool, True for real points.
      stride: pixels per heatmap cell.
      sigma: standard deviation of the Gaussian in cells; its support is the square of radius r = 3 sigma cells.
      form: ``prps``; ``gaussian``, without radiometry; ``impulse``, 1 at the centre (Table 2).
      aggregate: how overlapping targets combine. ``max`` keeps every peak at 1; ``average``, as in the published code,
        takes, in the order of the points, the mean of the old and new value where the map is already positive, which
        lowers the peaks of close targets.
      centre: what the Gaussian is centred on. Its cell is floor(p / stride + 0.5) (Eq. 2), where p is the point for
        ``cell`` and the radiometric peak for ``peak``: the brightest of the 11x11 pixels around the point, the first in
        raster order (Eq. 3).

    Returns:
      [B, H / stride, W / stride] float32 in [0, 1].

    Raises:
      UserError: if `form`, `aggregate` or `centre` is unknown, shapes disagree, H or W is not a multiple of `stride`,
        or the image is smaller than the support.

    Note:
      Eq. 3 centres the Gaussian at the point refined to the radiometric peak (``peak``). The published code uses the
      peak only for the patch of contrast and leaves the Gaussian at the cell of the point (``cell``). The paper writes
      the peak in heatmap coordinates and does not say how it is converted; here Eq. 2 converts it, as it does the
      point. The paper searches for the peak in "the original image"; here that is the given image, letterboxed and
      augmented, with which the target has to agree.

      A flat patch falls back to the Gaussian, where the published code divides by zero. The published code also
      normalises twice in the wrong order, so its values exceed 1 by up to 0.008; these do not.
    """
    for name, value, known in (
        ("form", form, FORMS),
        ("aggregate", aggregate, AGGREGATES),
        ("centre", centre, CENTRES),
    ):
        if value not in known:
            raise UserError(f"{name} must be one of {known}, got {value!r}")
    images, points, mask = jnp.asarray(images, jnp.float32), jnp.asarray(points, jnp.float32), jnp.asarray(mask, bool)
    if images.ndim != 3 or points.shape != (*mask.shape, 2) or mask.ndim != 2 or mask.shape[0] != images.shape[0]:
        raise UserError(
            f"wanted images [B, H, W], points [B, K, 2], mask [B, K], got {images.shape}, {points.shape}, {mask.shape}"
        )
    height, width = images.shape[1:]
    reach = round(3 * sigma)
    if height % stride or width % stride or min(height, width) < 2 * reach + 1:
        raise UserError(f"image sides must be multiples of {stride}, at least {2 * reach + 1}, got {height}x{width}")
    if form == "impulse":
        gaussian = jnp.ones((1, 1), jnp.float32)
    else:
        square = jnp.arange(-reach, reach + 1, dtype=jnp.float32) ** 2
        gaussian = jnp.exp(-(square[:, None] + square[None, :]) / (2 * sigma**2))
    one = functools.partial(_heatmap, stride=stride, gaussian=gaussian, form=form, aggregate=aggregate, centre=centre)
    return jax.vmap(one)(images, jnp.where(mask[..., None], points, 0.0), mask)

"""Synthetic infrared scenes with exactly known point targets, used when no data set is given.

A scene follows the imaging chain of a camera: radiance of a background and of distractors, blur by the optics, sensor
noise and defects (all in `irjax.data.clutter`), then point targets blurred by the same optics. Each target has a given
signal-to-clutter ratio (SCR):

    SCR = largest contribution of the target to any one pixel / local clutter
    local clutter = standard deviation of the scene without targets, noise included, in the square of
        2 * scr_radius + 1 px around the pixel nearest to the target, clipped at the image border

`InjectedSource` adds the same kind of targets to real images.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import scipy.special

from irjax.data import clutter
from irjax.data.clutter import SceneConfig
from irjax.errors import UserError
from irjax.ops.keys import purpose_generator
from irjax.types import Example, Source

# The Gaussian of a target is truncated where it is far below one gray level, even in a 16-bit image.
_SUPPORT_SIGMAS = 6.0
_PLACEMENT_TRIES = 60


@dataclasses.dataclass(frozen=True)
class Targets:
    """The targets placed into one image.

    Attributes:
      points: [K, 2] float32, (x, y) in px: the exact sub-pixel positions.
      scr: [K] float32, signal-to-clutter ratios as drawn; the actual ratio is larger where a minimum peak applied.
      sigmas: [K] float32, standard deviation in px of each target's Gaussian, before integration over pixels.
      radiance: [H, W] float32, the sum of all contributions, in the units of the image.
      mask: [H, W] bool.
    """

    points: np.ndarray
    scr: np.ndarray
    sigmas: np.ndarray
    radiance: np.ndarray
    mask: np.ndarray


def gaussian_target(x: float, y: float, sigma: float, height: int, width: int) -> tuple[slice, slice, np.ndarray]:
    """Renders a point with a Gaussian point spread function, integrated over the area of each pixel.

    Args:
      x: column of the point in px.
      y: row of the point in px.
      sigma: standard deviation of the Gaussian in px.
      height: rows of the image, at whose border the patch is clipped.
      width: columns of the image.

    Returns:
      The rows and columns that the target covers, and its values there [h, w] float32, scaled to a maximum of 1.
    """

    def profile(centre: float, size: int) -> tuple[slice, np.ndarray]:
        reach = _SUPPORT_SIGMAS * sigma + 1.0
        low, high = max(math.floor(centre - reach), 0), min(math.ceil(centre + reach) + 1, size)
        edges = (np.arange(low, high + 1) - 0.5 - centre) / (sigma * math.sqrt(2.0))
        return slice(low, high), np.diff(scipy.special.erf(edges))

    rows, vertical = profile(y, height)
    columns, horizontal = profile(x, width)
    patch = np.outer(vertical / vertical.max(), horizontal / horizontal.max())
    return rows, columns, patch.astype(np.float32)


def local_clutter(image: np.ndarray, x: float, y: float, radius: int) -> float:
    """Returns the standard deviation of `image` [H, W] in a square of 2 * radius + 1 px around the pixel at (x, y)."""
    row, column = math.floor(y + 0.5), math.floor(x + 0.5)
    square = image[max(row - radius, 0) : row + radius + 1, max(column - radius, 0) : column + radius + 1]
    return float(square.std(dtype=np.float64))


def _is_free(
    x: float,
    y: float,
    min_distance: float,
    points: list[tuple[float, float]],
    discs: np.ndarray,
    occupied: np.ndarray | None,
) -> bool:
    """Returns whether (x, y) is far enough from placed points and occupied pixels, and outside all discs [N, 3]."""
    if any(math.hypot(x - other_x, y - other_y) < min_distance for other_x, other_y in points):
        return False
    if np.any((discs[:, 0] - x) ** 2 + (discs[:, 1] - y) ** 2 < discs[:, 2] ** 2):
        return False
    if occupied is None:
        return True
    row, column, reach = math.floor(y + 0.5), math.floor(x + 0.5), math.ceil(min_distance / 2)
    near = (slice(max(row - reach, 0), row + reach + 1), slice(max(column - reach, 0), column + reach + 1))
    return not occupied[near].any()


def place_targets(
    rng: np.random.Generator,
    config: SceneConfig,
    image: np.ndarray,
    *,
    psf_sigma: float,
    full_scale: float,
    least_peak: float = 0.0,
    avoid: np.ndarray | None = None,
    occupied: np.ndarray | None = None,
) -> Targets:
    """Draws targets and positions for them in an image, which is not changed.

    A position is rejected if it is too near to another target, in a disc of `avoid` or near a pixel of `occupied`, or
    if the target would saturate there; after 60 rejections the target is left out.

    Args:
      rng: the source of all randomness.
      config: counts, ratios, sizes and distances.
      image: [H, W] float32, the scene without the targets, in any units.
      psf_sigma: standard deviation of the optics' point spread function in px.
      full_scale: the largest value an image can hold, in the units of `image`.
      least_peak: minimum of the largest contribution of a target to one pixel, where the local clutter gives less.
      avoid: [N, 3] (x, y, radius) in px, discs in which no target may lie; None for none.
      occupied: [H, W] bool, pixels of targets that are already in the image; None for none.

    Returns:
      The placed targets.
    """
    height, width = image.shape
    discs = np.zeros((0, 3), np.float32) if avoid is None else avoid
    span = np.maximum(np.array([width, height]) - 1.0 - 2.0 * config.margin, 0.0)
    radiance, mask = np.zeros((height, width), np.float32), np.zeros((height, width), bool)
    points: list[tuple[float, float]] = []
    ratios: list[float] = []
    sigmas: list[float] = []
    for _ in range(int(rng.integers(config.targets[0], config.targets[1] + 1))):
        scr, sigma = rng.uniform(*config.scr), math.hypot(psf_sigma, rng.uniform(*config.target_extent))
        # Rounded to float32 first, so that the returned point is the exact position of the target.
        candidates = (config.margin + span * rng.random((_PLACEMENT_TRIES, 2))).astype(np.float32)
        for x, y in candidates.tolist():
            if not _is_free(x, y, config.min_distance, points, discs, occupied):
                continue
            amplitude = max(scr * local_clutter(image, x, y, config.scr_radius), least_peak)
            rows, columns, patch = gaussian_target(x, y, sigma, height, width)
            if float((image[rows, columns] + amplitude * patch)[patch > 0.1].max()) > full_scale:
                continue
            radiance[rows, columns] += np.float32(amplitude) * patch
            mask[rows, columns] |= patch > config.mask_fraction
            points.append((x, y))
            ratios.append(scr)
            sigmas.append(sigma)
            break
    return Targets(
        points=np.asarray(points, np.float32).reshape(-1, 2),
        scr=np.asarray(ratios, np.float32),
        sigmas=np.asarray(sigmas, np.float32),
        radiance=radiance,
        mask=mask,
    )


def _generator(seed: int, index: int) -> np.random.Generator:
    if seed < 0 or index < 0:
        raise UserError(f"seed and index must not be negative, got seed {seed} and index {index}")
    return np.random.default_rng([seed, index])


def _scene_name(seed: int, index: int) -> str:
    return f"synthetic_s{seed}_{index:05d}"


def compose(config: SceneConfig, seed: int, index: int) -> tuple[np.ndarray, Targets]:
    """Returns the parts of a scene before they are added and rounded, which gives the ground truth of the image.

    Args:
      config: parameters of the scenes.
      seed: seed of the data set; not negative.
      index: index of the scene in the data set; not negative.

    Returns:
      The scene without targets [H, W] float32 in [0, 1], noise included, and the targets in the same units.
    """
    # Three independent streams, so that changing the targets does not change the background, and vice versa.
    scene_rng, sensor_rng, target_rng = _generator(seed, index).spawn(3)
    psf_sigma = float(target_rng.uniform(*config.psf_sigma))
    radiance, distractors = clutter.render(scene_rng, config, psf_sigma)
    exposure, defects = clutter.expose(sensor_rng, config, radiance)
    avoid = np.concatenate([distractors, defects])
    return exposure, place_targets(target_rng, config, exposure, psf_sigma=psf_sigma, full_scale=1.0, avoid=avoid)


def synthesize(config: SceneConfig, seed: int, index: int) -> Example:
    """Generates one scene. The same arguments give the same bytes, independently of earlier calls.

    Args:
      config: parameters of the scenes.
      seed: seed of the data set; not negative.
      index: index of the scene in the data set; not negative.

    Returns:
      An example with a uint8 or uint16 image, the exact sub-pixel target positions and the target mask.

    Raises:
      UserError: if the seed or the index is negative.
    """
    scene, targets = compose(config, seed, index)
    dtype = config.dtype
    image = np.rint(np.clip(scene + targets.radiance, 0.0, 1.0) * np.iinfo(dtype).max).astype(dtype)
    return Example(_scene_name(seed, index), image, targets.points, targets.mask)


def _position(index: int, length: int) -> int:
    if not -length <= index < length:
        raise IndexError(f"example {index} of a source of {length}")
    return index % length


@dataclasses.dataclass(frozen=True)
class SyntheticSource:
    """Scenes 0 to num_examples - 1 of a seed, generated on access (an `irjax.types.Source`).

    Attributes:
      config: parameters of the scenes.
      seed: different seeds give unrelated scenes; use different ones for training, validation and test.
      num_examples: length of the source.
    """

    config: SceneConfig = SceneConfig()
    seed: int = 0
    num_examples: int = 1000

    def __post_init__(self) -> None:
        if self.num_examples < 0 or self.seed < 0:
            raise UserError(f"seed and num_examples must not be negative, got {self.seed} and {self.num_examples}")

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every scene, in order; `synthetic_s0_00042` is scene 42 of seed 0."""
        return tuple(_scene_name(self.seed, index) for index in range(self.num_examples))

    @property
    def dtype(self) -> np.dtype:
        """The type of every image."""
        return self.config.dtype

    def __len__(self) -> int:
        return self.num_examples

    def __getitem__(self, index: int) -> Example:
        return synthesize(self.config, self.seed, _position(index, self.num_examples))


def inject(example: Example, config: SceneConfig, rng: np.random.Generator) -> Example:
    """Adds synthetic targets to a real image, with peaks relative to the local clutter of that image.

    Args:
      example: an image of at least 32 x 32 px, uint8 or uint16, with or without targets of its own. Its points come
        first in the result; new targets keep `min_distance` from them and half of it from its mask.
      config: `targets`, `scr`, `scr_radius`, `min_contrast`, `psf_sigma`, `target_extent`, `min_distance`, `margin` and
        `mask_fraction` are used.
      rng: the source of all randomness.

    Returns:
      A new example of the same name, size and type. Its mask is the union of old and new, or None where the image had
      points without a mask.

    Raises:
      UserError: if the image is of another type, too small, or not two-dimensional.
    """
    image = example.image
    if image.ndim != 2 or min(image.shape) < 32 or image.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"{example.name}: injection needs a [H, W] uint8 or uint16 image of at least 32 x 32, "
            f"got {image.dtype} {image.shape}"
        )
    own = np.asarray(example.points, np.float32).reshape(-1, 2)
    discs = np.concatenate([own, np.full((len(own), 1), config.min_distance, np.float32)], axis=1)
    full_scale = float(np.iinfo(image.dtype).max)
    psf_sigma, scene = float(rng.uniform(*config.psf_sigma)), image.astype(np.float32)
    targets = place_targets(
        rng,
        config,
        scene,
        psf_sigma=psf_sigma,
        full_scale=full_scale,
        least_peak=max(config.min_contrast * float(scene.max() - scene.min()), 4.0),
        avoid=discs,
        occupied=example.mask,
    )
    mask = targets.mask if example.mask is None else targets.mask | example.mask
    return dataclasses.replace(
        example,
        image=np.rint(np.clip(scene + targets.radiance, 0.0, full_scale)).astype(image.dtype),
        points=np.concatenate([own, targets.points]),
        mask=None if example.mask is None and len(own) else mask,
    )


@dataclasses.dataclass(frozen=True)
class InjectedSource:
    """Real images with synthetic targets added (an `irjax.types.Source`).

    Attributes:
      backgrounds: real images; example i uses image i modulo their number.
      config: parameters of the targets; see `inject` for the fields that are used.
      seed: example i depends only on (seed, i) and on its background.
      num_examples: length of the source; None for the number of backgrounds.
    """

    backgrounds: Source
    config: SceneConfig = SceneConfig()
    seed: int = 0
    num_examples: int | None = None

    def __post_init__(self) -> None:
        if self.seed < 0 or (self.num_examples is not None and self.num_examples < 0):
            raise UserError(f"seed and num_examples must not be negative, got {self.seed} and {self.num_examples}")
        if len(self.backgrounds) == 0 and self.num_examples != 0:
            raise UserError("InjectedSource needs at least one background, got an empty source")

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every example, in order: that of its background, with the seed and the index."""
        own = self.backgrounds.names
        return tuple(f"{own[i % len(own)]}_injected_s{self.seed}_{i:05d}" for i in range(len(self)))

    @property
    def dtype(self) -> np.dtype:
        """The type that holds every image without loss: that of the backgrounds."""
        return self.backgrounds.dtype

    def __len__(self) -> int:
        return len(self.backgrounds) if self.num_examples is None else self.num_examples

    def __getitem__(self, index: int) -> Example:
        index = _position(index, len(self))
        background = self.backgrounds[index % len(self.backgrounds)]
        example = inject(background, self.config, purpose_generator("injected", self.seed, index))
        return dataclasses.replace(example, name=f"{background.name}_injected_s{self.seed}_{index:05d}")

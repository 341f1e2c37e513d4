"""Synthetic infrared scenes with exactly known point targets: what irjax runs on when no data are at hand.

A scene is made in the order in which a camera makes it: radiance of a background and of distractors, blur by the
optics, sensor noise and defects (all in `irjax.data.clutter`), then point targets through the same optics. A target
has a stated signal-to-clutter ratio (SCR):

    SCR = largest contribution of the target to any one pixel / local clutter
    local clutter = standard deviation of the scene without targets, noise included, in the square of
        2 * scr_radius + 1 px about the pixel nearest to the target, cut at the image border

`InjectedSource` puts the same targets into real images.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import scipy.special

from irjax.data import clutter
from irjax.errors import UserError
from irjax.ops.keys import purpose_generator
from irjax.types import Example, Source

# A target's Gaussian is cut where it is far below one level even of a 16-bit image.
_SUPPORT_SIGMAS = 6.0
_PLACEMENT_TRIES = 60


@dataclasses.dataclass(frozen=True)
class SceneConfig:
    """What scenes look like. Every (low, high) is a closed range, drawn from uniformly per scene or per target.

    Lengths are in px, radiances in fractions of the full scale (255 or 65535).

    Attributes:
      height: rows of a scene; at least 32.
      width: columns of a scene; at least 32.
      bits: 8 or 16, giving uint8 or uint16 images.
      targets: number of targets per scene. Fewer are placed where no room is left for them.
      scr: signal-to-clutter ratio of a target; the module's docstring defines it.
      scr_radius: half-side of the square in which local clutter is measured.
      min_contrast: least peak of a target injected into a real image, as a fraction of that image's range (brightest -
        darkest pixel), and never below 4 grey levels. In smooth skies, where the clutter deviation is near 0, it counts
        instead of scr. 98 of 100 targets of SIRST-v2 and NUDT-SIRST exceed their surroundings by 0.13 of the range.
      psf_sigma: standard deviation of the optics' Gaussian point spread function, drawn per scene.
      target_extent: standard deviation of the target's own extent, added in quadrature to psf_sigma, drawn per target.
      min_distance: least distance between two targets.
      margin: least distance of a target from the image border.
      mask_fraction: a pixel is in the mask where a target's contribution exceeds this fraction of its largest one.
      backgrounds: kinds drawn from with equal probability, out of cloud, sea, ground and urban.
      cloud_exponent: a of the 1/f^a power spectrum of cloud shapes.
      sea_exponent: a of the waves.
      ground_exponent: a of the ground's rough texture.
      urban_exponent: a of the texture of streets and walls.
      contrast: standard deviation of the background's radiance.
      level: mean of the background's radiance.
      distractors: number of distractors per scene (blobs, cloud fragments, bars, corners, glint crowds).
      distractor_amplitude: radiance of a distractor before the optics.
      defects: number of dead or hot pixels per scene.
      gain_noise: relative deviation of the pixels' gain.
      line_noise: deviation of the column offsets; row offsets get a random part of it.
      shot_noise: deviation of the shot noise at full scale; it falls with the root of the radiance.
      read_noise: deviation of the read noise.
    """

    height: int = 256
    width: int = 256
    bits: int = 8
    targets: tuple[int, int] = (0, 8)
    scr: tuple[float, float] = (3.0, 10.0)
    scr_radius: int = 10
    min_contrast: float = 0.08
    psf_sigma: tuple[float, float] = (0.65, 1.2)
    target_extent: tuple[float, float] = (0.0, 1.3)
    min_distance: float = 12.0
    margin: float = 3.0
    mask_fraction: float = 0.25
    backgrounds: tuple[str, ...] = ("cloud", "sea", "ground", "urban")
    cloud_exponent: tuple[float, float] = (2.8, 3.4)
    sea_exponent: tuple[float, float] = (1.8, 2.6)
    ground_exponent: tuple[float, float] = (2.2, 2.8)
    urban_exponent: tuple[float, float] = (2.0, 2.6)
    contrast: tuple[float, float] = (0.03, 0.09)
    level: tuple[float, float] = (0.2, 0.55)
    distractors: tuple[int, int] = (1, 6)
    distractor_amplitude: tuple[float, float] = (0.04, 0.2)
    defects: tuple[int, int] = (0, 3)
    gain_noise: tuple[float, float] = (0.0, 0.01)
    line_noise: tuple[float, float] = (0.0, 0.006)
    shot_noise: tuple[float, float] = (0.004, 0.015)
    read_noise: tuple[float, float] = (0.005, 0.012)

    def __post_init__(self):
        if self.bits not in (8, 16):
            raise UserError(f"SceneConfig.bits must be 8 or 16, got {self.bits}")
        if min(self.height, self.width) < 32:
            raise UserError(f"SceneConfig needs height and width of at least 32, got {self.height} and {self.width}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "backgrounds" or not isinstance(value, tuple):
                continue
            if len(value) != 2 or not 0 <= value[0] <= value[1]:
                raise UserError(f"SceneConfig.{field.name} must be (low, high) with 0 <= low <= high, got {value}")
        unknown = [kind for kind in self.backgrounds if kind not in clutter.BACKGROUNDS]
        if unknown or not self.backgrounds:
            known = ", ".join(clutter.BACKGROUNDS)
            raise UserError(f"SceneConfig.backgrounds must name some of {known}; got {self.backgrounds}")
        if self.psf_sigma[0] < 0.3:
            raise UserError(f"SceneConfig.psf_sigma must be at least 0.3 px, got {self.psf_sigma}")
        if not 0.0 < self.mask_fraction < 1.0:
            raise UserError(f"SceneConfig.mask_fraction must lie between 0 and 1, got {self.mask_fraction}")
        if self.scr_radius < 1 or not 0.0 <= self.margin < min(self.height, self.width) / 2:
            raise UserError(f"SceneConfig.scr_radius {self.scr_radius} or margin {self.margin} does not fit the scene")

    @property
    def dtype(self) -> np.dtype:
        """The type of the images: uint8 or uint16."""
        return np.dtype(np.uint8 if self.bits == 8 else np.uint16)


@dataclasses.dataclass(frozen=True)
class Targets:
    """Targets as they were placed into one image.

    Attributes:
      points: [K, 2] float32, (x, y) in px: the exact sub-pixel positions.
      scr: [K] float32, signal-to-clutter ratios as drawn; larger in effect where a least peak was asked for.
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
    """A point seen through a Gaussian point spread function, integrated over the area of each pixel.

    Args:
      x: column of the point in px.
      y: row of the point in px.
      sigma: standard deviation of the Gaussian in px.
      height: rows of the image, at which the patch is cut.
      width: columns of the image.

    Returns:
      The rows and columns the target covers, and its values there [h, w] float32, scaled to a largest value of 1.
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
    """Standard deviation of `image` [H, W] in the square of 2 * radius + 1 px about the pixel nearest to (x, y)."""
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
    """Whether (x, y) is far enough from the placed points, outside all discs [N, 3] and clear of occupied pixels."""
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
    """Draws targets and finds room for them in an image, without changing it.

    A position is refused where it is too near to another target, in a disc of `avoid`, near a pixel of `occupied`, or
    where the target would saturate; after 60 refusals the target is left out.

    Args:
      rng: the source of all randomness.
      config: counts, ratios, sizes and distances.
      image: [H, W] float32, the scene without the targets, in any units.
      psf_sigma: standard deviation of the optics in px.
      full_scale: the largest value an image can hold, in the units of `image`.
      least_peak: largest contribution of a target to one pixel where local clutter asks for less.
      avoid: [N, 3] (x, y, radius) in px, discs no target may lie in; None for none.
      occupied: [H, W] bool, pixels of targets that are there already; None for none.

    Returns:
      The placed targets.
    """
    height, width = image.shape
    discs = np.zeros((0, 3), np.float32) if avoid is None else avoid
    span = np.maximum(np.array([width, height]) - 1.0 - 2.0 * config.margin, 0.0)
    radiance, mask = np.zeros((height, width), np.float32), np.zeros((height, width), bool)
    points, ratios, sigmas = [], [], []
    for _ in range(int(rng.integers(config.targets[0], config.targets[1] + 1))):
        scr, sigma = rng.uniform(*config.scr), math.hypot(psf_sigma, rng.uniform(*config.target_extent))
        # Rounded to float32 first, so that the reported point is exactly where the target is.
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
    """The parts of a scene before they are added and rounded, for those who want the truth behind the image.

    Args:
      config: what scenes look like.
      seed: of the data set; not negative.
      index: of the scene in the data set; not negative.

    Returns:
      The scene without targets [H, W] float32 in [0, 1], noise included, and the targets in the same units.
    """
    # Three independent streams: other targets leave the background as it is, and the reverse.
    scene_rng, sensor_rng, target_rng = _generator(seed, index).spawn(3)
    psf_sigma = float(target_rng.uniform(*config.psf_sigma))
    radiance, distractors = clutter.render(scene_rng, config, psf_sigma)
    exposure, defects = clutter.expose(sensor_rng, config, radiance)
    avoid = np.concatenate([distractors, defects])
    return exposure, place_targets(target_rng, config, exposure, psf_sigma=psf_sigma, full_scale=1.0, avoid=avoid)


def synthesize(config: SceneConfig, seed: int, index: int) -> Example:
    """Makes one scene. The same arguments give the same bytes, whatever was made before.

    Args:
      config: what scenes look like.
      seed: of the data set; not negative.
      index: of the scene in the data set; not negative.

    Returns:
      An example with a uint8 or uint16 image, the exact sub-pixel target positions and the target mask.

    Raises:
      UserError: a negative seed or index.
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
    """Scenes 0 to num_examples - 1 of a seed, made when they are asked for (an `irjax.types.Source`).

    Attributes:
      config: what scenes look like.
      seed: another seed gives unrelated scenes: use different ones for training, validation and test.
      num_examples: length of the source.
    """

    config: SceneConfig = SceneConfig()
    seed: int = 0
    num_examples: int = 1000

    def __post_init__(self):
        if self.num_examples < 0 or self.seed < 0:
            raise UserError(f"seed and num_examples must not be negative, got {self.seed} and {self.num_examples}")

    @property
    def names(self) -> tuple[str, ...]:
        """`synthetic_s0_00042` is scene 42 of seed 0."""
        return tuple(_scene_name(self.seed, index) for index in range(self.num_examples))

    @property
    def dtype(self) -> np.dtype:
        """The type of every scene."""
        return self.config.dtype

    def __len__(self) -> int:
        return self.num_examples

    def __getitem__(self, index: int) -> Example:
        return synthesize(self.config, self.seed, _position(index, self.num_examples))


def inject(example: Example, config: SceneConfig, rng: np.random.Generator) -> Example:
    """Adds synthetic targets to a real image, with peaks from the local clutter of that image.

    Args:
      example: an image of at least 32 x 32 px, uint8 or uint16, with or without targets of its own. Its points stay
        first; new targets keep `min_distance` from them and half of it from its mask.
      config: `targets`, `scr`, `scr_radius`, `min_contrast`, `psf_sigma`, `target_extent`, `min_distance`, `margin` and
        `mask_fraction` are used.
      rng: the source of all randomness.

    Returns:
      A new example of the same name, size and type. Its mask is the union of old and new, or None where the image had
      points without a mask.

    Raises:
      UserError: the image is of another type, too small, or not two-dimensional.
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
      config: what targets look like; see `inject` for the fields that count.
      seed: example i is a function of (seed, i) and its background alone.
      num_examples: length; None for as many as there are backgrounds.
    """

    backgrounds: Source
    config: SceneConfig = SceneConfig()
    seed: int = 0
    num_examples: int | None = None

    def __post_init__(self):
        if self.seed < 0 or (self.num_examples is not None and self.num_examples < 0):
            raise UserError(f"seed and num_examples must not be negative, got {self.seed} and {self.num_examples}")
        if len(self.backgrounds) == 0 and self.num_examples != 0:
            raise UserError("InjectedSource needs at least one background, got an empty source")

    @property
    def names(self) -> tuple[str, ...]:
        """The background's name with the seed and the number of the example."""
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

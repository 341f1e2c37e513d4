"""Infrared clutter without targets: backgrounds, distractors, optics and sensor, in plain numpy.

Radiance is a float32 array [H, W] in fractions of the sensor's full scale. All randomness comes from the Generator
that is passed in, so a scene is a pure function of its seed. `irjax.data.synthetic` adds the targets.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
import scipy.fft
import scipy.ndimage

from irjax.errors import UserError

Generator = np.random.Generator
Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class SceneConfig:
    """Parameters of synthetic scenes. Each (low, high) is a closed range, sampled uniformly per scene or per target.

    Lengths are in px, radiances in fractions of the full scale (255 or 65535).

    Attributes:
      height: rows of a scene; at least 32.
      width: columns of a scene; at least 32.
      bits: 8 or 16, giving uint8 or uint16 images.
      targets: number of targets per scene; fewer are placed if there is no room left.
      scr: signal-to-clutter ratio of a target, as defined in `irjax.data.synthetic`.
      scr_radius: half-side of the square in which local clutter is measured.
      min_contrast: minimum peak of a target injected into a real image, as a fraction of that image's range (brightest
        minus darkest pixel), but never below 4 gray levels. It replaces scr in smooth skies, where the standard
        deviation of the clutter is near 0. 98 of 100 targets of SIRST-v2 and NUDT-SIRST exceed their surroundings by
        0.13 of the range.
      psf_sigma: standard deviation of the optics' Gaussian point spread function, drawn per scene.
      target_extent: standard deviation of the target's own extent, added in quadrature to psf_sigma, drawn per target.
      min_distance: minimum distance between two targets.
      margin: minimum distance of a target from the image border.
      mask_fraction: a pixel is in the mask where a target's contribution exceeds this fraction of its peak.
      backgrounds: kinds of background, drawn with equal probability, out of cloud, sea, ground and urban.
      cloud_exponent: exponent a of the 1/f^a power spectrum of cloud shapes.
      sea_exponent: exponent a of the waves.
      ground_exponent: exponent a of the ground's rough texture.
      urban_exponent: exponent a of the texture of streets and walls.
      contrast: standard deviation of the background's radiance.
      level: mean of the background's radiance.
      distractors: number of distractors per scene (blobs, cloud fragments, bars, corners, glint crowds).
      distractor_amplitude: radiance of a distractor before the optics.
      defects: number of dead or hot pixels per scene.
      gain_noise: relative standard deviation of the pixel gain.
      line_noise: standard deviation of the column offsets; row offsets get a random fraction of it.
      shot_noise: standard deviation of the shot noise at full scale; it scales with the square root of the radiance.
      read_noise: standard deviation of the read noise.
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

    def __post_init__(self) -> None:
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
        unknown = [kind for kind in self.backgrounds if kind not in BACKGROUNDS]
        if unknown or not self.backgrounds:
            known = ", ".join(BACKGROUNDS)
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


def _uniform(rng: Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * values)


def _either_sign(rng: Generator, limit: float) -> float:
    """Draws a number between -limit and limit, such as a slope, a tilt or an angle in radians."""
    return _uniform(rng, -limit, limit)


@functools.lru_cache(maxsize=8)
def _frequencies(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    fy = np.fft.fftfreq(height).astype(np.float32)[:, None]
    fx = np.fft.rfftfreq(width).astype(np.float32)[None, :]
    return fy, fx


def power_law_noise(
    rng: Generator, height: int, width: int, exponent: float, *, stretch: float = 1.0, angle: float = 0.0
) -> np.ndarray:
    """Draws Gaussian noise whose power spectrum falls as 1 / f^exponent, where f is an elliptical frequency.

    Args:
      rng: the source of the phases and amplitudes.
      height: rows.
      width: columns.
      exponent: exponent of the power spectrum; 0 gives white noise, natural clutter has about 2 to 3.5.
      stretch: ratio of the size of structures along `angle` to their size across it.
      angle: direction of the long axis in radians from the x axis towards the y axis.

    Returns:
      [height, width] float32 with mean 0 and standard deviation 1; periodic, since it is made by an inverse FFT.
    """
    fy, fx = _frequencies(height, width)
    along = (math.cos(angle) * fx + math.sin(angle) * fy) * np.float32(stretch)
    across = math.cos(angle) * fy - math.sin(angle) * fx
    squared = along * along + across * across
    squared[0, 0] = 1.0
    white = rng.standard_normal((height, fx.shape[1], 2), dtype=np.float32).view(np.complex64)[..., 0]
    white *= np.exp(np.float32(-0.25 * exponent) * np.log(squared))
    white[0, 0] = 0.0
    field = scipy.fft.irfft2(white, s=(height, width)).astype(np.float32, copy=False)
    field -= field.mean()
    field /= max(float(field.std()), 1e-6)
    return field


def _profile(rng: Generator, width: int, roughness: float) -> np.ndarray:
    """Draws a skyline, [width] float32: a random walk without its linear trend, of the given standard deviation."""
    walk = np.cumsum(rng.standard_normal(width, dtype=np.float32))
    walk -= np.linspace(walk[0], walk[-1], width, dtype=np.float32)
    return walk * np.float32(roughness / max(float(walk.std()), 1e-6))


def _rows(height: int) -> np.ndarray:
    return np.arange(height, dtype=np.float32)[:, None]


def _clear_sky(rng: Generator, height: int, width: int) -> np.ndarray:
    """Draws a sky whose radiance grows towards the horizon (longer path through the air), with thin, smooth haze."""
    down = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
    haze = power_law_noise(rng, height, width, 3.2, stretch=_uniform(rng, 1.0, 4.0))
    return _uniform(rng, 0.0, 0.9) * down + _uniform(rng, 0.0, 0.25) * haze


def cloud(rng: Generator, height: int, width: int, exponent: float) -> np.ndarray:
    """Draws clouds with sharp or soft edges on a sky gradient: [height, width] float32 of about unit contrast."""
    sky = _clear_sky(rng, height, width)
    shape = power_law_noise(rng, height, width, exponent, stretch=_uniform(rng, 1.0, 3.0), angle=_either_sign(rng, 0.3))
    texture = power_law_noise(rng, height, width, exponent - 0.7)
    opacity = _sigmoid((shape - _uniform(rng, -0.6, 1.4)) / _uniform(rng, 0.06, 0.5))
    return sky + opacity * (_uniform(rng, 0.8, 2.2) + 0.35 * shape + _uniform(rng, 0.1, 0.35) * texture)


def sea(rng: Generator, height: int, width: int, exponent: float) -> np.ndarray:
    """Draws waves with long horizontal crests that shorten towards a horizon, which may lie above the frame."""
    horizon = _uniform(rng, -0.5, 0.45) * height
    tilt = _uniform(rng, -0.03, 0.03)
    waves = power_law_noise(
        rng, height, width, exponent, stretch=_uniform(rng, 3.0, 7.0), angle=_either_sign(rng, 0.04)
    )
    swell = power_law_noise(rng, height, width, 3.0, stretch=_uniform(rng, 2.0, 5.0), angle=_either_sign(rng, 0.3))
    below = np.maximum(np.arange(height, dtype=np.float32) - np.float32(horizon), 0.0)
    # Perspective: equal steps on the water cover fewer rows the nearer they are to the horizon.
    depth = 0.3 * height
    source = 2.0 * depth * np.log1p(below / depth)
    lower = source.astype(np.int32)
    part = (source - lower)[:, None]
    water = (1.0 - part) * waves[lower % height] + part * waves[(lower + 1) % height]
    near = np.sqrt(np.clip(below / height, 0.02, 1.0))[:, None]
    water = _uniform(rng, 0.5, 1.1) * near * water + _uniform(rng, 0.2, 0.6) * swell
    sky = _clear_sky(rng, height, width) + _uniform(rng, -0.5, 2.5)
    columns = np.arange(width, dtype=np.float32)[None, :] - width / 2
    return sky + _sigmoid((_rows(height) - horizon - tilt * columns) / 0.4) * (water - sky)


def ground(rng: Generator, height: int, width: int, exponent: float) -> np.ndarray:
    """Draws fields of different emissivity with rough texture and roads; sometimes sky above a tree line."""
    regions = power_law_noise(rng, height, width, 3.6, stretch=_uniform(rng, 1.0, 2.5), angle=_either_sign(rng, 1.5))
    levels = rng.uniform(-1.2, 1.2, 4).astype(np.float32)
    scene = levels[np.digitize(regions, np.sort(rng.uniform(-1.2, 1.2, 3)))]
    rough = power_law_noise(rng, height, width, exponent)
    fine = power_law_noise(
        rng, height, width, exponent - 1.0, stretch=_uniform(rng, 1.0, 2.0), angle=_either_sign(rng, 1.5)
    )
    scene = scene + _uniform(rng, 0.3, 0.7) * rough + _uniform(rng, 0.1, 0.35) * fine * (1.0 + 0.5 * np.tanh(regions))
    for _ in range(int(rng.integers(0, 3))):
        _add_band(rng, scene, half_width=_uniform(rng, 0.8, 5.0), amplitude=_uniform(rng, -1.5, 2.0))
    if rng.random() < 0.4:
        tree_line = _uniform(rng, 0.1, 0.5) * height + _profile(rng, width, _uniform(rng, 1.0, 8.0))[None, :]
        sky = 0.7 * _clear_sky(rng, height, width) + _uniform(rng, -3.0, -0.5)
        scene = sky + _sigmoid((_rows(height) - tree_line) / 0.3) * (scene - sky)
    return scene


def _add_band(rng: Generator, scene: np.ndarray, *, half_width: float, amplitude: float, sag: float = 0.0) -> None:
    """Adds a straight or sagging band (road, wire, mast) across the whole scene, in place."""
    height, width = scene.shape
    angle = _uniform(rng, -0.6, 0.6)
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)
    centre = _uniform(rng, 0.1, 0.9) * height + math.tan(angle) * width * x + sag * (x * x)
    distance = np.abs(_rows(height) - centre[None, :].astype(np.float32)) * math.cos(angle)
    scene += np.float32(amplitude) * _sigmoid((half_width - distance) / 0.25)


def _add_building(rng: Generator, scene: np.ndarray, ground_row: float) -> None:
    """Adds a facade with a flat or pitched roof and a grid of windows, in place."""
    height, width = scene.shape
    wide, tall = (int(v) for v in rng.integers(18, 80, 2))
    left = int(rng.integers(-10, width - 8))
    top = max(int(ground_row) - tall + int(rng.integers(-5, 25)), 0)
    right, bottom = min(left + wide, width), min(top + tall + 60, height)
    left = max(left, 0)
    if bottom - top < 8 or right - left < 8:
        return
    wall = _uniform(rng, -0.8, 2.2)
    if rng.random() < 0.4:  # a pitched roof: a triangle on the wall
        rise = min(int(rng.integers(5, 16)), top)
        slope = np.abs(np.linspace(-1.0, 1.0, right - left, dtype=np.float32))[None, :]
        roof = _rows(rise) >= rise * slope
        scene[top - rise : top, left:right][roof] = wall + _uniform(rng, -0.8, 0.8)
    block = scene[top:bottom, left:right]
    block[...] = wall + 0.15 * block
    block[: int(rng.integers(1, 4))] += _uniform(rng, -0.5, 1.0)  # a parapet warmed by the sun
    pitch_x, pitch_y = int(rng.integers(6, 13)), int(rng.integers(7, 14))
    size_x, size_y = int(rng.integers(2, pitch_x - 2)), int(rng.integers(3, pitch_y - 2))
    inside_x = (np.arange(block.shape[1]) - 3) % pitch_x < size_x
    inside_y = (np.arange(block.shape[0]) - 5) % pitch_y < size_y
    inside_x[:3] = inside_x[-3:] = inside_y[:5] = False
    lights = rng.normal(_uniform(rng, -0.8, 0.8), 0.15, (block.shape[0] // pitch_y + 1, block.shape[1] // pitch_x + 1))
    spread = np.repeat(np.repeat(lights, pitch_y, axis=0), pitch_x, axis=1)[: block.shape[0], : block.shape[1]]
    block += (inside_y[:, None] & inside_x[None, :]) * spread.astype(np.float32)


def urban(rng: Generator, height: int, width: int, exponent: float) -> np.ndarray:
    """Draws buildings with windows and roofs in front of sky and street, with wires and masts."""
    street = _uniform(rng, 0.45, 0.85) * height
    far = street + _profile(rng, width, _uniform(rng, 2.0, 6.0))[None, :] - 0.1 * height
    sky = _clear_sky(rng, height, width) - _uniform(rng, 0.3, 2.0)
    texture = power_law_noise(rng, height, width, exponent)
    scene = sky + _sigmoid((_rows(height) - far) / 0.3) * (0.6 * texture - sky)
    for _ in range(int(rng.integers(3, 10))):
        _add_building(rng, scene, street)
    scene += _uniform(rng, 0.03, 0.15) * texture
    for _ in range(int(rng.integers(0, 4))):
        sag = _uniform(rng, -40.0, 80.0)
        _add_band(rng, scene, half_width=_uniform(rng, 0.2, 0.9), amplitude=_uniform(rng, 0.3, 1.5), sag=sag)
    for _ in range(int(rng.integers(0, 4))):
        column, top = int(rng.integers(0, width - 2)), int(_uniform(rng, 0.1, 0.6) * height)
        scene[top:, column : column + int(rng.integers(1, 3))] += _uniform(rng, 0.3, 1.2)
    return scene


# Each function takes (rng, height, width, exponent).
BACKGROUNDS: dict[str, Callable[[Generator, int, int, float], np.ndarray]] = {
    "cloud": cloud,
    "sea": sea,
    "ground": ground,
    "urban": urban,
}


def _window(scene: np.ndarray, x: float, y: float, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a view of the scene around (x, y), and the offsets of its columns [1, w] and rows [h, 1] from there."""
    height, width = scene.shape
    left, right = max(int(x - radius), 0), min(int(x + radius) + 2, width)
    top, bottom = max(int(y - radius), 0), min(int(y + radius) + 2, height)
    dx = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(x)
    dy = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(y)
    return scene[top:bottom, left:right], dx, dy


def _mixture(
    dx: np.ndarray, dy: np.ndarray, centres: np.ndarray, sigmas: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Returns a sum of axis-aligned Gaussians, [h, w]; centres and sigmas are [K, 2] as (x, y), weights [K]."""
    gx = np.exp(-0.5 * ((dx - centres[:, :1]) / sigmas[:, :1]) ** 2)
    gy = np.exp(-0.5 * ((dy.T - centres[:, 1:]) / sigmas[:, 1:]) ** 2)
    return ((weights[:, None] * gy).T @ gx).astype(np.float32)


def _blob(rng: Generator, scene: np.ndarray, x: float, y: float, amplitude: float) -> float:
    """Adds a warm body, far wider than any target (sigma 3.5 to 7 px, up to twice as long as wide)."""
    sigma, ratio, angle = _uniform(rng, 3.5, 7.0), _uniform(rng, 1.0, 2.0), _uniform(rng, 0.0, math.pi)
    view, dx, dy = _window(scene, x, y, 3.0 * sigma * ratio)
    along = (math.cos(angle) * dx + math.sin(angle) * dy) / (sigma * ratio)
    across = (math.cos(angle) * dy - math.sin(angle) * dx) / sigma
    half = 0.5 * (along * along + across * across)
    view += np.float32(amplitude) * np.exp(-(half ** np.float32(_uniform(rng, 1.0, 2.0))))
    return 2.0 * sigma


def _fragment(rng: Generator, scene: np.ndarray, x: float, y: float, amplitude: float) -> float:
    """Adds a ragged cloud fragment: several overlapping blobs, elongated as a whole."""
    count, angle = int(rng.integers(4, 8)), _uniform(rng, 0.0, math.pi)
    axis = np.array([math.cos(angle), math.sin(angle)])
    centres = np.linspace(-1.0, 1.0, count)[:, None] * axis * _uniform(rng, 5.0, 9.0) + rng.normal(0.0, 1.5, (count, 2))
    view, dx, dy = _window(scene, x, y, 18.0)
    sigmas, weights = rng.uniform(1.2, 2.6, (count, 2)), rng.uniform(0.4, 1.0, count)
    view += np.float32(amplitude) * _mixture(dx, dy, centres, sigmas, weights)
    return 12.0


def _bar(rng: Generator, scene: np.ndarray, x: float, y: float, amplitude: float) -> float:
    """Adds a piece of wire, mast or twig: thin, but 10 to 30 px long."""
    half, angle, width = _uniform(rng, 5.0, 15.0), _uniform(rng, 0.0, math.pi), _uniform(rng, 0.4, 0.9)
    view, dx, dy = _window(scene, x, y, half + 4.0)
    along = math.cos(angle) * dx + math.sin(angle) * dy
    across = math.cos(angle) * dy - math.sin(angle) * dx
    beyond = np.maximum(np.abs(along) - half, 0.0)
    view += np.float32(amplitude) * np.exp(-0.5 * (across * across + beyond * beyond) / (width * width))
    return half


def _corner(rng: Generator, scene: np.ndarray, x: float, y: float, amplitude: float) -> float:
    """Adds the corner of a building: a bright wedge that excites a top-hat filter at its tip and fades away from it."""
    view, dx, dy = _window(scene, x, y, 30.0)
    start, opening = _uniform(rng, 0.0, 2.0 * math.pi), _uniform(rng, 0.9, 1.9)
    first = math.cos(start) * dy - math.sin(start) * dx
    second = math.sin(start + opening) * dx - math.cos(start + opening) * dy
    fade = np.exp(-np.sqrt(dx * dx + dy * dy) / _uniform(rng, 6.0, 9.0))
    view += np.float32(amplitude) * _sigmoid(np.minimum(first, second) / 0.2) * fade
    return 10.0


def _glints(rng: Generator, scene: np.ndarray, x: float, y: float, amplitude: float) -> float:
    """Adds sun glitter: a group of short flat dashes, a few px apart, never a single round one."""
    count, reach_x, reach_y = int(rng.integers(12, 40)), _uniform(rng, 6.0, 14.0), _uniform(rng, 5.0, 14.0)
    centres = np.clip(rng.normal(0.0, 0.5, (count, 2)), -1.0, 1.0) * [reach_x, reach_y]
    view, dx, dy = _window(scene, x, y, max(reach_x, reach_y) + 8.0)
    sigmas = np.stack([rng.uniform(1.5, 3.0, count), rng.uniform(0.3, 0.5, count)], axis=1)
    view += np.float32(amplitude) * _mixture(dx, dy, centres, sigmas, rng.uniform(0.3, 1.0, count))
    return max(reach_x, reach_y)


# Each function takes (rng, scene, x, y, amplitude), adds a distractor in place and returns its radius in px.
DISTRACTORS: dict[str, Callable[[Generator, np.ndarray, float, float, float], float]] = {
    "blob": _blob,
    "fragment": _fragment,
    "bar": _bar,
    "corner": _corner,
    "glints": _glints,
}


def render(rng: Generator, config: SceneConfig, psf_sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Renders the radiance at the sensor: a background with distractors, blurred by the point spread function.

    Args:
      rng: the source of all randomness.
      config: sizes, exponents, levels and counts.
      psf_sigma: standard deviation of the Gaussian point spread function in px.

    Returns:
      Radiance [H, W] float32 in [0.02, 0.92], and discs [N, 3] float32 (x, y, radius) in px covered by distractors.
    """
    kind = str(rng.choice(config.backgrounds))
    scene = BACKGROUNDS[kind](rng, config.height, config.width, _uniform(rng, *getattr(config, f"{kind}_exponent")))
    scene -= scene.mean()
    scene *= np.float32(_uniform(rng, *config.contrast) / max(float(scene.std()), 1e-6))
    scene += np.float32(_uniform(rng, *config.level))
    names = list(DISTRACTORS)
    discs = []
    for _ in range(int(rng.integers(config.distractors[0], config.distractors[1] + 1))):
        x, y = _uniform(rng, 0.0, config.width - 1.0), _uniform(rng, 0.0, config.height - 1.0)
        amplitude = _uniform(rng, *config.distractor_amplitude)
        radius = DISTRACTORS[names[int(rng.integers(len(names)))]](rng, scene, x, y, amplitude)
        discs.append((x, y, radius))
    scene = scipy.ndimage.gaussian_filter(scene, psf_sigma, mode="nearest", truncate=3.0)
    return np.clip(scene, 0.02, 0.92, out=scene), np.asarray(discs, np.float32).reshape(-1, 3)


def expose(rng: Generator, config: SceneConfig, radiance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Adds fixed-pattern noise (gain and offset of pixels, rows, columns), shot and read noise and defective pixels.

    Args:
      rng: the source of all randomness.
      config: noise levels.
      radiance: [H, W] float32 in [0, 1].

    Returns:
      The exposure [H, W] float32 in [0, 1], and discs [N, 3] float32 (x, y, radius) around defective pixels.
    """
    height, width = radiance.shape
    gain = _uniform(rng, *config.gain_noise)
    lines = _uniform(rng, *config.line_noise)
    shot, read = _uniform(rng, *config.shot_noise), _uniform(rng, *config.read_noise)
    columns = rng.standard_normal((1, width), dtype=np.float32) * np.float32(lines)
    rows = rng.standard_normal((height, 1), dtype=np.float32) * np.float32(lines * rng.random())
    # The variances of independent Gaussian terms add up, so one draw covers gain, shot and read noise.
    deviation = np.sqrt(np.float32(read**2) + np.float32(shot**2) * radiance + np.float32(gain**2) * radiance**2)
    exposure = radiance + columns + rows + deviation * rng.standard_normal((height, width), dtype=np.float32)
    count = int(rng.integers(config.defects[0], config.defects[1] + 1))
    x, y = rng.integers(0, width, count), rng.integers(0, height, count)
    # Half of the defects are dead (dark), half are hot; each is one pixel, narrower than any point spread function.
    dead, hot = rng.uniform(0.0, 0.05, count), exposure[y, x] + rng.uniform(0.1, 0.6, count)
    exposure[y, x] = np.where(rng.random(count) < 0.5, dead, hot)
    discs = np.stack([x, y, np.full(count, 3.0)], axis=1).astype(np.float32).reshape(-1, 3)
    return np.clip(exposure, 0.0, 1.0, out=exposure), discs

"""Infrared clutter without targets: backgrounds, distractors, optics and sensor, in plain numpy.

Radiance is a float32 array [H, W] in fractions of the sensor's full scale. Everything random comes from the Generator
that is handed in, so that a scene is a pure function of its seed. `irjax.data.synthetic` puts targets into it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import scipy.fft
import scipy.ndimage

if TYPE_CHECKING:
    from irjax.data.synthetic import SceneConfig

Generator = np.random.Generator
Range = tuple[float, float]


def _uniform(rng: Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * values)


def _either_sign(rng: Generator, limit: float) -> float:
    """A number between -limit and limit: a slope, a tilt or an angle in radians."""
    return _uniform(rng, -limit, limit)


@functools.lru_cache(maxsize=8)
def _frequencies(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    fy = np.fft.fftfreq(height).astype(np.float32)[:, None]
    fx = np.fft.rfftfreq(width).astype(np.float32)[None, :]
    return fy, fx


def power_law_noise(
    rng: Generator, height: int, width: int, exponent: float, *, stretch: float = 1.0, angle: float = 0.0
) -> np.ndarray:
    """Gaussian noise whose power spectrum falls as 1 / f^exponent, where f is an elliptical frequency.

    Args:
      rng: the source of the phases and amplitudes.
      height: rows.
      width: columns.
      exponent: of the power spectrum; 0 is white, natural clutter lies at about 2 to 3.5.
      stretch: how many times longer structures are along `angle` than across it.
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
    """[width] float32, a random walk without its linear trend and of the given standard deviation: a skyline."""
    walk = np.cumsum(rng.standard_normal(width, dtype=np.float32))
    walk -= np.linspace(walk[0], walk[-1], width, dtype=np.float32)
    return walk * np.float32(roughness / max(float(walk.std()), 1e-6))


def _rows(height: int) -> np.ndarray:
    return np.arange(height, dtype=np.float32)[:, None]


def _clear_sky(rng: Generator, height: int, width: int) -> np.ndarray:
    """Sky radiance grows towards the horizon (longer path through the air); thin, very smooth haze on top."""
    down = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
    haze = power_law_noise(rng, height, width, 3.2, stretch=_uniform(rng, 1.0, 4.0))
    return _uniform(rng, 0.0, 0.9) * down + _uniform(rng, 0.0, 0.25) * haze


def cloud(rng: Generator, height: int, width: int, exponent: float) -> np.ndarray:
    """Clouds with crisp or soft rims before a sky gradient. Returns [height, width] float32 of about unit contrast."""
    sky = _clear_sky(rng, height, width)
    shape = power_law_noise(rng, height, width, exponent, stretch=_uniform(rng, 1.0, 3.0), angle=_either_sign(rng, 0.3))
    texture = power_law_noise(rng, height, width, exponent - 0.7)
    opacity = _sigmoid((shape - _uniform(rng, -0.6, 1.4)) / _uniform(rng, 0.06, 0.5))
    return sky + opacity * (_uniform(rng, 0.8, 2.2) + 0.35 * shape + _uniform(rng, 0.1, 0.35) * texture)


def sea(rng: Generator, height: int, width: int, exponent: float) -> np.ndarray:
    """Waves with long horizontal crests that shorten towards a horizon, which may lie above the frame."""
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
    """Fields of different emissivity with rough texture and roads; sometimes sky above a tree line."""
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
    """Buildings with windows and roofs before sky and street, with wires and masts."""
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


# Each takes (rng, height, width, exponent).
BACKGROUNDS: dict[str, Callable[[Generator, int, int, float], np.ndarray]] = {
    "cloud": cloud,
    "sea": sea,
    "ground": ground,
    "urban": urban,
}


def _window(scene: np.ndarray, x: float, y: float, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A view of the scene about (x, y), and the offsets of its columns [1, w] and rows [h, 1] from that point."""
    height, width = scene.shape
    left, right = max(int(x - radius), 0), min(int(x + radius) + 2, width)
    top, bottom = max(int(y - radius), 0), min(int(y + radius) + 2, height)
    dx = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(x)
    dy = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(y)
    return scene[top:bottom, left:right], dx, dy


def _mixture(dx, dy, centres, sigmas, weights) -> np.ndarray:
    """Sum of axis-aligned Gaussians, [h, w]: centres and sigmas are [K, 2] as (x, y), weights [K]."""
    gx = np.exp(-0.5 * ((dx - centres[:, :1]) / sigmas[:, :1]) ** 2)
    gy = np.exp(-0.5 * ((dy.T - centres[:, 1:]) / sigmas[:, 1:]) ** 2)
    return ((weights[:, None] * gy).T @ gx).astype(np.float32)


def _blob(rng: Generator, scene: np.ndarray, x: float, y: float, amplitude: float) -> float:
    """A warm body far wider than any target (sigma 3.5 to 7 px, up to twice as long as wide)."""
    sigma, ratio, angle = _uniform(rng, 3.5, 7.0), _uniform(rng, 1.0, 2.0), _uniform(rng, 0.0, math.pi)
    view, dx, dy = _window(scene, x, y, 3.0 * sigma * ratio)
    along = (math.cos(angle) * dx + math.sin(angle) * dy) / (sigma * ratio)
    across = (math.cos(angle) * dy - math.sin(angle) * dx) / sigma
    half = 0.5 * (along * along + across * across)
    view += np.float32(amplitude) * np.exp(-(half ** np.float32(_uniform(rng, 1.0, 2.0))))
    return 2.0 * sigma


def _fragment(rng: Generator, scene: np.ndarray, x: float, y: float, amplitude: float) -> float:
    """A ragged scrap of cloud: several overlapping lumps, elongated as a whole."""
    count, angle = int(rng.integers(4, 8)), _uniform(rng, 0.0, math.pi)
    axis = np.array([math.cos(angle), math.sin(angle)])
    centres = np.linspace(-1.0, 1.0, count)[:, None] * axis * _uniform(rng, 5.0, 9.0) + rng.normal(0.0, 1.5, (count, 2))
    view, dx, dy = _window(scene, x, y, 18.0)
    sigmas, weights = rng.uniform(1.2, 2.6, (count, 2)), rng.uniform(0.4, 1.0, count)
    view += np.float32(amplitude) * _mixture(dx, dy, centres, sigmas, weights)
    return 12.0


def _bar(rng: Generator, scene: np.ndarray, x: float, y: float, amplitude: float) -> float:
    """A piece of wire, mast or twig: thin, but 10 to 30 px long."""
    half, angle, width = _uniform(rng, 5.0, 15.0), _uniform(rng, 0.0, math.pi), _uniform(rng, 0.4, 0.9)
    view, dx, dy = _window(scene, x, y, half + 4.0)
    along = math.cos(angle) * dx + math.sin(angle) * dy
    across = math.cos(angle) * dy - math.sin(angle) * dx
    beyond = np.maximum(np.abs(along) - half, 0.0)
    view += np.float32(amplitude) * np.exp(-0.5 * (across * across + beyond * beyond) / (width * width))
    return half


def _corner(rng: Generator, scene: np.ndarray, x: float, y: float, amplitude: float) -> float:
    """The corner of a building: a bright wedge whose sharp tip excites a top-hat filter, fading away from the tip."""
    view, dx, dy = _window(scene, x, y, 30.0)
    start, opening = _uniform(rng, 0.0, 2.0 * math.pi), _uniform(rng, 0.9, 1.9)
    first = math.cos(start) * dy - math.sin(start) * dx
    second = math.sin(start + opening) * dx - math.cos(start + opening) * dy
    fade = np.exp(-np.sqrt(dx * dx + dy * dy) / _uniform(rng, 6.0, 9.0))
    view += np.float32(amplitude) * _sigmoid(np.minimum(first, second) / 0.2) * fade
    return 10.0


def _glints(rng: Generator, scene: np.ndarray, x: float, y: float, amplitude: float) -> float:
    """Sun glitter: a crowd of short flat dashes, a few px from each other, never a lone round one."""
    count, reach_x, reach_y = int(rng.integers(12, 40)), _uniform(rng, 6.0, 14.0), _uniform(rng, 5.0, 14.0)
    centres = np.clip(rng.normal(0.0, 0.5, (count, 2)), -1.0, 1.0) * [reach_x, reach_y]
    view, dx, dy = _window(scene, x, y, max(reach_x, reach_y) + 8.0)
    sigmas = np.stack([rng.uniform(1.5, 3.0, count), rng.uniform(0.3, 0.5, count)], axis=1)
    view += np.float32(amplitude) * _mixture(dx, dy, centres, sigmas, rng.uniform(0.3, 1.0, count))
    return max(reach_x, reach_y)


# Each takes (rng, scene, x, y, amplitude), adds to the scene in place and returns its radius in px.
DISTRACTORS: dict[str, Callable[[Generator, np.ndarray, float, float, float], float]] = {
    "blob": _blob,
    "fragment": _fragment,
    "bar": _bar,
    "corner": _corner,
    "glints": _glints,
}


def render(rng: Generator, config: SceneConfig, psf_sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """What the optics put on the sensor: a background with distractors, blurred by the point spread function.

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
    """The sensor: fixed pattern (gain and offset of pixels, rows and columns), shot and read noise, defective pixels.

    Args:
      rng: the source of all randomness.
      config: noise levels.
      radiance: [H, W] float32 in [0, 1].

    Returns:
      The exposure [H, W] float32 in [0, 1], and discs [N, 3] float32 (x, y, radius) about defective pixels.
    """
    height, width = radiance.shape
    gain = _uniform(rng, *config.gain_noise)
    lines = _uniform(rng, *config.line_noise)
    shot, read = _uniform(rng, *config.shot_noise), _uniform(rng, *config.read_noise)
    columns = rng.standard_normal((1, width), dtype=np.float32) * np.float32(lines)
    rows = rng.standard_normal((height, 1), dtype=np.float32) * np.float32(lines * rng.random())
    # Independent Gaussian terms of one pixel add in variance, so one draw stands for gain, shot and read noise.
    deviation = np.sqrt(np.float32(read**2) + np.float32(shot**2) * radiance + np.float32(gain**2) * radiance**2)
    exposure = radiance + columns + rows + deviation * rng.standard_normal((height, width), dtype=np.float32)
    count = int(rng.integers(config.defects[0], config.defects[1] + 1))
    x, y = rng.integers(0, width, count), rng.integers(0, height, count)
    # Half of the defects are dead (dark), half are hot; each is one pixel, narrower than any point spread function.
    dead, hot = rng.uniform(0.0, 0.05, count), exposure[y, x] + rng.uniform(0.1, 0.6, count)
    exposure[y, x] = np.where(rng.random(count) < 0.5, dead, hot)
    discs = np.stack([x, y, np.full(count, 3.0)], axis=1).astype(np.float32).reshape(-1, 3)
    return np.clip(exposure, 0.0, 1.0, out=exposure), discs

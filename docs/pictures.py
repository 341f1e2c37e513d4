"""Draws the pictures of the documentation, all of synthetic scenes: `python docs/pictures.py`, two minutes on a CPU."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageColor

import irjax
from irjax.data.synthetic import SceneConfig, SyntheticSource
from irjax.layers.gaussian_pinwheel import window
from irjax.losses.scale import VARIANTS, scale_weight
from irjax.metrics.inputs import PointPredictions
from irjax.ops.patches import expand_mask
from irjax.reports.comparison import Example, Shown, draw_examples
from irjax.reports.curves import COLOURS, figure_of, tidy
from irjax.reports.drawing import PREDICTED_COLOUR
from irjax.reports.events import FALSE, HIT, MISS
from irjax.reports.figures import save_figure
from irjax.targets import prps, relevance

OUT = pathlib.Path(__file__).parent / "images"
SCENES = SyntheticSource(
    SceneConfig(targets=(3, 4), scr=(6.0, 14.0), backgrounds=("cloud", "ground", "sea")), seed=26, num_examples=14
)
METHODS = {"SPIRE": "spire-sirst", "MSHNet": "mshnet-sirst", "ADSNet": "adsnet-sirst", "Na-IRSTD": "na-irstd-sirst"}


def palette() -> Image.Image:
    """Returns grays, the colours of surfaces, and those of lines and markers."""
    marks = [*COLOURS, *(kind.colour for kind in (HIT, MISS, FALSE)), PREDICTED_COLOUR]
    colours = [[gray] * 3 for gray in range(0, 256, 3)]
    colours += [[int(255 * part) for part in colormaps["viridis"](share)[:3]] for share in np.linspace(0, 1, 128)]
    colours += [list(ImageColor.getrgb(colour)) for colour in marks]
    image = Image.new("P", (1, 1))
    image.putpalette([part for colour in colours for part in colour])
    return image


def shrink(name: str) -> None:
    """Writes a picture again with few colours, a third of the bytes."""
    with Image.open(OUT / name) as picture:
        small = picture.convert("RGB").quantize(palette=palette(), dither=Image.Dither.NONE)
    small.save(OUT / name, optimize=True)


def save(figure: Any, name: str) -> None:
    """Saves a picture for the documentation."""
    save_figure(figure, OUT / name, dpi=90)
    shrink(name)


def row(titles: Sequence[str], pictures: Sequence[Any], draw: Callable[[Any, int], None] = lambda axes, index: None):
    """Returns a figure of pictures side by side."""
    figure = figure_of(2.4 * len(pictures), 2.7)
    for index, (axes, title, picture) in enumerate(
        zip(np.atleast_1d(figure.subplots(1, len(pictures))), titles, pictures, strict=True)
    ):
        axes.imshow(picture, cmap="gray", interpolation="none", vmin=0, vmax=1 if np.max(picture) <= 1 else None)
        axes.set(xticks=[], yticks=[])
        axes.set_title(title, fontsize=9)
        draw(axes, index)
    return figure


def compare() -> None:
    """All four methods on one scene."""
    scene = SCENES[4]
    shown = {}
    for title, name in METHODS.items():
        detector = irjax.load(name)
        response = detector.respond(scene.image)
        found = response.detections(detector.config.threshold)
        valid = found.valid[0]
        points = PointPredictions(found.points[0][valid], found.scores[0][valid])
        shown[title] = Shown(points, response.values, None)
    mask = None if scene.mask is None else scene.mask > 0
    draw_examples(OUT / "methods.png", [Example("", scene.image, scene.points, mask, shown, 5.0, True)])
    shrink("methods.png")


def spire() -> None:
    """Targets of SPIRE, and what its network responds with."""
    scene = SCENES[2]
    image = jnp.asarray(scene.image, jnp.float32)[None] / 255
    points = jnp.asarray(scene.points, jnp.float32)[None]
    forms = [
        prps(image, points, jnp.ones(points.shape[:2], bool), form=form)[0] for form in ("impulse", "gaussian", "prps")
    ]
    response = irjax.load("spire-sirst").respond(scene.image).values
    titles = ["image", "impulse", "Gaussian", "PRPS", "spire-sirst responds"]
    save(row(titles, [scene.image, *forms, response]), "spire.png")


def kept(method: str) -> None:
    """The patches that a network computes, of the same scene."""
    scene = SCENES[2]
    detector = irjax.load(METHODS[method])
    levels = detector.kept_patches(scene.image)
    pictures = [scene.image, *(scene.image * (0.25 + 0.75 * level) for level in levels)]
    titles = ["image", *(f"kept: {level.mean():.0%}" for level in levels)]
    if method == "Na-IRSTD":
        soft = relevance(jnp.asarray(scene.mask)[None] > 0)[0]
        pictures.append(np.asarray(expand_mask(soft[None], 32)[0, ..., 0]))
        titles.append("relevance of the truth")
    pictures.append(detector(scene.image).masks[0])
    titles.append("probability")

    def rings(axes: Any, index: int) -> None:
        if index < len(pictures) - 1:
            axes.plot(*scene.points.T, "o", markersize=11, markerfacecolor="none", markeredgecolor=COLOURS[1])

    save(row(titles, pictures, rings), f"{method.lower()}.png")


def scale_loss() -> None:
    """Weights of the IoU against the predicted area, and the windows of the attention's kernels."""
    figure = figure_of(9.6, 3.0)
    left, *rest = figure.subplots(1, 4, width_ratios=(2.2, 1, 1, 1))
    area, true = np.linspace(0.5, 100, 400), 36.0
    for colour, variant in zip(COLOURS, VARIANTS, strict=False):
        weight = [float(scale_weight(jnp.float32(a), jnp.float32(true), variant)) for a in area]
        left.plot(area, weight, color=colour, label=variant)
    left.set(xlabel="predicted area in pixels, of a target of 36", ylabel="weight of the IoU", ylim=(0, 1.02))
    left.legend(frameon=False, fontsize=8)
    tidy(left)
    kinds = {
        "Gaussian": ("gaussian", 0.0),
        "pinwheel": ("gaussian_pinwheel", 0.0),
        "rotated": ("gaussian_pinwheel", 25.0),
    }
    for axes, (title, (kind, angle)) in zip(rest, kinds.items(), strict=True):
        axes.imshow(window(kind, jnp.log(1.5), jnp.deg2rad(angle)), cmap="viridis", interpolation="none")
        axes.set(xticks=[], yticks=[])
        axes.set_title(title, fontsize=9)
    save(figure, "mshnet.png")


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    compare()
    spire()
    kept("ADSNet")
    kept("Na-IRSTD")
    scale_loss()
    for path in sorted(OUT.glob("*.png")):
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")

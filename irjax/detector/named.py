"""The detector of whatever a command's ``--model`` names: weights, a run, an exported file or a filter."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from irjax.baselines import BASELINES, customary_threshold, decode_response, detect
from irjax.detector.canvases import CanvasDetector, Response
from irjax.detector.hub import is_on_hub
from irjax.detector.inference import cell_of
from irjax.detector.limits import MOST, Limits, Run
from irjax.detector.loading import load
from irjax.detector.onnx import Runtime, load_onnx
from irjax.errors import UsageError
from irjax.io.arrays import as_gray_images
from irjax.types import Array, Detections

DEFAULT_LIMIT = 32
_SPLIT = 0.5  # `irjax.baselines.common.as_probability` puts any threshold of responses there


@dataclasses.dataclass(frozen=True, eq=False)
class Named:
    """A detector and how it was named.

    Attributes:
      name: name or path.
      run: ``(images [H, W], max_detections) -> Detections``.
      threshold: what pixels of the masks are above where they are targets, and scores of points at least.
      detector: the network's detector; None for a filter.
    """

    name: str
    run: Run
    threshold: float
    detector: CanvasDetector | None = None

    def within(self, max_detections: int | None = None) -> Limits:
        """Returns a function of images that notes what limits cut and shrink; None raises the limit where needed."""
        limits: dict[str, Any] = {"limit": max_detections or DEFAULT_LIMIT, "fixed": max_detections is not None}
        if self.detector is not None:
            config = self.detector.config
            limits |= {"most": (config.size // cell_of(config)) ** 2, "side": 0 if config.slide else config.size}
        return Limits(self.run, **limits)

    def respond(self, image: np.ndarray) -> Response:
        """Responds to one image [H, W]; of a filter, thresholds of the response are shares as `share_threshold` says.

        Raises:
          UserError: if the image cannot be used.
        """
        if self.detector is not None:
            return self.detector.respond(image)
        (array,) = as_gray_images(image)
        values = np.asarray(_respond(self.name, array[None]))

        def detections(share: float) -> Detections:
            found = _decode_response(values, share_threshold(values[0], share), max_detections=min(MOST, array.size))
            return jax.tree.map(np.asarray, found)

        return Response(values[0], detections)


def share_threshold(values: np.ndarray, share: float) -> float:
    """Returns the threshold of a filter's response [H, W] that is a share of the way from its mean to its maximum.

    A half is the threshold by default, `irjax.baselines.customary_threshold`.
    """
    return float(customary_threshold(jnp.asarray(values[None]), share)[0])


_decode_response = functools.partial(jax.jit, static_argnames="max_detections")(decode_response)


@functools.partial(jax.jit, static_argnums=0)
def _respond(name: str, images: Array) -> Array:
    return BASELINES[name](images)


def open_named(
    name: str | os.PathLike, *, threshold: float | None = None, runtime: Runtime | None = None, **overrides: Any
) -> Named:
    """Opens a detector.

    Args:
      name: what `irjax.load` takes, a file of ``irjax export --to onnx``, or one of `irjax.baselines.BASELINES`.
      threshold: lowest score of a detection; None for the model's own.
      runtime: what runs an exported file; None for onnxruntime.
      **overrides: as of `irjax.load`; not for a filter.

    Raises:
      UsageError: if something given does not go with this model.
      UserError: if it cannot be loaded; the message names it.
    """
    name = os.fspath(name)
    exported = pathlib.Path(name).suffix == ".onnx" and not is_on_hub(name)
    if runtime and not exported:
        raise UsageError(f"--runtime goes with a file of irjax export --to onnx, not with {name}")
    if name in BASELINES:
        if "size" in overrides or "slide" in overrides:
            flag = "--size" if "size" in overrides else "--native"
            raise UsageError(f"{flag}: {name} works at the images' own size")
        return Named(name, functools.partial(_filter, name, threshold), _SPLIT)
    detector = load_onnx(name, runtime or "onnxruntime", **overrides) if exported else load(name, **overrides)
    level = detector.config.threshold if threshold is None else threshold

    def run(images: Sequence[np.ndarray], limit: int) -> Detections:
        return detector(list(images), threshold=level, max_detections=limit)

    return Named(name, run, level, detector)


def _filter(name: str, threshold: float | None, images: Sequence[np.ndarray], limit: int) -> Detections:
    """Runs a filter on images of any sizes, one by one."""
    found: list[Any] = [detect(name, image[None], threshold, max_detections=min(limit, image.size)) for image in images]
    number = max(one.valid.shape[1] for one in found)
    wide = lambda x: np.pad(x, [(0, 0), (0, number - x.shape[1]), *[(0, 0)] * (x.ndim - 2)])  # noqa: E731
    joined: Any = jax.tree.map(lambda *parts: np.concatenate([wide(np.asarray(x)) for x in parts]),
                          *(one.replace(masks=None) for one in found))  # fmt: skip
    return joined.replace(masks=tuple(np.asarray(one.masks[0]) for one in found))

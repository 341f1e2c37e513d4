"""The `Detector` class: weights and configuration, for images of any size and type."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from irjax.detector import programs
from irjax.detector.canvases import CanvasDetector
from irjax.detector.inference import network_inputs, predict, run_network
from irjax.errors import UserError
from irjax.io.arrays import as_gray_images
from irjax.methods import registry
from irjax.methods.detector_config import DetectorConfig
from irjax.ops.patches import expand_mask
from irjax.types import Array, Detections


@dataclasses.dataclass(frozen=True, eq=False)
class Detector(CanvasDetector):
    """Weights and configuration, applied to images of any size and type.

    Attributes:
      config: how to run the network.
      variables: its weights.
      batch_size: largest number of images in one run of the network. Batches are padded to powers of two up to it, so
        the network is traced only once for each of these few sizes, whatever the sizes of the images.
    """

    config: DetectorConfig
    variables: Mapping[str, Any]
    batch_size: int = 16

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"batch_size must be at least 1, got {self.batch_size}")
        # Done once, so that calls do not copy them to the device again.
        object.__setattr__(self, "variables", jax.device_put(self.variables))

    @functools.cached_property
    def module(self) -> nn.Module:
        """The network; call ``module.apply(variables, normalised images [B, H, W, C])``."""
        return self.config.module()

    def folded(self) -> Detector:
        """Returns a detector with normalisations folded into the convolutions; predictions are equal up to rounding.

        Na-IRSTD's backbone also has its parallel branches merged. The weights are for prediction only.

        Raises:
          UserError: if they are folded already.
        """
        variables, options = registry.fold_variables(self.config.method, self.variables)
        config = dataclasses.replace(self.config, model={**self.config.model, **options})
        return dataclasses.replace(self, config=config, variables=variables)

    def predict_fn(
        self, variables: Mapping[str, Any], images: Array, *, threshold: Array | float | None = None
    ) -> Detections:
        """Applies `predict` with this detector's configuration; a pure function for other JAX code."""
        return predict(self.config, variables, images, threshold=threshold)

    @functools.cached_property
    def _networks(self) -> dict[int, Callable[..., Array]]:
        """The network as functions of the variables and a number of canvases."""
        return {}

    def _network(self, number: int) -> Callable[..., Array]:
        def run(variables: Mapping[str, Any], canvases: Array) -> Array:
            return run_network(self.config, variables, canvases)[0]

        if number not in self._networks:
            canvases = jax.ShapeDtypeStruct((number, self.config.size, self.config.size), jnp.float32)
            shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self.variables)
            self._networks[number] = programs.network(self.config, run, shapes, canvases)
        return self._networks[number]

    def maps(self, canvases: np.ndarray) -> Array:
        """Runs the network on canvases, padded to one of a few numbers; see `CanvasDetector.maps`."""
        bucket = min(1 << (len(canvases) - 1).bit_length(), self.batch_size)
        canvases = np.pad(canvases, ((0, bucket - len(canvases)), (0, 0), (0, 0)))
        return self._network(bucket)(self.variables, canvases)

    def kept_patches(self, image: np.ndarray) -> np.ndarray:
        """Returns the patches in which a network that drops patches computed, as maps over the image.

        Args:
          image: [H, W], as for a call.

        Returns:
          [L, H, W] float32, one map for each time that the network drops patches: 1 in kept patches, 0 in dropped ones;
          intermediate values where overlapping windows disagree or the image was resized.

        Raises:
          UserError: if the image cannot be used, or the network drops no patches.
        """
        return np.clip(self.inner_maps(image, _kept_pixels), 0.0, 1.0)

    def inner_maps(
        self, image: np.ndarray, inside: Callable[[nn.Module, Mapping[str, Any], Array], Array]
    ) -> np.ndarray:
        """Returns maps of internal values of the network over a whole image.

        Args:
          image: [H, W], as for a call.
          inside: pure, ``(module, variables, inputs [B, S, S, C]) -> [B, L, S, S]``; traced once for each function.

        Returns:
          [L, H, W] float32, averaged where windows overlap.

        Raises:
          UserError: if the image cannot be used.
        """
        (array,) = as_gray_images(image)
        canvases = np.stack([canvas for canvas, _, _ in self.pieces(array)]).astype(np.float32)
        maps = np.concatenate([np.asarray(self._inner(inside, self.variables, canvas[None])) for canvas in canvases])
        return np.stack([self._join(iter(maps[:, level]), array.shape) for level in range(maps.shape[1])])

    @functools.cached_property
    def _inner(self) -> Any:
        def run(inside: Callable[..., Array], variables: Mapping[str, Any], canvases: Array) -> Array:
            return inside(self.module, variables, network_inputs(self.config, canvases))

        return jax.jit(run, static_argnums=0)


def _kept_pixels(module: nn.Module, variables: Mapping[str, Any], inputs: Array) -> Array:
    """Returns which patches a network keeps, at every pixel."""
    outputs = module.apply(variables, inputs, train=False)
    kept = getattr(outputs, "kept", getattr(outputs, "selected", ()))
    if not kept:
        raise UserError(f"{type(module).__name__} drops no patches")
    return jnp.stack([expand_mask(patches, inputs.shape[1] // patches.shape[1])[..., 0] for patches in kept], axis=1)

"""Detection in images: from pixels of any size and type to points in those images.

`predict` is a pure function for other JAX code; `Detector` holds weights, takes images as they come, and calls it in a
jitted form; `load` makes a `Detector` from shipped weights, a run directory or a published checkpoint.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from irjax.data.images import MIN_SIDE, to_gray
from irjax.layers.norm import BatchNorm
from irjax.models import registry
from irjax.ops.components import decode_mask
from irjax.ops.letterbox import letterbox, letterbox_affine, letterbox_host, unletterbox, unletterbox_host
from irjax.ops.normalize import NORMALIZATIONS, normalize, to_unit
from irjax.ops.peaks import decode_heatmap
from irjax.ops.regions import find_regions
from irjax.types import Array, Detections, SegmentationLogits

CONFIG_FILE = "detector.json"

Images = Array | Sequence[Array]


@dataclasses.dataclass(frozen=True)
class DetectorConfig:
    """Everything about a detector but its weights; saved beside them as JSON.

    Attributes:
      method: name in `irjax.models.registry`.
      model: fields of the method's module that differ from its defaults, as JSON values.
      size: side S of the letterboxed square in pixels; a multiple of what the network needs.
      channels: input channels of the network, 1 or 3 equal ones.
      normalization: name in `irjax.ops.normalize`.
      threshold: lowest score of a detection, exclusive; of a segmentation network, lowest probability of its pixels.
      max_detections: N, the most points an image can have.
      relative_threshold: see `irjax.ops.peaks.decode_heatmap`.

    Raises:
      ValueError: if a value is out of its range.
    """

    method: str = "spire"
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    size: int = 512
    channels: int = 1
    normalization: str = "unit"
    threshold: float = 0.35
    max_detections: int = 32
    relative_threshold: float | None = None

    def __post_init__(self) -> None:
        module = self.module()
        stride = getattr(module, "stride", 1)
        multiple = getattr(module, "multiple", stride)
        if self.size < MIN_SIDE or self.size % multiple:
            raise ValueError(f"size must be a multiple of {multiple} and at least {MIN_SIDE}, got {self.size}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {self.channels}")
        if self.normalization not in NORMALIZATIONS:
            raise ValueError(f"normalization must be one of {NORMALIZATIONS}, got {self.normalization!r}")
        if not 1 <= self.max_detections <= (self.size // stride) ** 2:
            raise ValueError(f"max_detections must be in 1..{(self.size // stride) ** 2}, got {self.max_detections}")

    def module(self) -> nn.Module:
        """The network, without weights."""
        return registry.build(self.method, **self.model)

    def to_json(self) -> str:
        """All fields as a JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=2, default=lambda value: jnp.dtype(value).name)

    @classmethod
    def from_json(cls, text: str, where: str = "detector configuration") -> DetectorConfig:
        """The inverse of `to_json`; fields that are absent keep their defaults.

        Args:
          text: a JSON object.
          where: what to call it in errors, such as a file's name.

        Raises:
          ValueError: if the text is no JSON object, or has unknown keys or values out of range.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{where} must be a JSON object, got {type(values).__name__}")
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"{where} has unknown keys {unknown}; known: {[f.name for f in dataclasses.fields(cls)]}")
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from error


# --- pure functions ---------------------------------------------------------------------------------------------------


def run_network(config: DetectorConfig, variables: Mapping[str, Any], canvases: Array) -> tuple[Array, bool]:
    """Runs the network on letterboxed images; pure.

    Args:
      config: static.
      variables: of ``config.module()``.
      canvases: [B, S, S] float32 in [0, 1].

    Returns:
      Target probabilities [B, S, S] and True of a segmentation network; heatmaps [B, S / s, S / s] and False else.
    """
    inputs = normalize(canvases, config.normalization, config.channels)
    output = config.module().apply(variables, inputs, train=False)
    if isinstance(output, SegmentationLogits):
        return jax.nn.sigmoid(output.logits), True
    return output, False


def _decode_heatmaps(config: DetectorConfig, heatmaps: Array, threshold: Array | float) -> Detections:
    return decode_heatmap(
        heatmaps,
        threshold=threshold,
        max_detections=config.max_detections,
        stride=config.module().stride,
        relative_threshold=config.relative_threshold,
    )


def predict(
    config: DetectorConfig, variables: Mapping[str, Any], images: Array, *, threshold: Array | float | None = None
) -> Detections:
    """Detects targets in images of one size: letterbox, network, decoding and the way back; pure.

    For use under `jax.jit`, `jax.vmap` and `jax.grad`: scores are differentiable with respect to images and variables,
    points and validity are not.

    Args:
      config: static.
      variables: of ``config.module()``.
      images: [B, H, W], [B, H, W, 1] or [H, W], floating point in [0, 1] (not checked: values are traced); uint8 and
        uint16 are scaled.
      threshold: replaces the configured one; may be traced.

    Returns:
      Detections in pixels of `images`: points [B, N, 2], scores [B, N], valid [B, N], without the batch axis if
      `images` had none. A point of a heatmap may lie up to one cell outside the image. Of a segmentation network also
      masks [B, H, W], the target probabilities; points are the centroids of their 8-connected regions above the
      threshold, scores the highest probability of each.

    Raises:
      ValueError: at tracing, if the images have another rank or type, a side below 16 pixels, or none are given.
    """
    images = to_unit(jnp.asarray(images))
    if images.ndim == 2:
        single = predict(config, variables, images[None], threshold=threshold)
        return jax.tree.map(lambda x: x[0], single)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim != 3:
        raise ValueError(f"images must be [B, H, W], [B, H, W, 1] or [H, W], got shape {images.shape}")
    batch, height, width = images.shape
    if batch == 0 or min(height, width) < MIN_SIDE:
        raise ValueError(f"images must be at least one, of at least {MIN_SIDE}x{MIN_SIDE} pixels, got {images.shape}")
    threshold = config.threshold if threshold is None else threshold
    output, is_mask = run_network(config, variables, letterbox(images, config.size))
    if is_mask:
        maps = jnp.clip(unletterbox(output, height, width), 0.0, 1.0)
        return decode_mask(maps, threshold=threshold, max_detections=min(config.max_detections, height * width))
    found = _decode_heatmaps(config, output, threshold)
    scale, offset = letterbox_affine(height, width, config.size)
    return to_image(config, found, jnp.asarray(scale, jnp.float32), jnp.asarray(offset, jnp.float32))


def to_image(config: DetectorConfig, found: Detections, scale: Array, offset: Array) -> Detections:
    """Detections in canvas pixels to image pixels; those in the letterbox's padding are dropped.

    Args:
      config: static.
      found: points [B, N, 2], scores [B, N], valid [B, N] in canvas pixels.
      scale: [2] or [B, 1, 2] from `irjax.ops.letterbox.letterbox_affine`.
      offset: likewise.

    Returns:
      Detections of the same shape, valid ones first, by falling score.

    Note:
      A point may lie up to one heatmap cell outside the image, since it was rounded to a cell. The published program
      keeps points further out, too.
    """
    cell = config.module().stride
    inside = (found.points >= offset - cell) & (found.points <= config.size - 1 - offset + cell)
    valid = found.valid & jnp.all(inside, axis=-1)
    order = jnp.argsort(~valid, axis=-1, stable=True)
    points = jnp.where(valid[..., None], (found.points - offset) / scale, 0.0)
    return Detections(
        points=jnp.take_along_axis(points, order[..., None], axis=-2),
        scores=jnp.take_along_axis(jnp.where(valid, found.scores, 0.0), order, axis=-1),
        valid=jnp.take_along_axis(valid, order, axis=-1),
    )


def fold_batch_norm(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Moves the scale of every batch normalisation into the convolution before it, for inference.

    The structure stays, so the same module takes the result: each norm is left with its shift alone.

    Args:
      variables: ``{"params": ..., "batch_stats": ...}`` in which a convolution ``conv`` stands beside its ``norm``.

    Returns:
      New variables with equal outputs (to rounding) for ``train=False``; not meant for training.
    """

    def fold(params: Mapping[str, Any], stats: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        new_params, new_stats = dict(params), dict(stats)
        if "conv" in params and "norm" in params:
            norm, running = params["norm"], stats["norm"]
            factor = norm["scale"] / jnp.sqrt(running["var"] + BatchNorm.epsilon)
            ones = jnp.ones_like(factor)
            new_params["conv"] = {**params["conv"], "kernel": params["conv"]["kernel"] * factor}
            new_params["norm"] = {"scale": ones, "bias": norm["bias"] - running["mean"] * factor}
            new_stats["norm"] = {"mean": jnp.zeros_like(factor), "var": ones - BatchNorm.epsilon}
        for name in params:
            if name not in ("conv", "norm") and name in stats:
                new_params[name], new_stats[name] = fold(params[name], stats[name])
        return new_params, new_stats

    params, stats = fold(variables["params"], variables["batch_stats"])
    return {**variables, "params": params, "batch_stats": stats}


# --- the detector -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Detector:
    """Weights and configuration, ready for images as they come.

    Attributes:
      config: how to run the network.
      variables: its weights.
      batch_size: the most images in one run of the network. Batches are padded to powers of two up to it, so the
        network is traced once for each of these few sizes, whatever the sizes of the images.
    """

    config: DetectorConfig
    variables: Mapping[str, Any]
    batch_size: int = 16

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        # Once, so that calls do not carry them to the device again.
        object.__setattr__(self, "variables", jax.tree.map(jnp.asarray, self.variables))

    @functools.cached_property
    def module(self) -> nn.Module:
        """The network; ``module.apply(variables, normalised images [B, H, W, C])``."""
        return self.config.module()

    def predict_fn(
        self, variables: Mapping[str, Any], images: Array, *, threshold: Array | float | None = None
    ) -> Detections:
        """Pure function for other JAX code: `predict` with this detector's configuration."""
        return predict(self.config, variables, images, threshold=threshold)

    @functools.cached_property
    def _run(self) -> Any:
        def run(
            variables: Mapping[str, Any], canvases: Array, scale: Array, offset: Array, threshold: Array
        ) -> Detections | Array:
            output, is_mask = run_network(self.config, variables, canvases)
            if is_mask:
                return output
            found = _decode_heatmaps(self.config, output, threshold)
            return to_image(self.config, found, scale[:, None], offset[:, None])

        return jax.jit(run)

    def __call__(self, images: Images, *, threshold: float | None = None) -> Detections:
        """Detects targets.

        Args:
          images: one image [H, W], several of one size [B, H, W] or [B, H, W, C] with C = 1, 3 (RGB) or 4 (RGBA, alpha
            ignored), or a list of 2-D images of any sizes; uint8, uint16 or floating point in [0, 1]. Colours become
            Rec. 601 luma.
          threshold: replaces the configured one for this call.

        Returns:
          Detections as numpy arrays in pixels of each original image: points [B, N, 2], scores [B, N], valid [B, N];
          B = 1 for one image. A point of a heatmap may lie up to one cell outside its image. Of a segmentation network
          also masks, the target probabilities: [B, H, W], or a tuple of B arrays [H, W] where sizes differ.

        Raises:
          ValueError: if there is no image, one is smaller than 16 pixels, has another type, or is floating point with
            NaN or values outside [0, 1] (the message gives its index); for a 3-D array whose last axis is 3 or 4,
            which could mean several gray images or one in colour; for any other rank.
        """
        arrays = as_gray_images(images)
        tau = np.float32(self.config.threshold if threshold is None else threshold)
        # Dispatch is asynchronous: the next chunk is letterboxed here while the device works on this one.
        found = [
            self._detect_chunk(arrays[start : start + self.batch_size], tau)
            for start in range(0, len(arrays), self.batch_size)
        ]
        parts = [jax.tree.map(lambda x, n=count: np.asarray(x)[:n], part) for part, count in found]
        if isinstance(parts[0], Detections):
            return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        maps = (canvas for part in parts for canvas in part)
        return _decode_masks(maps, [array.shape for array in arrays], float(tau), self.config.max_detections)

    def _detect_chunk(self, images: Sequence[np.ndarray], threshold: np.float32) -> tuple[Detections | Array, int]:
        """What `_run` gives for at most `batch_size` images, padded to a bucket, and the number of images."""
        size, count = self.config.size, len(images)
        bucket = min(1 << (count - 1).bit_length(), self.batch_size)
        canvases = np.zeros((bucket, size, size), np.float32)
        scale, offset = np.ones((bucket, 2), np.float32), np.zeros((bucket, 2), np.float32)
        for i, image in enumerate(images):
            canvases[i] = unit_range(image if image.shape == (size, size) else letterbox_host(image, size))
            scale[i], offset[i] = letterbox_affine(*image.shape, size)
        return self._run(self.variables, canvases, scale, offset, threshold), count


def _decode_masks(
    canvases: Iterable[np.ndarray], sizes: Sequence[tuple[int, int]], threshold: float, number: int
) -> Detections:
    """As `irjax.ops.components.decode_mask`, on the host: images of many sizes would be many programs.

    Args:
      canvases: B probability maps [S, S].
      sizes: (height, width) of each image.
      threshold: of the pixels.
      number: N.
    """
    points, scores = np.zeros((len(sizes), number, 2), np.float32), np.zeros((len(sizes), number), np.float32)
    valid, maps = np.zeros((len(sizes), number), bool), []
    for index, (canvas, size) in enumerate(zip(canvases, sizes, strict=True)):
        maps.append(np.clip(unletterbox_host(canvas, *size), 0.0, 1.0))
        regions = find_regions(maps[-1] > threshold)
        peaks = regions.peaks(maps[-1])
        order = np.argsort(-peaks, kind="stable")[:number]
        count = len(order)
        points[index, :count], scores[index, :count] = regions.centroids[order], peaks[order]
        valid[index, :count] = True
    same = len(set(sizes)) == 1
    return Detections(points, scores, valid, np.stack(maps) if same else tuple(maps))


def unit_range(image: np.ndarray) -> np.ndarray:
    """uint8 / 255, uint16 / 65535 or floating point as it is: float32 of the same shape, on the host."""
    if np.issubdtype(image.dtype, np.integer):
        return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    return image.astype(np.float32)


def as_gray_images(images: Images) -> list[np.ndarray]:
    """The images of a `Detector` call as a list of checked 2-D arrays; arguments and errors as there."""
    if isinstance(images, str | os.PathLike):
        raise ValueError(f"images must be arrays; read {os.fspath(images)!r} with irjax.data.images.read_image")
    if isinstance(images, list | tuple):
        arrays = [np.asarray(image) for image in images]
        for i, array in enumerate(arrays):
            if array.ndim != 2:
                raise ValueError(f"a list must hold 2-D images, number {i} has shape {array.shape}")
    else:
        arrays = _split(np.asarray(images))
    if not arrays:
        raise ValueError("no images were given")
    for i, array in enumerate(arrays):
        _check(array, i)
    return [to_gray(array) for array in arrays]


def _split(array: np.ndarray) -> list[np.ndarray]:
    """One array as a list of [H, W] or [H, W, C]."""
    if array.ndim == 2:
        return [array]
    if array.ndim == 3 and array.shape[-1] in (3, 4):
        raise ValueError(
            f"an array of shape {array.shape} could be one colour image or several gray ones; "
            "put an axis in front for one colour image, [1, H, W, C], or give a list of 2-D images"
        )
    if array.ndim == 4 and array.shape[-1] not in (1, 3, 4):
        raise ValueError(f"images [B, H, W, C] must have 1, 3 or 4 channels, got shape {array.shape}")
    if array.ndim not in (3, 4):
        raise ValueError(f"images must be [H, W], [B, H, W], [B, H, W, C] or a list of [H, W], got shape {array.shape}")
    return list(array)


def _check(image: np.ndarray, index: int) -> None:
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise ValueError(f"image {index} is {height}x{width} pixels; at least {MIN_SIDE}x{MIN_SIDE} is wanted")
    if image.dtype in (np.uint8, np.uint16):
        return
    # jnp's test: bfloat16 is floating point to JAX but not to numpy.
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(f"image {index} has type {image.dtype}; uint8, uint16 or floating point in [0, 1] is wanted")
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):  # also where they are NaN
        raise ValueError(f"image {index} is floating point with values from {low:g} to {high:g}; [0, 1] is wanted")


# --- loading ----------------------------------------------------------------------------------------------------------


def load(name_or_path: str | os.PathLike, **overrides: Any) -> Detector:
    """A detector with trained weights.

    Args:
      name_or_path: the name of shipped weights (`irjax.weights.names`), a run directory (its best checkpoint), a
        ``.safetensors`` file written by irjax, or a published PyTorch checkpoint (``.pth``, ``.pt``; taken as SPIRE's
        unless ``method`` says otherwise: 512 pixels, 3 channels, ImageNet normalisation, threshold 0.35).
      **overrides: fields of `DetectorConfig` to change, such as ``threshold=0.5`` or ``size=640``.

    Returns:
      The detector.

    Raises:
      FileNotFoundError: if a path does not exist or a directory is no run.
      ValueError: if a name is unknown (the known ones are listed), an override is no field of `DetectorConfig`, or the
        weights are not those of the configured network.
    """
    from irjax import weights

    fields = [field.name for field in dataclasses.fields(DetectorConfig)]
    unknown = sorted(set(overrides) - set(fields))
    if unknown:
        raise ValueError(f"unknown options {unknown}; a detector has {fields}")
    path = _resolve(name_or_path, weights.names())
    if path.is_dir():
        config, variables = _load_run(path)
    elif path.suffix == ".safetensors":
        variables, config, _ = weights.load_weights(path)
    elif path.suffix in (".pth", ".pt"):
        from irjax import convert

        method = overrides.get("method", DetectorConfig.method)
        variables = convert.from_torch(method, path)
        config = DetectorConfig(method=method, **convert.published_settings(method, variables))
    else:
        raise ValueError(f"{path} is neither a run directory nor a .safetensors, .pth or .pt file")
    config = dataclasses.replace(config, **overrides)
    check_variables(config, variables, os.fspath(path))
    return Detector(config, variables)


def _resolve(name_or_path: str | os.PathLike, shipped: Mapping[str, pathlib.Path]) -> pathlib.Path:
    """The file or directory that is meant; a shipped name wins over a relative path of one part."""
    text = os.fspath(name_or_path)
    if text in shipped:
        return shipped[text]
    path = pathlib.Path(text).expanduser()
    if path.exists():
        return path
    if path.suffix or len(path.parts) > 1:
        raise FileNotFoundError(f"no file or directory {text}")
    known = ", ".join(shipped) or "none in this installation"
    raise ValueError(f"{text!r} is neither the name of shipped weights ({known}) nor an existing path")


def _load_run(directory: pathlib.Path) -> tuple[DetectorConfig, Mapping[str, Any]]:
    file = directory / CONFIG_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{directory} is no run directory: it has no {CONFIG_FILE}")
    config = DetectorConfig.from_json(file.read_text(encoding="utf-8"), os.fspath(file))
    from irjax.training import checkpoints

    return config, checkpoints.load_variables(directory, which="best")


def check_variables(config: DetectorConfig, variables: Mapping[str, Any], where: str) -> None:
    """Raises ValueError, naming the first differences, unless the variables are those of the configured network."""
    images = jnp.zeros((1, config.size, config.size, config.channels))
    template = jax.eval_shape(config.module().init, jax.random.key(0), images)
    wanted = {path: leaf.shape for path, leaf in flax.traverse_util.flatten_dict(template, sep="/").items()}
    given = flax.traverse_util.flatten_dict({"params": {}, "batch_stats": {}, **variables}, sep="/")
    shapes = {path: np.shape(leaf) for path, leaf in given.items()}
    names = [path for path in sorted({*wanted, *shapes}) if wanted.get(path) != shapes.get(path)]
    if names:
        found = [f"{n}: {shapes.get(n, 'absent')}, wanted {wanted.get(n, 'absent')}" for n in names[:4]]
        raise ValueError(
            f"{where}: not the weights of {config.method} with {config.channels} channels and options "
            f"{dict(config.model)}; {len(names)} of {len(wanted)} differ: {'; '.join(found)}"
        )

"""Detection in images: from pixels of any size and type to points in those images.

`predict` is a pure function for other JAX code; `Detector` holds weights, takes images as they come, and calls it in a
jitted form; `load` makes a `Detector` from shipped weights, a run directory or a published checkpoint.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from irjax.data.arrays import Images, as_gray_images, unit_range
from irjax.data.images import MIN_SIDE
from irjax.detector_config import CONFIG_FILE, DetectorConfig
from irjax.errors import MissingFileError, UserError, reading
from irjax.models import registry
from irjax.ops.components import decode_mask
from irjax.ops.letterbox import letterbox, letterbox_affine, letterbox_host, unletterbox
from irjax.ops.normalize import normalize, to_unit
from irjax.ops.patches import expand_mask
from irjax.ops.peaks import decode_heatmap
from irjax.ops.regions import find_regions
from irjax.ops.windows import cut_windows, join_windows, overlap_of, restore_map, window_origins
from irjax.types import Array, Detections

# --- pure functions ---------------------------------------------------------------------------------------------------


def network_inputs(config: DetectorConfig, canvases: Array) -> Array:
    """What the network sees of canvases [B, S, S], as they are stored or in [0, 1]: [B, S, S, C] float32; pure."""
    return normalize(to_unit(canvases), config.normalization, config.channels)


def run_network(config: DetectorConfig, variables: Mapping[str, Any], canvases: Array) -> tuple[Array, bool]:
    """Runs the network on letterboxed images; pure.

    Args:
      config: static.
      variables: of ``config.module()``.
      canvases: [B, S, S] float32 in [0, 1].

    Returns:
      Target probabilities [B, S, S] and True of a segmentation network; heatmaps [B, S / s, S / s] and False else.
    """
    output = config.module().apply(variables, network_inputs(config, canvases), train=False)
    if hasattr(output, "logits"):
        return jax.nn.sigmoid(output.logits), True
    return output, False


_WINDOWS = 8  # windows of one image in one run of the network


def _run_windows(config: DetectorConfig, variables: Mapping[str, Any], images: Array) -> Array:
    """Target probabilities [B, H, W] of images [B, H, W] that windows cover."""
    windows = cut_windows(images, config.size, overlap_of(config.size))
    flat = windows.reshape(-1, *windows.shape[-2:])
    maps = jax.lax.map(lambda w: run_network(config, variables, w[None])[0][0], flat, batch_size=_WINDOWS)
    return join_windows(maps.reshape(windows.shape), *images.shape[-2:], overlap_of(config.size))


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
      UserError: at tracing, if the images have another rank or type, a side below 16 pixels, or none are given.
    """
    images = to_unit(jnp.asarray(images))
    if images.ndim == 2:
        single = predict(config, variables, images[None], threshold=threshold)
        return jax.tree.map(lambda x: x[0], single)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim != 3:
        raise UserError(f"images must be [B, H, W], [B, H, W, 1] or [H, W], got shape {images.shape}")
    batch, height, width = images.shape
    if batch == 0 or min(height, width) < MIN_SIDE:
        raise UserError(f"images must be at least one, of at least {MIN_SIDE}x{MIN_SIDE} pixels, got {images.shape}")
    threshold = config.threshold if threshold is None else threshold
    if config.slide:
        output, is_mask = _run_windows(config, variables, images), True
    else:
        output, is_mask = run_network(config, variables, letterbox(images, config.size, config.enlarge))
    if is_mask:
        maps = output if config.slide else unletterbox(output, height, width, config.enlarge)
        maps = jnp.clip(maps, 0.0, 1.0)  # interpolation and means of windows can leave [0, 1] by a rounding
        return decode_mask(maps, threshold=threshold, max_detections=min(config.max_detections, height * width))
    found = _decode_heatmaps(config, output, threshold)
    scale, offset = letterbox_affine(height, width, config.size, config.enlarge)
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
            raise UserError(f"batch_size must be at least 1, got {self.batch_size}")
        # Once, so that calls do not carry them to the device again.
        object.__setattr__(self, "variables", jax.tree.map(jnp.asarray, self.variables))

    @functools.cached_property
    def module(self) -> nn.Module:
        """The network; ``module.apply(variables, normalised images [B, H, W, C])``."""
        return self.config.module()

    def folded(self) -> Detector:
        """A detector that predicts the same, to rounding, with normalisations folded into the convolutions.

        Na-IRSTD's backbone loses its parallel branches, too. The weights are for prediction only.

        Raises:
          UserError: if they are folded already.
        """
        variables, options = registry.fold(self.config.method, self.variables)
        config = dataclasses.replace(self.config, model={**self.config.model, **options})
        return dataclasses.replace(self, config=config, variables=variables)

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
          UserError: if there is no image, one is smaller than 16 pixels, has another type, or is floating point with
            NaN or values outside [0, 1] (the message gives its index); for a 3-D array whose last axis is 3 or 4,
            which could mean several gray images or one in colour; for any other rank.
        """
        arrays = as_gray_images(images)
        tau = np.float32(self.config.threshold if threshold is None else threshold)
        pieces = (piece for array in arrays for piece in self._pieces(array))
        chunks = self._outputs(pieces, tau)
        first = next(chunks)
        chunks = itertools.chain([first], chunks)
        if isinstance(first, Detections):
            return jax.tree.map(lambda *leaves: np.concatenate(leaves), *chunks)
        canvases = itertools.chain.from_iterable(chunks)
        # Interpolation and means of windows can leave [0, 1] by a rounding.
        maps = [np.clip(self._join(canvases, array.shape), 0.0, 1.0) for array in arrays]
        return _decode_maps(maps, float(tau), self.config.max_detections)

    def _outputs(
        self, pieces: Iterator[tuple[np.ndarray, ...]], threshold: np.float32
    ) -> Iterator[Detections | np.ndarray]:
        """What `_run` gives for the pieces, on the host, chunk by chunk.

        Dispatch is asynchronous: while the device works on a chunk, the next is letterboxed here. As soon as that is
        dispatched, the earlier one is fetched, so that the device holds the outputs of two chunks at most.
        """
        running = None
        while chunk := list(itertools.islice(pieces, self.batch_size)):
            before, running = running, (self._run_chunk(chunk, threshold), len(chunk))
            if before is not None:
                yield _fetched(*before)
                del before
        yield _fetched(*running)

    def kept(self, image: np.ndarray) -> np.ndarray:
        """Where a network that drops patches computed.

        Args:
          image: [H, W], as for a call.

        Returns:
          [L, H, W] float32, for each of the network's masks of patches: 1 in kept patches, 0 in dropped ones, between
          where windows overlap and do not agree or the image was resized.

        Raises:
          UserError: if the image cannot be used, or the network drops no patches.
        """
        return np.clip(self.look(image, _kept_pixels), 0.0, 1.0)

    def look(self, image: np.ndarray, inside: Callable[[nn.Module, Mapping[str, Any], Array], Array]) -> np.ndarray:
        """Maps of anything inside the network, over a whole image.

        Args:
          image: [H, W], as for a call.
          inside: pure, ``(module, variables, inputs [B, S, S, C]) -> [B, L, S, S]``; traced once for each function.

        Returns:
          [L, H, W] float32, averaged where windows overlap.

        Raises:
          UserError: if the image cannot be used.
        """
        (array,) = as_gray_images(image)
        canvases = np.stack([canvas for canvas, _, _ in self._pieces(array)]).astype(np.float32)
        maps = np.concatenate([np.asarray(self._look(inside, self.variables, canvas[None])) for canvas in canvases])
        return np.stack([self._join(iter(maps[:, level]), array.shape) for level in range(maps.shape[1])])

    @functools.cached_property
    def _look(self) -> Any:
        def run(inside: Callable[..., Array], variables: Mapping[str, Any], canvases: Array) -> Array:
            return inside(self.module, variables, network_inputs(self.config, canvases))

        return jax.jit(run, static_argnums=0)

    def _pieces(self, image: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """What the network sees of an image: canvases [S, S] in [0, 1], each with its letterbox's scale and offset."""
        size, enlarge = self.config.size, self.config.enlarge
        if self.config.slide:
            for window in cut_windows(image, size, overlap_of(size)):
                yield unit_range(window), np.ones(2), np.zeros(2)
            return
        canvas = image if image.shape == (size, size) else letterbox_host(image, size, enlarge)
        yield unit_range(canvas), *letterbox_affine(*image.shape, size, enlarge)

    def _run_chunk(self, pieces: Sequence[tuple[np.ndarray, ...]], threshold: np.float32) -> Detections | Array:
        """What `_run` gives for at most `batch_size` pieces, padded to a bucket."""
        bucket = min(1 << (len(pieces) - 1).bit_length(), self.batch_size)
        canvases, scale, offset = (np.stack(part).astype(np.float32) for part in zip(*pieces, strict=True))
        missing = bucket - len(pieces)
        canvases = np.pad(canvases, ((0, missing), (0, 0), (0, 0)))
        scale, offset = (np.pad(part, ((0, missing), (0, 0)), constant_values=1) for part in (scale, offset))
        return self._run(self.variables, canvases, scale, offset, threshold)

    def _join(self, canvases: Iterator[np.ndarray], size: tuple[int, int]) -> np.ndarray:
        """The map [H, W] of one image from the next of the canvases [S, S]."""
        config = self.config
        number = len(window_origins(*size, config.size, overlap_of(config.size))) if config.slide else 1
        maps = np.stack(list(itertools.islice(canvases, number)))
        return restore_map(maps, *size, enlarge=config.enlarge, slide=config.slide)


def _fetched(output: Detections | Array, count: int) -> Detections | np.ndarray:
    """The first rows of what `Detector._run` gave, on the host; the others are padding."""
    # Copies: on the CPU `asarray` is a view, which keeps the device's array.
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:count].copy(), output)


def _kept_pixels(module: nn.Module, variables: Mapping[str, Any], inputs: Array) -> Array:
    """A network's masks of patches, at every pixel."""
    masks = getattr(module.apply(variables, inputs, train=False), "masks", ())
    if not masks:
        raise UserError(f"{type(module).__name__} drops no patches")
    return jnp.stack([expand_mask(mask, inputs.shape[1] // mask.shape[1])[..., 0] for mask in masks], axis=1)


def _decode_maps(maps: Sequence[np.ndarray], threshold: float, number: int) -> Detections:
    """As `irjax.ops.components.decode_mask`, on the host: images of many sizes would be many programs.

    Args:
      maps: B target probabilities [H, W], of any sizes.
      threshold: of the pixels.
      number: N.
    """
    points, scores = np.zeros((len(maps), number, 2), np.float32), np.zeros((len(maps), number), np.float32)
    valid = np.zeros((len(maps), number), bool)
    for index, one in enumerate(maps):
        regions = find_regions(one > threshold)
        peaks = regions.peaks(one)
        order = np.argsort(-peaks, kind="stable")[:number]
        count = len(order)
        points[index, :count], scores[index, :count] = regions.centroids[order], peaks[order]
        valid[index, :count] = True
    same = len({one.shape for one in maps}) == 1
    return Detections(points, scores, valid, np.stack(maps) if same else tuple(maps))


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
      MissingFileError: if a path does not exist or a directory is no run.
      UserError: if a name is unknown (the known ones are listed), an override is no field of `DetectorConfig`, or the
        weights are not those of the configured network.
    """
    fields = [field.name for field in dataclasses.fields(DetectorConfig)]
    unknown = sorted(set(overrides) - set(fields))
    if unknown:
        raise UserError(f"unknown options {unknown}; a detector has {fields}")
    path = resolve(name_or_path)
    if path.is_dir():
        config, variables = _load_run(path)
    elif path.suffix == ".safetensors":
        from irjax import weights

        variables, config, _ = weights.load_weights(path)
    elif path.suffix in (".pth", ".pt"):
        from irjax import convert

        method = overrides.get("method", DetectorConfig.method)
        variables = convert.from_torch(method, path)
        config = DetectorConfig(method=method, **convert.published_settings(method, variables))
    else:
        raise UserError(f"{path} is neither a run directory nor a .safetensors, .pth or .pt file")
    config = dataclasses.replace(config, **overrides)
    check_variables(config, variables, os.fspath(path))
    return Detector(config, variables)


def resolve(name_or_path: str | os.PathLike) -> pathlib.Path:
    """The file or directory that `load` takes; a shipped name wins over a relative path of one part.

    Raises:
      MissingFileError: if a path does not exist.
      UserError: if a name is unknown; the known ones are listed.
    """
    from irjax import weights

    text, shipped = os.fspath(name_or_path), weights.names()
    if text in shipped:
        return shipped[text]
    path = pathlib.Path(text).expanduser()
    with reading(path):  # a name can be too long
        if path.exists():
            return path
    if path.suffix or len(path.parts) > 1:
        raise MissingFileError(f"no file or directory {text}")
    known = ", ".join(shipped) or "none in this installation"
    raise UserError(f"{text!r} is neither the name of shipped weights ({known}) nor an existing path")


def _load_run(directory: pathlib.Path) -> tuple[DetectorConfig, Mapping[str, Any]]:
    file = directory / CONFIG_FILE
    if not file.is_file():
        raise MissingFileError(f"{directory} is no run directory: it has no {CONFIG_FILE}")
    with reading(file):
        text = file.read_text(encoding="utf-8")
    config = DetectorConfig.from_json(text, os.fspath(file))
    from irjax.training import checkpoints

    return config, checkpoints.load_variables(directory, which="best")


def check_variables(config: DetectorConfig, variables: Mapping[str, Any], where: str) -> None:
    """Raises UserError, naming the first differences, unless the variables are those of the configured network."""
    images = jnp.zeros((1, config.size, config.size, config.channels))
    template = jax.eval_shape(config.module().init, jax.random.key(0), images)
    wanted = {path: leaf.shape for path, leaf in flax.traverse_util.flatten_dict(template, sep="/").items()}
    given = flax.traverse_util.flatten_dict({"params": {}, "batch_stats": {}, **variables}, sep="/")
    shapes = {path: np.shape(leaf) for path, leaf in given.items()}
    names = [path for path in sorted({*wanted, *shapes}) if wanted.get(path) != shapes.get(path)]
    if names:
        found = [f"{n}: {shapes.get(n, 'absent')}, wanted {wanted.get(n, 'absent')}" for n in names[:4]]
        raise UserError(
            f"{where}: not the weights of {config.method} with {config.channels} channels and options "
            f"{dict(config.model)}; {len(names)} of {len(wanted)} differ: {'; '.join(found)}"
        )

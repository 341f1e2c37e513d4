"""Detectors of segmentation networks: masks, their regions as points, the way through files."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import irjax
from irjax import convert
from irjax.detector import weights
from irjax.detector.detector import Detector, DetectorConfig
from irjax.detector.files import predict_files
from irjax.io.images import read_image
from irjax.metrics.inputs import predicted_mask
from irjax.ops.letterbox import letterbox_host, unletterbox_host
from irjax.ops.normalize import normalize
from irjax.ops.regions import find_regions
from irjax.ops.windows import cut_windows, join_windows

CONFIG = DetectorConfig(
    method="mshnet",
    model={"widths": [4, 8, 8], "depths": [1, 1, 1]},
    size=64,
    threshold=0.5,
    max_detections=8,
    normalization="imagenet",
)


@pytest.fixture(scope="module")
def detector():
    """Random weights, the last bias such that about a tenth of the pixels of noise are targets."""
    images = jnp.zeros((1, CONFIG.size, CONFIG.size, 1))
    variables = jax.jit(CONFIG.module().init)(jax.random.key(0), images)
    variables["params"]["final"]["kernel"] *= 20
    noise = jnp.asarray(np.random.default_rng(1).uniform(size=(1, CONFIG.size, CONFIG.size)), jnp.float32)
    logits = jax.jit(CONFIG.module().apply)(variables, normalize(noise, "imagenet", 1)).logits
    variables["params"]["final"]["bias"] -= jnp.quantile(logits, 0.9)
    return Detector(CONFIG, variables)


def images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def by_hand(detector, image):
    """Mask and regions of one image, step by step on the host."""
    canvas = letterbox_host(image, CONFIG.size).astype(np.float32)[None] / 255
    logits = jax.jit(detector.module.apply)(detector.variables, normalize(canvas, "imagenet", 1)).logits[0]
    mask = np.clip(unletterbox_host(np.asarray(jax.nn.sigmoid(logits)), *image.shape), 0, 1)
    return mask, find_regions(mask > 0.5)


@pytest.mark.parametrize("shape", [(64, 64), (40, 90), (80, 33)])
def test_masks_and_points_are_those_of_the_image(detector, shape):
    image = images(*shape)
    found = detector(image)
    mask, regions = by_hand(detector, image)
    assert len(regions) > 8
    chex.assert_shape(found.masks, (1, *shape))
    np.testing.assert_allclose(found.masks[0], mask, atol=1e-4)
    peaks = np.array([mask[regions.labels == k + 1].max() for k in range(len(regions))])
    np.testing.assert_allclose(found.scores[0], np.sort(peaks)[::-1][:8], atol=1e-4)
    for point in found.points[0]:
        assert np.min(np.abs(regions.centroids - point).max(axis=1)) < 1e-3
    # Floating point throughout: the host rounds a letterboxed image to its own type.
    image = image.astype(np.float32) / 255
    found, pure = detector(image), jax.jit(detector.predict_fn)(detector.variables, image[None])
    np.testing.assert_allclose(pure.masks, found.masks, atol=1e-4)
    np.testing.assert_allclose(pure.scores, found.scores, atol=1e-4)
    np.testing.assert_allclose(np.sort(pure.points, axis=1), np.sort(found.points, axis=1), atol=1e-2)


def test_lists_of_many_sizes(detector):
    several = [images(64, 64), images(40, 90, seed=1), images(50, 50, seed=2)]
    found = detector(several)
    assert isinstance(found.masks, tuple) and [mask.shape for mask in found.masks] == [i.shape for i in several]
    for index, image in enumerate(several):
        alone = detector(image)
        np.testing.assert_allclose(found.masks[index], alone.masks[0], atol=1e-5)
        np.testing.assert_allclose(found.points[index], alone.points[0], atol=1e-4)


def test_thresholds(detector):
    image = images(64, 64)
    assert not detector(image, threshold=1.0).valid.any()
    assert detector(image, threshold=0.9).valid.sum() <= 8
    low = detector(image, threshold=0.0)
    assert low.valid.sum() >= 1 and low.masks is not None


def test_configurations(detector, tmp_path):
    again = DetectorConfig.from_json(CONFIG.to_json())
    assert again.module() == CONFIG.module()
    with pytest.raises(ValueError, match="multiple of 4 and at least 16, got 62"):
        dataclasses.replace(CONFIG, size=62)
    card = dict.fromkeys(weights.CARD_FIELDS, "none")
    path = weights.save_weights(tmp_path / "tiny.safetensors", detector.variables, CONFIG, card)
    chex.assert_trees_all_close(irjax.load(path)(images(64, 64)), detector(images(64, 64)), atol=1e-5)


def test_published_checkpoints_load_with_their_settings(tmp_path):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    module = DetectorConfig(method="mshnet").module()
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    state = convert.to_torch("mshnet", jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes))
    torch.save({"state_dict": {k: torch.from_numpy(v) for k, v in state.items()}}, tmp_path / "weight.pth")
    config = irjax.load(tmp_path / "weight.pth", method="mshnet").config
    assert (config.size, config.channels, config.threshold) == (256, 3, 0.5)


def test_files_get_masks_that_are_read_back_as_the_same_targets(detector, tmp_path):
    from PIL import Image

    files = {}
    for number, shape in enumerate([(64, 64), (40, 90)]):
        files[f"i{number}.png"] = tmp_path / f"i{number}.png"
        Image.fromarray(images(*shape, seed=number)).save(files[f"i{number}.png"])
    outcome = predict_files(detector, files, tmp_path / "out")
    assert [path.name for path in outcome.masks] == ["i0.png", "i1.png"]
    for path, file in zip(outcome.masks, files.values(), strict=True):
        levels, mask = read_image(path), detector(read_image(file)).masks[0]
        np.testing.assert_array_equal(levels >= 128, mask > 0.5)
        np.testing.assert_allclose(levels / 255, mask, atol=1 / 255)
    # At another threshold than one half, too.
    (path,) = predict_files(detector, {"i0.png": files["i0.png"]}, tmp_path / "low", threshold=0.35).masks
    mask = detector(read_image(files["i0.png"])).masks[0]
    np.testing.assert_array_equal(predicted_mask(read_image(path), 0.35), mask > 0.35)


def test_the_device_holds_the_outputs_of_two_chunks_at_most(detector, monkeypatch):
    short = Detector(CONFIG, detector.variables, batch_size=1)
    several = list(images(8, 64, 64))
    wanted = short(several)
    run_chunk, alive = Detector._run_chunk, []

    def counted(self, *arguments):
        output = run_chunk(self, *arguments)
        alive.append(sum(array.shape == output.shape for array in jax.live_arrays()))
        return output

    monkeypatch.setattr(Detector, "_run_chunk", counted)
    chex.assert_trees_all_equal(short(several), wanted)
    assert len(alive) == 8 and max(alive) - alive[0] <= 1


# --- windows ----------------------------------------------------------------------------------------------------------

SLIDING = dataclasses.replace(CONFIG, enlarge=False, slide=True)


def test_large_images_are_covered_by_windows_at_their_resolution(detector):
    sliding = Detector(SLIDING, detector.variables, batch_size=4)
    image = images(100, 150)
    found = sliding(image)
    windows = cut_windows(image.astype(np.float32) / 255, CONFIG.size, CONFIG.size // 4)
    assert len(windows) == 6
    logits = jax.jit(detector.module.apply)(detector.variables, normalize(windows, "imagenet", 1)).logits
    wanted = join_windows(np.asarray(jax.nn.sigmoid(logits)), 100, 150, CONFIG.size // 4)
    np.testing.assert_allclose(found.masks[0], wanted, atol=1e-5)
    pure = jax.jit(sliding.predict_fn)(detector.variables, image[None])
    np.testing.assert_allclose(pure.masks, found.masks, atol=1e-5)
    np.testing.assert_allclose(pure.scores, found.scores, atol=1e-5)
    assert np.abs(found.masks - detector(image).masks).max() > 0.1  # scaled down it is another image


def test_joined_windows_are_probabilities(detector):
    """Means of windows of ones are above 1 by a rounding in images of this size."""
    variables = {**detector.variables, "params": {**detector.variables["params"]}}
    variables["params"]["final"] = jax.tree.map(lambda x: jnp.full_like(x, 1e4), variables["params"]["final"])
    sliding = Detector(SLIDING, variables)
    for maps in (
        sliding(images(118, 100)).masks,
        jax.jit(sliding.predict_fn)(sliding.variables, images(1, 118, 100)).masks,
    ):
        assert maps.min() >= 0 and maps.max() <= 1


def test_windows_of_lists_do_not_mix(detector):
    sliding = Detector(SLIDING, detector.variables, batch_size=4)
    several = [images(40, 90), images(130, 70, seed=1), images(30, 30, seed=2)]
    found = sliding(several)
    assert [mask.shape for mask in found.masks] == [image.shape for image in several]
    for index, image in enumerate(several):
        np.testing.assert_allclose(found.masks[index], sliding(image).masks[0], atol=1e-5)


def test_16_bit_images_are_scaled_by_their_own_range(detector):
    image = images(64, 64)
    deep = detector(image.astype(np.uint16) * 257)
    np.testing.assert_allclose(deep.masks, detector(image).masks, atol=1e-6)
    pure = jax.jit(detector.predict_fn)(detector.variables, image[None].astype(np.uint16) * 257)
    np.testing.assert_allclose(pure.masks, deep.masks, atol=1e-4)


def test_windows_need_the_images_own_resolution():
    with pytest.raises(ValueError, match="needs enlarge off"):
        dataclasses.replace(CONFIG, slide=True)

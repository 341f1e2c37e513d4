"""The detector: every form of input, purity, loading, and the recorded detections of the published program."""

import dataclasses
import subprocess
import sys
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import irjax
from irjax import convert
from irjax.detector import inference, weights
from irjax.detector.detector import Detector, DetectorConfig
from irjax.layers.blocks import fold_batch_norm
from irjax.models import HRPE
from irjax.ops.letterbox import letterbox_affine, letterbox_host
from irjax.ops.normalize import normalize
from irjax.ops.peaks import decode_heatmap

# A small network whose every peak counts, so that random weights give points to compare.
CONFIG = DetectorConfig(
    model={"width": 16, "shuffle_units": 1}, size=64, threshold=-1e9, max_detections=4, normalization="imagenet"
)


def random_variables(config, seed=0):
    images = jnp.zeros((1, config.size, config.size, config.channels))
    shapes = jax.eval_shape(config.module().init, jax.random.key(0), images)
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return rng.normal(0, np.prod(leaf.shape[:3]) ** -0.5, leaf.shape).astype(np.float32)
        low, high = (0.5, 1.5) if path[-1].key in ("scale", "var") else (-0.2, 0.2)
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    return jax.tree.map_with_path(draw, shapes)


@pytest.fixture(scope="module")
def detector():
    return Detector(CONFIG, random_variables(CONFIG))


def images(*shape, seed=0, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def assert_same(found, wanted, **tolerance):
    tolerance = tolerance or {"atol": 1e-4}
    np.testing.assert_array_equal(found.valid, wanted.valid)
    np.testing.assert_allclose(found.scores, wanted.scores, **tolerance)
    np.testing.assert_allclose(found.points, wanted.points, atol=1e-3)


# --- forms of input ---------------------------------------------------------------------------------------------------


def test_every_form_of_one_image_gives_the_same(detector):
    image = images(64, 64)
    wanted = detector(image)
    chex.assert_shape([wanted.points, wanted.scores, wanted.valid], [(1, 4, 2), (1, 4), (1, 4)])
    assert wanted.valid.all() and isinstance(wanted.points, np.ndarray) and wanted.masks is None
    colour = np.repeat(image[None, ..., None], 3, axis=-1)
    forms = [
        image[None],
        image[None, ..., None],
        [image],
        (image,),
        colour,
        np.concatenate([colour, images(1, 64, 64, 1, seed=9)], axis=-1),
        jnp.asarray(image),
        image / np.float32(255),
        image / 255.0,
        image.astype(np.uint16) * np.uint16(257),
    ]
    for form in forms:
        assert_same(detector(form), wanted)


def test_colours_become_luma(detector):
    colour = images(2, 64, 64, 3)
    luma = np.rint(colour @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    assert_same(detector(colour), detector(luma))


def test_a_list_of_any_sizes_equals_one_by_one(detector):
    mixed = [images(40, 70), images(16, 16), images(200, 33, dtype=np.uint16), images(90, 90) / 255.0]
    together = detector(mixed)
    chex.assert_shape(together.points, (4, 4, 2))
    for i, image in enumerate(mixed):
        assert_same(jax.tree.map(lambda x, i=i: x[i : i + 1], together), detector(image))
        # At most one cell of 4 canvas pixels outside.
        height, width = image.shape
        margin = 4 * max(height, width) / 64
        assert (together.points[i] >= -margin).all()
        assert (together.points[i] <= [width - 1 + margin, height - 1 + margin]).all()


def test_chunks_do_not_matter(detector):
    batch = images(3, 48, 48)
    assert_same(Detector(CONFIG, detector.variables, batch_size=2)(batch), detector(batch))
    with pytest.raises(ValueError, match="batch_size"):
        Detector(CONFIG, detector.variables, batch_size=0)


def test_one_trace_per_bucket(detector, monkeypatch):
    chex.clear_trace_counter()
    # One trace each for batches of 1, 2 and 4.
    counted = chex.assert_max_traces(inference.run_network, n=3)
    monkeypatch.setattr(inference, "run_network", counted)
    fresh = Detector(CONFIG, detector.variables, batch_size=4)
    fresh([images(40, 70)])
    fresh(images(64, 64) / 255.0, threshold=0.1)
    fresh(images(30, 30, dtype=np.uint16), threshold=0.2)
    fresh([images(40, 70), images(50, 20)])
    fresh(images(3, 20, 20))
    fresh(images(11, 25, 20))


def test_threshold_of_a_call(detector):
    image = images(64, 64)
    scores = detector(image).scores[0]
    between = float(scores[1] + scores[2]) / 2
    np.testing.assert_array_equal(detector(image, threshold=between).valid[0], [True, True, False, False])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((0, 32, 32), np.uint8), "no images"),
        ([], "no images"),
        (np.zeros((32, 15), np.uint8), "image 0 is 32x15 pixels; at least 16x16"),
        ([np.zeros((32, 32), np.uint8), np.zeros((8, 32), np.uint8)], "image 1 is 8x32 pixels"),
        (np.zeros((64, 64, 3), np.uint8), "could be one colour image or several gray ones"),
        (np.zeros((64, 64, 4), np.uint8), "could be one colour image or several gray ones"),
        (np.zeros((1, 64, 64, 2), np.uint8), "1, 3 or 4 channels"),
        (np.zeros((64,), np.uint8), r"got shape \(64,\)"),
        (np.zeros((1, 1, 1, 64, 64), np.uint8), "got shape"),
        ([np.zeros((64, 64, 3), np.uint8)], r"number 0 has shape \(64, 64, 3\)"),
        (np.zeros((64, 64), np.int32), "image 0 has type int32"),
        (np.zeros((64, 64), bool), "image 0 has type bool"),
        ([np.zeros((64, 64)), np.full((64, 64), np.nan)], "image 1 is floating point with values from nan"),
        (np.full((2, 64, 64), 1.01), "image 0 is floating point with values from 1.01"),
        (np.full((64, 64), -0.1, np.float32), "image 0 is floating point with values from -0.1"),
        (np.concatenate([np.zeros((1, 32, 32, 2)), np.full((1, 32, 32, 1), 2.0)], -1), "values from 0 to 2"),
        ("image.png", "read_image"),
    ],
)
def test_bad_input(detector, bad, message):
    with pytest.raises(ValueError, match=message):
        detector(bad)


# --- the pure function ------------------------------------------------------------------------------------------------


def test_predict_fn_agrees_with_the_detector(detector):
    batch = np.random.default_rng(0).uniform(size=(2, 40, 90)).astype(np.float32)
    assert_same(jax.jit(detector.predict_fn)(detector.variables, batch), detector(batch))
    assert_same(jax.jit(detector.predict_fn)(detector.variables, batch[..., None]), detector(batch))


def test_predict_fn_under_vmap(detector):
    batch = jnp.asarray(np.random.default_rng(0).uniform(size=(3, 40, 56)), jnp.float32)
    wanted = detector(batch)
    over_images = jax.jit(jax.vmap(detector.predict_fn, in_axes=(None, 0)))(detector.variables, batch)
    assert_same(over_images, wanted)

    ensemble = [detector.variables, jax.tree.map(jnp.asarray, random_variables(CONFIG, seed=1))]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *ensemble)
    both = jax.jit(jax.vmap(detector.predict_fn, in_axes=(0, None)))(stacked, batch[0])
    chex.assert_shape(both.points, (2, 4, 2))
    assert_same(jax.tree.map(lambda x: x[0], both), jax.tree.map(lambda x: x[0], wanted))


def test_scores_have_gradients(detector):
    image = jnp.asarray(np.random.default_rng(0).uniform(size=(40, 56)), jnp.float32)

    @jax.jit
    def run(variables, image):
        return jax.value_and_grad(lambda v, x: detector.predict_fn(v, x).scores[0], argnums=(0, 1))(variables, image)

    _, (wrt_variables, wrt_image) = run(detector.variables, image)
    chex.assert_tree_all_finite((wrt_variables, wrt_image))
    chex.assert_shape(wrt_image, (40, 56))
    step = wrt_image / jnp.linalg.norm(wrt_image)
    above, below = (run(detector.variables, image + sign * 1e-3 * step)[0] for sign in (1, -1))
    np.testing.assert_allclose((above - below) / 2e-3, jnp.linalg.norm(wrt_image), rtol=0.05)
    np.testing.assert_array_equal(wrt_variables["params"]["head"]["bias"], [1.0])


def test_predict_fn_traces_once_and_takes_a_traced_threshold(detector):
    chex.clear_trace_counter()
    run = jax.jit(chex.assert_max_traces(lambda v, x, t: detector.predict_fn(v, x, threshold=t), n=1))
    image = np.random.default_rng(0).uniform(size=(40, 56)).astype(np.float32)
    assert run(detector.variables, image, -1e9).valid.any()
    assert not run(detector.variables, image, 1e9).valid.any()


@pytest.mark.parametrize("shape", [(64,), (2, 64, 64, 3), (0, 64, 64), (2, 64, 8)])
def test_predict_fn_refuses_other_shapes(detector, shape):
    with pytest.raises(ValueError, match="images must be"):
        jax.eval_shape(detector.predict_fn, detector.variables, jax.ShapeDtypeStruct(shape, jnp.float32))


def test_folded_batch_norm_changes_nothing(detector):
    folded = fold_batch_norm(detector.variables)
    assert jax.tree.structure(folded) == jax.tree.structure(dict(detector.variables))
    moved = folded["params"]["stem1"]["conv"]["kernel"] - detector.variables["params"]["stem1"]["conv"]["kernel"]
    assert float(jnp.abs(moved).max()) > 0.01
    chex.assert_trees_all_equal(detector.folded().variables, folded)
    run = jax.jit(detector.module.apply)
    batch = np.random.default_rng(0).normal(size=(1, 64, 64, 1)).astype(np.float32)
    wanted = run(detector.variables, batch)
    np.testing.assert_allclose(run(folded, batch), wanted, atol=1e-5 * float(jnp.abs(wanted).max()))


# --- configuration and loading ----------------------------------------------------------------------------------------


def test_config_survives_json():
    config = dataclasses.replace(CONFIG, model={"stride": 8, "dtype": "bfloat16"}, relative_threshold=0.35)
    assert DetectorConfig.from_json(config.to_json()) == config
    assert config.module() == HRPE(stride=8, dtype=jnp.dtype("bfloat16"))
    assert DetectorConfig.from_json("{}") == DetectorConfig()
    assert '"bfloat16"' in DetectorConfig(model={"dtype": jnp.bfloat16}).to_json()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"sise": 3}', r"here has unknown keys \['sise'\]; known: \['method'"),
        ("{", "here is not JSON"),
        ("[]", "here must be a JSON object"),
        ('{"method": "yolo"}', "here: unknown method 'yolo'; known: adsnet, mshnet, na_irstd, spire"),
        ('{"model": {"depth": 3}}', r"HRPE has no options \['depth'\]; known: \['stride'"),
        ('{"model": {"dtype": "float3"}}', "unknown dtype 'float3'"),
        ('{"size": 510}', "size must be a multiple of 4"),
        ('{"size": "big"}', "here: "),
        ('{"channels": 2}', "channels must be 1 or 3"),
        ('{"normalization": "none"}', "normalization must be one of"),
        ('{"max_detections": 0}', "max_detections must be in 1"),
    ],
)
def test_bad_config(text, message):
    with pytest.raises(ValueError, match=message):
        DetectorConfig.from_json(text, "here")


def test_load_weight_file(tmp_path, detector):
    card = dict.fromkeys(weights.CARD_FIELDS, "test")
    path = weights.save_weights(tmp_path / "mine.safetensors", detector.variables, CONFIG, card)
    loaded = irjax.load(path)
    assert loaded.config == CONFIG
    assert_same(loaded(images(40, 70)), detector(images(40, 70)))
    assert irjax.load(str(path), max_detections=2).config == dataclasses.replace(CONFIG, max_detections=2)
    with pytest.raises(ValueError, match=r"unknown options \['tau'\]"):
        irjax.load(path, tau=0.5)
    with pytest.raises(ValueError, match="mine.safetensors: not the weights of spire with 3 channels"):
        irjax.load(path, channels=3)


def test_load_shipped_name(tmp_path, detector, monkeypatch):
    card = dict.fromkeys(weights.CARD_FIELDS, "test")
    path = weights.save_weights(tmp_path / "spire-mine.safetensors", detector.variables, CONFIG, card)
    monkeypatch.setattr(weights, "names", lambda: {"spire-mine": path})
    assert irjax.load("spire-mine").config == CONFIG
    with pytest.raises(ValueError, match=r"'spire-yours' is neither the name of shipped weights \(spire-mine\)"):
        irjax.load("spire-yours")
    with pytest.raises(FileNotFoundError, match="absent.pth"):
        irjax.load("absent.pth")


def test_load_run_directory(tmp_path, detector, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no run directory: it has no detector.json"):
        irjax.load(tmp_path)
    asked = []
    stub = types.ModuleType("irjax.training.checkpoints")
    stub.load_variables = lambda directory, which: asked.append((directory, which)) or detector.variables
    monkeypatch.setitem(sys.modules, "irjax.training.checkpoints", stub)
    monkeypatch.setattr(irjax.training, "checkpoints", stub, raising=False)
    (tmp_path / "detector.json").write_text(CONFIG.to_json())
    assert irjax.load(tmp_path).config == CONFIG
    assert asked == [(tmp_path, "best")]
    (tmp_path / "detector.json").write_text('{"sise": 3}')
    with pytest.raises(ValueError, match="detector.json has unknown keys"):
        irjax.load(tmp_path)


@pytest.mark.parametrize("channels", [1, 3])
def test_load_published_format(tmp_path, channels):
    torch = pytest.importorskip("torch", reason="a .pth is written and read by PyTorch (extra torch)")
    config = DetectorConfig(channels=channels)
    state = convert.to_torch("spire", random_variables(config))
    path = tmp_path / "published.pth"
    torch.save({"model": {key: torch.from_numpy(np.asarray(value)) for key, value in state.items()}}, path)
    wanted = DetectorConfig("spire", {}, 512, channels, "imagenet", 0.35, 32, None)
    assert irjax.load(path).config == wanted
    assert irjax.load(path, size=640, threshold=0.5).config == dataclasses.replace(wanted, size=640, threshold=0.5)
    other = tmp_path / "other.pth"
    torch.save({"model": {"backbone.weight": torch.zeros(3)}}, other)
    with pytest.raises(ValueError, match="other.pth is a checkpoint of none of the methods mshnet, spire"):
        irjax.load(other)
    with pytest.raises(ValueError, match="other.pth is not a spire checkpoint: .* missing"):
        irjax.load(other, method="spire")
    (tmp_path / "weights.h5").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"neither a run directory nor a .safetensors file or PyTorch checkpoint \(.pth"
    ):
        irjax.load(tmp_path / "weights.h5")


def test_imports_stay_light():
    heavy = "{'jax', 'flax', 'torch', 'tensorflow', 'tensorflow_datasets', 'grain', 'safetensors', 'matplotlib'}"
    code = (
        f"import sys, irjax; assert not {heavy} & set(sys.modules); assert callable(irjax.load); "
        f"irjax.detector.Detector; found = ({heavy} - {{'jax', 'flax'}}) & set(sys.modules); assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_points_in_the_padding_are_dropped():
    """An image of 64 x 16 pixels fills rows 24 to 39 of its canvas; one cell around it still counts."""
    scale, offset = letterbox_affine(16, 64, 64)
    points = jnp.array([[[8.0, 10], [12, 20], [16, 19], [0, 0], [20, 44], [24, 43]]])
    valid = jnp.array([[True, True, True, False, True, True]])
    found = types.SimpleNamespace(points=points, scores=jnp.arange(6.0, 0, -1)[None], valid=valid)
    left = inference.to_image(CONFIG, found, jnp.float32(scale), jnp.float32(offset))
    np.testing.assert_array_equal(left.valid, [[True, True, False, False, False, False]])
    np.testing.assert_array_equal(left.scores, [[5, 1, 0, 0, 0, 0]])
    np.testing.assert_allclose(left.points[0, :2], [[12, -4], [24, 19]])
    assert not left.points[0, 2:].any()


# --- the published program --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden(shared):
    return np.load(shared / "golden/spire_sirst4_512.npz", allow_pickle=False)


@pytest.fixture(scope="module")
def published(shared):
    """The published weights with the published options."""
    pytest.importorskip("torch", reason="reading the published checkpoint needs PyTorch")
    path = shared / "golden/SPIRE-SIRST4-512-epoch230-lr0.005.pth"
    return irjax.load(path, max_detections=8, relative_threshold=0.35)


def source_image(shared, name):
    from PIL import Image

    (path,) = (shared / "data/SIRST-v2/images").glob(f"*/{name}.png")
    return np.asarray(Image.open(path).convert("L"))


def test_golden_heatmaps_and_decoding(shared, golden, published):
    """From the recorded canvas; and its heatmap-to-image map is stride times cell through our letterbox."""

    @jax.jit
    def run(canvas, scale, offset):
        heatmap = published.module.apply(published.variables, normalize(canvas, "imagenet", 3))
        found = decode_heatmap(heatmap, threshold=0.35, max_detections=8, relative_threshold=0.35)
        return heatmap, inference.to_image(published.config, found, scale, offset)

    for i in range(8):
        image = source_image(shared, golden[f"{i}_name"])
        scale, offset = letterbox_affine(*image.shape, 512)
        ours = np.array([[4 / scale[0], 0, -offset[0] / scale[0]], [0, 4 / scale[1], -offset[1] / scale[1]]])
        np.testing.assert_allclose(ours, golden[f"{i}_heatmap_to_image"], atol=1e-5)

        canvas = golden[f"{i}_letterboxed_rgb"]
        assert np.abs(letterbox_host(image, 512).astype(int) - canvas[..., 0]).max() <= 1
        unit = (canvas[None, ..., 0] / 255).astype(np.float32)
        heatmap, found = run(unit, scale.astype(np.float32), offset.astype(np.float32))
        np.testing.assert_allclose(heatmap[0], golden[f"{i}_heatmap"], atol=1e-4)
        assert_recorded(jax.tree.map(lambda x: x[0], found), golden[f"{i}_detections_xys"], score=1e-4)


def assert_recorded(found, recorded, score):
    assert int(found.valid.sum()) == len(recorded)
    np.testing.assert_allclose(found.points[: len(recorded)], recorded[:, :2], atol=0.01)
    np.testing.assert_allclose(found.scores[: len(recorded)], recorded[:, 2], atol=score)


def test_golden_detections_from_the_images(shared, golden, published):
    """The whole way from files of five sizes. Canvases differ from the recorded ones by at most one gray level."""
    sources = [source_image(shared, golden[f"{i}_name"]) for i in range(8)]
    found = published(sources)
    for i, image in enumerate(sources):
        recorded = golden[f"{i}_detections_xys"]
        assert_recorded(jax.tree.map(lambda x, i=i: x[i], found), recorded, score=2e-3)
        if i in (0, 5):  # two sizes; one trace each
            pure = jax.jit(published.predict_fn)(published.variables, image.astype(np.float32) / 255)
            # Floats are not rounded to gray levels after letterboxing, as the published program does.
            assert_recorded(pure, recorded, score=1e-2)


# --- windows ----------------------------------------------------------------------------------------------------------


def test_a_large_image_is_searched_at_its_resolution():
    """Three targets of a pixel or two, four times as large as the square: scaled down nothing is left of them."""
    y, x = np.mgrid[:500, :420]
    image = np.random.default_rng(0).normal(90, 3, y.shape)
    targets = np.array([(130, 230), (360, 127), (170, 460)])
    for column, row in targets:
        image += 40 * np.exp(-((x - column) ** 2 + (y - row) ** 2) / 2.9)
    image = image.clip(0, 255).astype(np.uint8)
    whole = irjax.load("spire-sirst", size=128)
    native = irjax.load("spire-sirst", size=128, enlarge=False, slide=True)
    assert not whole(image).valid.any()
    found = native(image)
    points = found.points[0, found.valid[0]]
    np.testing.assert_allclose(points[np.argsort(points[:, 0])], targets[np.argsort(targets[:, 0])], atol=3)
    assert found.masks is None
    # A smaller image lies in one window; lists of sizes do not mix.
    parts = [image[180:290, 80:170], image]
    several = native(parts)
    np.testing.assert_allclose(several.points[1], found.points[0])
    np.testing.assert_allclose(several.points[0], native(parts[0]).points[0])


def test_windows_of_points_inside_jit():
    detector = irjax.load("spire-sirst", size=64, enlarge=False, slide=True, threshold=0.01, max_detections=8)
    image = np.random.default_rng(0).normal(90, 3, (90, 150)).astype(np.uint8)
    for column, row in ((20, 30), (75, 44), (140, 80), (54, 10)):
        image[row : row + 2, column : column + 2] = 250
    pure = jax.jit(detector.predict_fn)(detector.variables, image[None])
    found = detector(image)
    assert found.valid.sum() >= 4
    np.testing.assert_array_equal(pure.valid, found.valid)
    np.testing.assert_allclose(pure.points, found.points)
    np.testing.assert_allclose(pure.scores, found.scores, atol=1e-5)

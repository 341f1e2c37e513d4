"""HRPE: sizes, switches, types, and the recorded outputs of the published weights."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from irjax import convert
from irjax.layers.channels import channel_shuffle
from irjax.models import HRPE

CHECKPOINT = "golden/SPIRE-SIRST4-512-epoch230-lr0.005.pth"


def init(module, channels=1, size=32):
    return module.init(jax.random.key(0), jnp.zeros((1, size, size, channels)))


def random_variables(module, channels=1):
    """Variables with non-trivial statistics, drawn by numpy: compiling flax's own init takes far longer."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            return rng.normal(0, np.prod(leaf.shape[:3]) ** -0.5, leaf.shape).astype(np.float32)
        low, high = (0.5, 1.5) if name in ("scale", "var") else (-0.2, 0.2)
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    return jax.tree.map_with_path(draw, jax.eval_shape(functools.partial(init, module, channels)))


def count(module, channels):
    shapes = jax.eval_shape(functools.partial(init, module, channels))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


@pytest.mark.parametrize(
    ("channels", "options", "parameters"),
    [
        (3, {}, 294_753),
        (1, {}, 293_601),
        (1, {"stride": 2}, 293_601),
        (1, {"stride": 8}, 293_601 + 64 * 64 * 9 + 128),
        (1, {"shuffle": False}, 293_601),
        (3, {"stride": 8}, 331_745),
        (3, {"shuffle": False}, 294_753),
        (3, {"reweight": False}, 296_257),  # Table 3: 29.63e-2 M
        (1, {"reweight": False}, 295_105),
    ],
)
def test_parameter_count(channels, options, parameters):
    assert count(HRPE(**options), channels) == parameters


@pytest.mark.parametrize("stride", [2, 4, 8])
@pytest.mark.parametrize("switches", [{}, {"shuffle": False}, {"reweight": False}])
def test_output_shape(stride, switches):
    module = HRPE(stride=stride, **switches)
    images = jax.ShapeDtypeStruct((2, 96, 160, 1), jnp.float32)
    out, _ = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x), images)
    chex.assert_shape(out, (2, 96 // stride, 160 // stride))
    assert out.dtype == jnp.float32


@pytest.mark.parametrize("bad", [{"stride": 3}, {}])
def test_wrong_input_is_refused(bad):
    with pytest.raises(ValueError, match="stride|multiples"):
        init(HRPE(**bad), size=30)


def test_shuffle_interleaves_the_halves():
    np.testing.assert_array_equal(channel_shuffle(jnp.arange(8)), [0, 4, 1, 5, 2, 6, 3, 7])


SMALL = {"width": 16, "shuffle_units": 1}


def apply(module, variables, images, **options):
    return jax.jit(functools.partial(module.apply, **options))(variables, images)


def test_the_shuffle_changes_the_output_but_not_the_weights():
    images = jnp.asarray(np.random.default_rng(1).uniform(size=(1, 32, 32, 1)), jnp.float32)
    variables = random_variables(HRPE(**SMALL))
    full = apply(HRPE(**SMALL), variables, images)
    unshuffled = apply(HRPE(shuffle=False, **SMALL), variables, images)
    assert float(jnp.abs(full - unshuffled).max()) > 1e-4


def test_without_reweighting_there_are_shuffle_units_alone():
    params = jax.eval_shape(functools.partial(init, HRPE(reweight=False)))["params"]
    units = [name for name in params if name.startswith("stage")]
    assert len(units) == 6
    shapes = {jax.tree.structure(params[name]): jax.tree.map(jnp.shape, params[name]) for name in units}
    assert list(shapes.values()) == [jax.tree.map(jnp.shape, params["stage1_shuffle"])]


def test_each_stage_doubles_its_branch():
    images = jnp.asarray(np.random.default_rng(1).uniform(size=(1, 32, 32, 1)), jnp.float32)
    variables = random_variables(HRPE(**SMALL))
    _, state = apply(HRPE(**SMALL), variables, images, capture_intermediates=True)
    seen = state["intermediates"]
    branch = seen["stage2_shuffle"]["__call__"][0]
    head = variables["params"]["head"]
    expected = jnp.einsum("bhwc,cd->bhwd", jax.nn.relu(2 * branch), head["kernel"][0, 0]) + head["bias"]
    np.testing.assert_allclose(seen["head"]["__call__"][0], expected, atol=1e-6)


def test_bfloat16_keeps_float32_where_it_matters():
    module = HRPE(dtype=jnp.bfloat16, **SMALL)
    images = jnp.asarray(np.random.default_rng(1).uniform(size=(1, 32, 32, 1)), jnp.float32)
    variables = random_variables(module)
    train = functools.partial(module.apply, train=True, mutable="batch_stats")
    for leaf in jax.tree.leaves((variables, jax.eval_shape(train, variables, images))):
        assert leaf.dtype == jnp.float32
    capture = functools.partial(module.apply, capture_intermediates=True)
    _, state = jax.eval_shape(capture, variables, images)
    assert state["intermediates"]["transition"]["__call__"][0].dtype == jnp.bfloat16
    wide = apply(HRPE(**SMALL), variables, images)
    np.testing.assert_allclose(apply(module, variables, images), wide, atol=0.03 * float(jnp.abs(wide).max()))


def test_one_trace_for_one_shape():
    module, variables = HRPE(**SMALL), random_variables(HRPE(**SMALL))
    chex.clear_trace_counter()
    run = jax.jit(chex.assert_max_traces(lambda v, x: module.apply(v, x), n=1))
    for seed in range(3):
        run(variables, jnp.asarray(np.random.default_rng(seed).uniform(size=(1, 32, 32, 1)), jnp.float32))


@pytest.fixture(scope="module")
def golden(shared):
    return np.load(shared / "golden/spire_sirst4_512.npz", allow_pickle=False)


@pytest.fixture(scope="module")
def published(shared):
    pytest.importorskip("torch", reason="reading the published checkpoint needs PyTorch")
    return convert.from_torch("spire", shared / CHECKPOINT)


def test_golden_eval_heatmap(golden, published):
    heatmap = apply(HRPE(), published, golden["random_input_nhwc"])
    np.testing.assert_allclose(heatmap, golden["random_heatmap"], atol=1e-4)


def test_golden_training_step(golden, published):
    def loss_fn(params):
        variables = {**published, "params": params}
        images = golden["random_input_nhwc"]
        heatmap, updated = HRPE().apply(variables, images, train=True, mutable="batch_stats")
        return 2 * jnp.mean((heatmap - golden["train_target"]) ** 2), (heatmap, updated)

    step = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    (loss, (heatmap, updated)), grads = step(published["params"])
    np.testing.assert_allclose(heatmap, golden["train_heatmap"], atol=1e-4)
    np.testing.assert_allclose(loss, golden["train_loss"], rtol=1e-5)
    as_torch = convert.to_torch("spire", {"params": grads, "batch_stats": updated["batch_stats"]})
    recorded = [key for key in golden.files if key.startswith("train_grad/")]
    assert len(recorded) == 4
    for key in recorded:
        wanted = golden[key]
        difference = np.abs(as_torch[key.removeprefix("train_grad/")] - wanted).max()
        assert difference <= 1e-4 * np.abs(wanted).max(), key
    np.testing.assert_allclose(as_torch["bn1.running_mean"], golden["train_running_mean/bn1"], atol=1e-5)
    np.testing.assert_allclose(as_torch["bn1.running_var"], golden["train_running_var/bn1"], atol=1e-5)

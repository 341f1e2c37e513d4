import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from irjax.benchmarks.counting import count_macs
from irjax.models import ADSNet
from irjax.models.adsnet import DROPPED_LOGIT, depth_to_space, rescored, to_cells
from irjax.ops.patches import expand_mask

TINY = {"width": 8, "widths": (4, 8, 8)}


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def shapes(model, size=256, channels=3, batch=1):
    images = jax.ShapeDtypeStruct((batch, size, size, channels), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images), images


def test_sizes_are_those_of_the_paper():
    variables, images = shapes(ADSNet(), batch=2)
    assert count(variables["params"]["backbone"]) == 2_782_784  # 2.78 M
    output = jax.eval_shape(ADSNet(heads=True).apply, variables, images)
    chex.assert_shape(output.logits, (2, 256, 256))
    assert (
        [x.shape[1:] for x in output.classes] == [x.shape[1:] for x in output.scores] == [(16, 16), (32, 32), (64, 64)]
    )
    assert [x.shape for x in output.decisions] == [(2, 16, 16, 2)] * 2
    assert [x.shape for x in output.kept] == [(2, 16, 16)] * 2
    plain = jax.eval_shape(ADSNet().apply, variables, images)
    assert plain.classes == () and plain.logits.shape == (2, 256, 256)


@pytest.mark.parametrize(
    ("dropped", "giga"),
    [((None, None), 6.46), ((0.2, 0.4), 5.27), ((0.25, 0.5), 4.98), ((0.3, 0.6), 4.68), ((None, 0.25), 5.78)],
)
def test_multiply_adds(dropped, giga):
    model = ADSNet(dropped=dropped)
    variables, images = shapes(model, channels=1)
    total = sum(count_macs(lambda v, x: model.apply(v, x).logits, variables, images).values())
    assert total / 1e9 == pytest.approx(giga, rel=0.01)


def random_variables(model, images, seed=0):
    """Weights of which nothing is zero or equal by chance, and statistics as after training."""
    variables = jax.jit(model.init)(jax.random.key(seed), images)
    rng = np.random.default_rng(seed + 1)  # on the host: nothing is compiled for each shape
    params = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape), jax.device_get(variables["params"]))
    stats = jax.tree.map(lambda x: x + 0.3 * rng.uniform(size=x.shape), jax.device_get(variables["batch_stats"]))
    return jax.tree.map(np.float32, {"params": params, "batch_stats": stats})


@pytest.mark.parametrize(
    ("size", "batch", "options"),
    [
        pytest.param((256, 256), 2, {}, marks=pytest.mark.slow),
        ((512, 512), 1, {}),
        ((64, 96), 1, {"cell": 32, "dropped": (None, 0.5)}),
        ((64, 64), 1, {"cell": 8, "dropped": (0.9, 0.93)}),
    ],
)
def test_gathered_patches_give_what_masked_maps_give(size, batch, options):
    images = jnp.asarray(np.random.default_rng(9).normal(size=(batch, *size, 1)), jnp.float32)
    model = ADSNet(**TINY, **options)
    variables = random_variables(model, images)
    models = [model, model.clone(mode="masked_dense"), *([model.clone(heads=True)] if batch > 1 else [])]
    sparse, dense, *more = (jax.jit(one.apply)(variables, images) for one in models)
    for output in (sparse, *more):
        np.testing.assert_allclose(output.logits, dense.logits, atol=1e-5 * float(jnp.abs(dense.logits).max()))
    for one, other in zip(sparse.kept, dense.kept, strict=True):
        np.testing.assert_array_equal(one, other)
    dropped = 1 - np.asarray(expand_mask(sparse.kept[1], model.cell))[..., 0]
    np.testing.assert_allclose(np.asarray(sparse.logits)[dropped > 0], DROPPED_LOGIT, atol=1e-5)
    for mask, fraction in zip(sparse.kept, model.dropped, strict=True):
        assert (mask.sum(axis=(1, 2)) == round(mask[0].size * (1 - (fraction or 0)))).all()
    assert (np.asarray(sparse.kept[0]) >= np.asarray(sparse.kept[1])).all()


def test_the_literal_form_is_another():
    images = jnp.asarray(np.random.default_rng(9).normal(size=(1, 64, 64, 1)), jnp.float32)
    model = ADSNet(**TINY)
    variables = random_variables(model, images)
    literal = jax.jit(model.clone(mode="dense_literal").apply)(variables, images).logits
    assert float(jnp.abs(literal - jax.jit(model.apply)(variables, images).logits).max()) > 1e-3


def test_training_decides_softly_and_reaches_every_parameter():
    images = jnp.asarray(np.random.default_rng(9).normal(size=(2, 64, 64, 1)), jnp.float32)
    model = ADSNet(**TINY)
    variables = random_variables(model, images)
    keys = jax.random.split(jax.random.key(3), 2)

    def total(params, keys):
        out, _ = model.apply({**variables, "params": params}, images, train=True, keys=keys, mutable=["batch_stats"])
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(out)), out

    run = jax.jit(jax.value_and_grad(total, has_aux=True))
    (_, first), grads = run(variables["params"], keys)
    (_, second), _ = run(variables["params"], jax.random.split(jax.random.key(4), 2))
    assert set(np.unique(first.kept[0])) <= {0.0, 1.0}
    assert any((np.asarray(a) != np.asarray(b)).any() for a, b in zip(first.kept, second.kept, strict=True))
    chex.assert_tree_all_finite(grads)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.parametrize(
    "options",
    [
        {"levels": ()},
        {"levels": (4,)},
        {"levels": (2, 3, 4)},
        {"channel_attention": False},
        {"spatial_attention": False},
        {"iou_score": False},
        {"iou_score": False, "rescore": True},
        {"rescore": True},
        {"dropped": (None, None)},
    ],
)
def test_switches(options):
    model = ADSNet(**TINY, **options)
    variables, images = shapes(model, 64, 1)
    output = jax.eval_shape(model.apply, variables, images)
    assert output.logits.shape == (1, 64, 64) and (output.scores is None) == (not model.iou_score)
    assert count(variables["params"]) != count(shapes(ADSNet(**TINY), 64, 1)[0]["params"]) or options == {
        "rescore": True
    }


def test_one_trace_and_sizes_beyond_256():
    chex.clear_trace_counter()
    model = ADSNet(**TINY)
    images = jnp.zeros((1, 128, 64, 1))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    run = jax.jit(chex.assert_max_traces(lambda v, x: model.apply(v, x).logits, n=1))
    assert run(variables, images).shape == run(variables, images + 1).shape == (1, 128, 64)


def test_small_parts():
    x = jnp.arange(2 * 4 * 4 * 16, dtype=jnp.float32).reshape(2, 4, 4, 16)
    pixels = depth_to_space(x)
    np.testing.assert_array_equal(pixels[1, 4:8, 8:12].reshape(-1), x[1, 1, 2])
    np.testing.assert_array_equal(to_cells(x, 16, 8)[0, 2:4, 6:8, 5], jnp.full((2, 2), x[0, 1, 3, 5]))
    np.testing.assert_array_equal(to_cells(x, 8, 16)[0, 1, 1], x[0, 2:, 2:].max(axis=(0, 1)))
    classes, scores = jnp.array([[[0.5]]]), jnp.array([[[-1.0]]])
    sigmoid = jax.nn.sigmoid
    wanted = sigmoid(0.7) * jnp.sqrt(sigmoid(0.5) * sigmoid(-1.0))
    np.testing.assert_allclose(sigmoid(rescored(jnp.full((1, 4, 4), 0.7), classes, scores)), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "shape", "said"),
    [
        ({}, (1, 250, 256, 1), "multiples of 16, got"),
        ({}, (256, 256, 1), r"must be \[B, H, W, C\]"),
        ({"cell": 64}, (1, 96, 128, 1), "multiples of 64"),
        ({"cell": 12}, (1, 96, 96, 1), "a cell must be a power of two"),
        ({"cell": 4}, (1, 64, 64, 1), "a cell must be a power of two"),
        ({"dropped": (0.25, 1.0)}, (1, 64, 64, 1), "leave one of 16, got 1.0"),
        ({"dropped": (0.25, 0.99)}, (1, 64, 64, 1), "leave one of 16, got 0.99"),
        ({"dropped": (0.5, 0.25)}, (1, 64, 64, 1), "level 2 cannot keep more patches than level 3"),
        ({"mode": "fast"}, (1, 64, 64, 1), "mode must be one of"),
        ({"selection": "best"}, (1, 64, 64, 1), "selection must be one of"),
        ({"levels": (1, 2)}, (1, 64, 64, 1), "levels must be of"),
    ],
)
def test_bad_arguments(options, shape, said):
    model = ADSNet(**TINY, **options)
    with pytest.raises(ValueError, match=said):
        jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))

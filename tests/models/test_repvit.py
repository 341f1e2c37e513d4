import jax
import jax.numpy as jnp
import numpy as np
import pytest

from irjax.benchmarks.counting import count_macs
from irjax.models.repvit import RepViT, reparameterize_backbone

TINY = {"widths": (4, 6, 8, 4), "depths": (2, 1, 3, 1)}


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def shapes(model, channels=1, size=256):
    images = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    apply = lambda variables, x: model.apply(variables, x, train=False)  # noqa: E731
    init = lambda key, x: model.init(key, x, train=False)  # noqa: E731
    return jax.eval_shape(init, jax.random.key(0), images), images, apply


def random_variables(model, images):
    """Weights of which nothing is zero or equal by chance, and statistics as after training."""
    variables = jax.jit(lambda key, x: model.init(key, x, train=False))(jax.random.key(0), images)
    keys = iter(jax.random.split(jax.random.key(1), 500))
    params = jax.tree.map(lambda x: x + 0.2 * jax.random.normal(next(keys), x.shape), variables["params"])
    stats = jax.tree.map(lambda x: x + 0.3 * jax.random.uniform(next(keys), x.shape), variables["batch_stats"])
    return {"params": params, "batch_stats": stats}


@pytest.mark.parametrize(
    ("channels", "stem_stride", "parameters", "giga"),
    [(1, 4, 7_769_360, 1.738), (3, 4, 7_769_936, 1.748), (1, 1, 7_769_360, 27.75)],
)
def test_sizes(channels, stem_stride, parameters, giga):
    """7.77 M and, with three input channels, 1.75 G multiply-adds; 27.8 G at full resolution."""
    model = RepViT(stem_stride=stem_stride)
    variables, images, apply = shapes(model, channels)
    assert count(variables["params"]) == parameters
    assert sum(count_macs(apply, variables, images).values()) / 1e9 == pytest.approx(giga, abs=0.005)
    maps = jax.eval_shape(apply, variables, images)
    sides = [256 // (stem_stride * 2**i) for i in range(4)]
    assert [x.shape for x in maps] == [(1, n, n, c) for n, c in zip(sides, (64, 128, 256, 512), strict=True)]


def test_blocks_that_weigh_channels():
    params = shapes(RepViT())[0]["params"]
    gated = {name for name in params if "gate" in params[name]}
    assert gated == {"stage0_0", "stage1_0", *(f"stage2_{i}" for i in range(0, 12, 2)), "stage3_0"}
    assert len([name for name in params if name.startswith("stage")]) == 3 + 3 + 13 + 2


@pytest.mark.slow
def test_folded_weights_give_the_same_maps():
    images = jnp.asarray(np.random.default_rng(5).normal(size=(2, 32, 64, 1)), jnp.float32)
    model = RepViT(**TINY)
    variables = random_variables(model, images)
    folded, lean = reparameterize_backbone(variables), model.clone(folded=True)
    wanted_shapes = jax.eval_shape(lambda x: lean.init(jax.random.key(0), x, train=False), images)
    assert jax.tree.map(jnp.shape, folded) == jax.tree.map(jnp.shape, wanted_shapes)
    maps = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)
    for got, wanted in zip(jax.jit(lambda v, x: lean.apply(v, x, train=False))(folded, images), maps, strict=True):
        scale = float(jnp.abs(wanted).max())
        assert scale > 0.1
        np.testing.assert_allclose(got, wanted, atol=1e-4 * max(scale, 1))
    assert set(folded["params"]["stage0_0"]["tokens"]) == {"whole"}  # one depthwise kernel of three


def test_channel_mixers_start_as_the_identity():
    model = RepViT(widths=(4, 4, 4, 4), depths=(1, 1, 1, 1))
    params = jax.jit(lambda x: model.init(jax.random.key(0), x, train=False))(jnp.zeros((1, 32, 32, 1)))["params"]
    mixer = params["stage0_0"]["channels"]
    assert (
        not np.asarray(mixer["project"]["norm"]["scale"]).any() and np.asarray(mixer["expand"]["norm"]["scale"]).all()
    )


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"stem_stride must be one of \(1, 4\), got 2"):
        shapes(RepViT(stem_stride=2))
    with pytest.raises(ValueError, match="folded already"):
        reparameterize_backbone({"params": shapes(RepViT(**TINY, folded=True))[0]["params"]})

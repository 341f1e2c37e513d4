"""In bfloat16, layers lose what rounding inputs, kernels and results loses; sums and statistics are not rounded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from irjax.layers.attention import ChannelAttention, SpatialAttention
from irjax.layers.blocks import SqueezeExcitation, fold_norm
from irjax.layers.conv import Conv, DepthwiseConv
from irjax.layers.gaussian_pinwheel import GaussianPinwheelConv
from irjax.layers.resize import upsample_aligned, upsample_double
from irjax.models import HRPE, MSHNet


def both(make, mean, shape):
    """The results of a module in float32 and in bfloat16, of the same bfloat16 values of deviation 1."""
    x = jnp.asarray(np.random.default_rng(0).normal(mean, 1, shape), jnp.bfloat16)
    variables = jax.jit(make(jnp.float32).init)(jax.random.key(0), x)
    return [jax.jit(make(dtype).apply)(variables, x.astype(dtype)) for dtype in (jnp.float32, jnp.bfloat16)]


def error(value, wanted):
    """RMS over the deviation of what is wanted."""
    value, wanted = np.asarray(value, np.float64), np.asarray(wanted, np.float64)
    return np.sqrt(np.mean((value - wanted) ** 2)) / wanted.std()


@pytest.mark.parametrize("mean", [0, 10, 30])
@pytest.mark.parametrize(
    ("make", "channels"),
    [
        (lambda dtype: DepthwiseConv(3, dtype=dtype), 8),
        (lambda dtype: Conv(1, 7, dtype=dtype), 2),  # a few planes, one by one on the CPU
        (lambda dtype: Conv(8, 3, use_bias=True, dtype=dtype), 8),
    ],
    ids=["depthwise", "planes", "dense"],
)
def test_convolutions_sum_in_float32(make, channels, mean):
    """0.0017 is lost to the result's rounding, as much to the kernel's; sums in bfloat16 gave up to 0.02."""
    wide, narrow = both(make, mean, (2, 64, 64, channels))
    assert narrow.dtype == jnp.bfloat16
    # Zeros outside are far from the mean: the border would be most of the deviation.
    inner = (slice(None), slice(4, -4), slice(4, -4))
    shift = np.asarray(wide[inner], np.float64).mean()
    assert error(narrow[inner], wide[inner]) < 0.0045 * max(1, abs(shift) / wide[inner].std())


@pytest.mark.parametrize("kind", ["gaussian", "gaussian_pinwheel"])
def test_windows(kind):
    """Near enough to what rounding the result alone gives, 0.03; sums in bfloat16 gave 0.09."""
    wide, narrow = both(lambda dtype: GaussianPinwheelConv(kind, dtype=dtype), 10, (2, 64, 64, 2))
    inner = (slice(None), slice(4, -4), slice(4, -4))
    assert error(narrow[inner], wide[inner]) < 1.5 * error(wide[inner].astype(jnp.bfloat16), wide[inner])


@pytest.mark.parametrize("mean", [0, 10])
@pytest.mark.parametrize(
    "make",
    [
        lambda dtype: SqueezeExcitation(),
        lambda dtype: ChannelAttention(4),
        lambda dtype: SpatialAttention(),
        lambda dtype: SpatialAttention("gaussian_pinwheel"),
    ],
    ids=["squeeze-excitation", "channels", "plain", "pinwheel"],
)
def test_gates_are_rounded_once(make, mean):
    wide, narrow = both(make, mean, (2, 64, 64, 16))
    np.testing.assert_allclose(np.asarray(narrow, np.float32), wide, rtol=2**-8)  # half a unit in the last place, 2^-9


@pytest.mark.parametrize("up", [lambda x: upsample_aligned(x, 2), lambda x: upsample_aligned(x, 4), upsample_double])
def test_upsampling_is_rounded_once(up):
    x = jnp.asarray(np.random.default_rng(0).normal(10, 1, (2, 8, 8, 3)), jnp.bfloat16)
    np.testing.assert_array_equal(jax.jit(up)(x), jax.jit(up)(x.astype(jnp.float32)).astype(jnp.bfloat16))


def test_folded_shifts_are_not_rounded():
    """A folded normalisation is a bias that is as large as the mean it takes away."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-100, 101, (2, 16, 16, 1)), jnp.bfloat16)  # exact, and so is the convolution itself
    norm = {"scale": jnp.ones(4), "bias": jnp.zeros(4)}
    stats = {"mean": jnp.asarray([10.3, 30.3, 100.3, 0.3]), "var": jnp.ones(4) - 1e-5}
    params = fold_norm(jnp.ones((1, 1, 1, 4)), norm, stats)
    out = jax.jit(Conv(4, use_bias=True, dtype=jnp.bfloat16).apply)({"params": params}, x)
    wanted = np.asarray(x, np.float64) - np.asarray(stats["mean"], np.float64)
    np.testing.assert_allclose(np.asarray(out, np.float64), wanted, rtol=2**-8)


def test_heads_are_float32():
    """What a network says is not rounded: of a logit of 10, bfloat16 keeps sixteenths."""
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 32, 32, 1)), jnp.float32)
    hrpe = HRPE(width=8, shuffle_units=1, dtype=jnp.bfloat16)
    mshnet = MSHNet(widths=(8, 8), depths=(1, 1), dtype=jnp.bfloat16)
    maps = [jax.jit(hrpe.init_with_output)(jax.random.key(0), images)[0]]
    maps += jax.jit(mshnet.init_with_output)(jax.random.key(0), images)[0].sides
    for values in maps:
        assert values.dtype == jnp.float32
        assert jnp.mean(values == values.astype(jnp.bfloat16)) < 0.1

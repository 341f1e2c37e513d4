"""Channels as bookkeeping: the same as splitting, joining and shuffling arrays."""

import jax
import jax.numpy as jnp
import numpy as np

from irjax.layers import cpu
from irjax.layers.channels import Channels, channel_shuffle
from irjax.layers.conv import Conv


def features(count):
    return jnp.arange(2 * 3 * count, dtype=jnp.float32).reshape(1, 2, 3, count)


def in_order(channels):
    array, order = channels.packed()
    return array[..., np.argsort(order)]


def test_units_in_a_row():
    """Three times: one half is changed, the halves are joined and shuffled."""
    x = features(16)
    lazy = Channels.of(x)
    for factor in (2.0, 3.0, 5.0):
        kept, y = jnp.split(x, 2, axis=-1)
        x = channel_shuffle(jnp.concatenate([kept, factor * y], axis=-1))
        low, high = lazy.halve()
        np.testing.assert_array_equal(in_order(low), kept)
        np.testing.assert_array_equal(in_order(high), y)
        lazy = low.join(factor * in_order(high)).shuffle()
        assert lazy.count == 16
        np.testing.assert_array_equal(in_order(lazy), x)
    assert len(lazy.parts) > 2  # nothing was copied together
    array, order = lazy.packed()
    np.testing.assert_array_equal(array, x[..., np.array(order)])


def test_converters_see_the_same_shuffle_with_channels_first():
    x = features(12)
    with cpu.for_converters():
        assert cpu.converting()
        shuffled = channel_shuffle(x, 3)
        jaxpr = str(jax.make_jaxpr(lambda x: channel_shuffle(x, 3))(x))
    assert not cpu.converting() and jaxpr.count("transpose") == 3
    np.testing.assert_array_equal(shuffled, channel_shuffle(x, 3))


def test_shuffle_of_one_part():
    np.testing.assert_array_equal(in_order(Channels.of(features(8)).shuffle()), channel_shuffle(features(8)))


def test_a_convolution_takes_channels_in_any_order():
    module, x = Conv(5, 3), features(8)
    variables = module.init(jax.random.key(0), x)
    array, order = Channels.of(x).shuffle().packed()
    assert list(order) != sorted(order)
    wanted = module.apply(variables, channel_shuffle(x))
    np.testing.assert_allclose(module.apply(variables, array, order=order), wanted, rtol=1e-5, atol=1e-6)


def test_it_passes_through_jit_and_grad():
    def total(x):
        return jnp.sum(in_order(jax.jit(lambda lazy: lazy.shuffle())(Channels.of(x))) * jnp.arange(8))

    np.testing.assert_array_equal(jax.grad(total)(features(8))[0, 0, 0], channel_shuffle(jnp.arange(8.0), groups=4))

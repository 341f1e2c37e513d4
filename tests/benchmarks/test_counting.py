"""Multiply-adds counted from shapes."""

import functools

import jax
import jax.numpy as jnp
import pytest

from irjax.benchmarks.counting import by_module, count_macs
from irjax.models import HRPE


def macs_of_hrpe(size, channels, batch=1, **options):
    module = HRPE(**options)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, channels)))
    images = jax.ShapeDtypeStruct((batch, size, size, channels), jnp.float32)
    return count_macs(functools.partial(module.apply, train=False), shapes, images)


def test_multiply_adds_of_the_published_network():
    counted = macs_of_hrpe(640, 3)
    assert sum(counted.values()) == pytest.approx(7.557e9, rel=1e-4)
    assert counted["HRPE/stem1/conv"] == 320 * 320 * 64 * 27
    assert counted["HRPE/encoder1/spatial/conv"] == 160 * 160 * 128 * 9  # depthwise, whatever form the CPU runs
    modules = by_module(counted)
    assert list(modules)[:2] == ["stem1", "stem2"] and sum(modules.values()) == sum(counted.values())


def test_multiply_adds_grow_with_the_batch():
    assert sum(macs_of_hrpe(64, 1, batch=3).values()) == 3 * sum(macs_of_hrpe(64, 1).values())


def test_loops_and_branches_are_counted():
    a = jnp.zeros((4, 5))
    b = jnp.zeros((5, 6))

    def looped(a, b):
        return jax.lax.scan(lambda carry, _: (carry, a @ b), 0, length=7)[1]

    assert sum(count_macs(looped, a, b).values()) == 7 * 4 * 5 * 6

    def either(a, b):
        return jax.lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: a[:, :6].sum() * jnp.ones((4, 6)))

    assert sum(count_macs(jax.jit(either), a, b[:, :6]).values()) == 4 * 5 * 6

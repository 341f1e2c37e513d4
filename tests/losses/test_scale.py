import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irjax.losses import location_loss, scale_dynamic_loss, scale_iou_loss, scale_weight, soft_iou
from irjax.losses.scale import VARIANTS

# dL/da of L = 1 - w IoU in the nested case, where the IoU is m / M: for a < g, and for a > g.
CLOSED_FORMS = {
    "variance": (
        lambda a, g, v: -(2 * a * g + g * v + v**2) / (g * (g + v) ** 2),
        lambda a, g, v: g * (2 * a * g + g * v + v**2) / (a**2 * (a + v) ** 2),
    ),
    "ratio": (lambda a, g, v: -2 * a / g**2, lambda a, g, v: 2 * g**2 / a**3),
    "absdiff": (
        lambda a, g, v: -(3 * g**2 + 6 * a * g - a**2) / (g * (3 * g - a) ** 2),
        lambda a, g, v: g * (3 * a**2 + 6 * a * g - g**2) / (a**2 * (3 * a - g) ** 2),
    ),
    "diff": (
        lambda a, g, v: -a * (4 * g - a) / (g * (2 * g - a) ** 2),
        lambda a, g, v: g**2 * (4 * a - g) / (a**2 * (2 * a - g) ** 2),
    ),
    "mobius": (
        lambda a, g, v: -3 * (a**2 + 6 * a * g + g**2) / (g * (3 * g + a) ** 2),
        lambda a, g, v: 3 * g * (a**2 + 6 * a * g + g**2) / (a**2 * (3 * a + g) ** 2),
    ),
}


def nested_loss(a, g, variant):
    return 1 - scale_weight(a, g, variant) * jnp.minimum(a, g) / jnp.maximum(a, g)


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=40, deadline=None)
@given(a=st.floats(1, 400), g=st.floats(1, 400))
def test_gradient_is_the_closed_form(variant, a, g):
    if abs(a - g) < 1e-2 * g:
        return
    below, above = CLOSED_FORMS[variant]
    wanted = (below if a < g else above)(a, g, ((a - g) / 2) ** 2)
    np.testing.assert_allclose(jax.grad(nested_loss)(a, g, variant), wanted, rtol=2e-4, atol=1e-7)
    with jax.enable_x64(True):
        # The weight itself is computed in float32, so the step is a large one, of second order.
        step = 1e-2 * min(a, g, abs(a - g))
        ends = [float(nested_loss(jnp.float32(a + s), jnp.float32(g), variant)) for s in (step, -step)]
    numeric = (ends[0] - ends[1]) / (float(np.float32(a + step)) - float(np.float32(a - step)))
    np.testing.assert_allclose(numeric, wanted, rtol=5e-2, atol=1e-4)


@pytest.mark.parametrize(
    "variant, weights, gradients, monotonic",
    [
        ("variance", (0.885, 0.846, 0.833, 0.867, 0.857, 0.909), (-0.87, -0.79, -0.83, -1.27, 0.48, 0.19), False),
        ("ratio", (0.17, 0.50, 0.67, 0.83, 0.75, 0.50), (-0.33, -1.00, -1.33, -1.67, 0.84, 0.25), True),
        ("absdiff", (0.41, 0.60, 0.71, 0.85, 0.78, 0.60), (-0.49, -0.92, -1.20, -1.56, 0.77, 0.23), True),
        ("diff", (0.09, 0.33, 0.50, 0.71, 0.60, 0.33), (-0.19, -0.78, -1.25, -1.94, 0.88, 0.19), True),
    ],
)
def test_table_at_36_pixels(variant, weights, gradients, monotonic):
    areas, g = (6.0, 18.0, 24.0, 30.0, 48.0, 72.0), 36.0
    np.testing.assert_allclose([scale_weight(a, g, variant) for a in areas], weights, atol=6e-3)
    slopes = [g * jax.grad(nested_loss)(a, g, variant) for a in areas]
    np.testing.assert_allclose(slopes, gradients, atol=6e-3)
    assert gradient_is_monotonic(variant) == monotonic


def gradient_is_monotonic(variant, g=36.0):
    """Whether |dL/da| rises all the way to the true area, and falls behind it."""
    slope = jax.vmap(jax.grad(lambda a: nested_loss(a, g, variant)))
    below, above = (np.abs(slope(jnp.linspace(*ends, 300))) for ends in ((0.5, g - 0.1), (g + 0.1, 4 * g)))
    return bool((np.diff(below) > -1e-6).all() and (np.diff(above) < 1e-6).all())


def test_mobius_is_monotonic_only_above_the_true_area():
    g = 36.0
    slope = jax.vmap(jax.grad(lambda a: nested_loss(a, g, "mobius")))
    below = np.abs(slope(jnp.linspace(0.5, g - 0.1, 300)))
    assert (np.diff(below) > 0).all() == gradient_is_monotonic("mobius")


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "variance"])
@settings(max_examples=30, deadline=None)
@given(a=st.floats(0.1, 300), g=st.floats(0.1, 300), scale=st.floats(0.1, 10))
def test_only_the_relative_difference_counts(variant, a, g, scale):
    s = abs(a - g) / (a + g)
    wanted = {
        "ratio": (1 - s) / (1 + s),
        "absdiff": 1 / (1 + 2 * s),
        "diff": (1 - s) / (1 + 3 * s),
        "mobius": (2 - s) / (2 + s),
    }[variant]
    for factor in (1.0, scale):
        np.testing.assert_allclose(scale_weight(factor * a, factor * g, variant), wanted, rtol=1e-4, atol=1e-6)


def test_variance_turns_at_two_roots_of_the_true_area():
    g = 36.0
    slope = lambda a: jax.grad(lambda a: scale_weight(a, g, "variance"))(a)  # noqa: E731
    low, high = g - 2 * math.sqrt(g), g + 2 * math.sqrt(g)
    assert slope(low - 2) < 0 < slope(low + 2)
    assert slope(high - 2) < 0 < slope(high + 2)


@pytest.mark.parametrize("loss", [scale_iou_loss, scale_dynamic_loss])
def test_arms_of_diff_reach_the_losses(loss):
    """Of the first image all that is predicted and more is true, of the second all that is true and more predicted."""
    target = np.zeros((2, 8, 8), np.float32)
    target[0, 1:7, 1:7] = target[1, 2:6, 2:6] = 1
    logits = np.where(target[::-1] > 0, 40.0, -40.0).astype(np.float32)
    share = np.ones(2) if loss is scale_iou_loss else 1 + 0.5 * np.ones(2)  # of more than 81 / 4096 of the area
    rest = 0 if loss is scale_iou_loss else (2 - share) * location_loss(logits, target)
    for over, under in ((1, 1), (3, 1), (1, 0)):
        weights = np.array([16 / (36 + under * 20), 16 / (36 + over * 20)])
        wanted = share * (1 - weights * 16 / 36) + rest
        np.testing.assert_allclose(loss(logits, target, variant="diff", over=over, under=under), wanted, rtol=1e-5)


def test_arms_of_diff():
    wanted = 24 / (36 + 0.5 * 12)
    np.testing.assert_allclose(scale_weight(24.0, 36.0, "diff", under=0.5), wanted, rtol=1e-6)
    np.testing.assert_allclose(scale_weight(36.0, 24.0, "diff", over=0.5), wanted, rtol=1e-6)
    np.testing.assert_allclose(scale_weight(24.0, 36.0, "diff", over=9.0), 0.5, rtol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_false_alarm_is_rewarded_just_where_the_weight_outruns_the_union(variant):
    target = jnp.zeros((1, 16, 16)).at[:, 4:10, 4:10].set(1.0)  # g = 36
    for inside in np.linspace(0.05, 0.95, 10):
        p = jnp.where(target > 0, inside, 0.01)
        logits = jnp.log(p) - jnp.log1p(-p)
        grad = jax.grad(lambda x: scale_iou_loss(x, target, variant=variant).sum())(logits)[0, 0, 0]
        a, g = float(p.sum()), 36.0
        union = a + g - float((p * target).sum())
        slope = float(jax.grad(scale_weight)(a, g, variant))
        rewarded = slope / float(scale_weight(a, g, variant)) > 1 / union
        assert (float(grad) < 0) == rewarded
        if variant == "ratio" and a < g:
            assert rewarded


@pytest.mark.parametrize("variant", [*VARIANTS, None])
def test_an_image_without_target_pushes_predictions_down(variant):
    logits, target = jnp.full((1, 8, 8), -1.0), jnp.zeros((1, 8, 8))
    for location in (None, "centroid", "official"):
        value, grad = jax.value_and_grad(
            lambda x, where=location: scale_iou_loss(x, target, variant=variant, location=where).sum()
        )(logits)
        area = 64 / (1 + math.e)
        np.testing.assert_allclose(value, 1 - 1 / (1 + area), rtol=1e-5)
        assert np.isfinite(grad).all() and (grad > 0).all()
    assert float(location_loss(logits, target)[0]) == 0


def test_a_perfect_mask_costs_nothing():
    target = jnp.zeros((2, 32, 32)).at[0, 5:9, 7:12].set(1.0).at[1, 20, 20].set(1.0)
    logits = jnp.where(target > 0, 40.0, -40.0)
    for variant in (*VARIANTS, None):
        for location in (None, "centroid", "official"):
            np.testing.assert_allclose(scale_iou_loss(logits, target, variant=variant, location=location), 0, atol=1e-4)
    np.testing.assert_allclose(scale_dynamic_loss(logits, target), 0, atol=1e-4)


def test_centroid_location_ignores_the_mass_and_the_official_one_does_not():
    target = jnp.zeros((1, 32, 32)).at[0, 8:12, 16:20].set(1.0)
    half = jnp.where(target > 0, 0.0, -60.0)  # the right place, half the mass
    np.testing.assert_allclose(location_loss(half, target), 0, atol=1e-4)
    np.testing.assert_allclose(location_loss(half, target, form="official"), 0.5, atol=1e-3)
    far = jnp.roll(half, 12, axis=2)
    assert float(location_loss(far, target)[0]) > 0.2


def test_dynamic_share_is_of_each_image_unless_shared():
    target = jnp.zeros((2, 64, 64)).at[0, 3, 3].set(1.0).at[1, 20:50, 20:50].set(1.0)
    logits = jax.random.normal(jax.random.key(0), target.shape)
    alone = scale_dynamic_loss(logits[:1], target[:1])
    np.testing.assert_allclose(scale_dynamic_loss(logits, target)[:1], alone, rtol=1e-6)
    assert abs(float(scale_dynamic_loss(logits, target, shared=True)[0] - alone[0])) > 1e-3


@pytest.mark.parametrize("name, call", [
    ("soft_iou", lambda x, t: soft_iou(x, t)),
    ("sls_warmup", lambda x, t: scale_iou_loss(x, t, variant=None)),
    ("sls", lambda x, t: scale_iou_loss(x, t, variant="variance", location="official")),
    ("sls_no_location", lambda x, t: scale_iou_loss(x, t, variant="variance")),
    ("location", lambda x, t: location_loss(x, t, form="official")),
    ("sdm", lambda x, t: scale_dynamic_loss(x, t, location="official", shared=True)),
])  # fmt: skip
def test_published_losses_and_gradients(shared, name, call):
    with np.load(shared / "golden" / "mshnet_losses_pconv.npz") as recorded:
        logits, target = recorded["loss/logits"], recorded["loss/target"]
        wanted, slope = recorded[f"loss/{name}/value"], recorded[f"loss/{name}/grad"]
    value, grad = jax.value_and_grad(lambda x: call(x, target).mean())(logits)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    assert np.abs(grad - slope).max() <= 1e-4 * np.abs(slope).max()


def test_bad_input():
    logits = jnp.zeros((1, 8, 8))
    with pytest.raises(ValueError, match="unknown scale weight 'sls'.*variance"):
        scale_weight(1.0, 1.0, "sls")
    with pytest.raises(ValueError, match="unknown location loss 'polar'"):
        scale_iou_loss(logits, logits, location="polar")
    with pytest.raises(ValueError, match=r"both be \[B, H, W\].*\(1, 8, 8\).*\(1, 8, 9\)"):
        scale_iou_loss(logits, jnp.zeros((1, 8, 9)))


def test_one_trace():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def loss(logits, target):
        return scale_iou_loss(logits, target, variant="diff", location="centroid")

    for seed in range(3):
        logits = jnp.asarray(np.random.default_rng(seed).normal(size=(2, 16, 16)), jnp.float32)
        chex.assert_shape(loss(logits, (logits > 1.5).astype(jnp.float32)), (2,))

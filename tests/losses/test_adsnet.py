"""The losses of ADSNet against plain numpy."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from irjax.losses.adsnet import (
    adsnet_loss,
    dilated,
    neighbourhood_iou,
    target_patch_recall,
)
from irjax.losses.segmentation import by_positives, focal, soft_iou
from irjax.ops.patches import largest_in


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


@pytest.fixture(scope="module")
def target():
    """One target across two cells of the first image, none in the second."""
    value = np.zeros((2, 64, 64), bool)
    value[0, 20:24, 29:35] = True
    return value


def outputs(size=64, cell=16, **changes):
    maps = lambda *shape, seed: jnp.asarray(np.random.default_rng(seed).normal(size=(2, *shape)), jnp.float32)  # noqa: E731
    sides = [size // s for s in (16, 8, 4)]
    values = {
        "logits": maps(size, size, seed=0) - 2,
        "classes": tuple(maps(n, n, seed=n) for n in sides),
        "scores": tuple(maps(n, n, seed=50 + n) for n in sides),
        "decisions": tuple(maps(size // cell, size // cell, 2, seed=90 + n) for n in range(2)),
        "kept": tuple((maps(size // cell, size // cell, seed=70 + n) > 0).astype(jnp.float32) for n in range(2)),
    }
    return types.SimpleNamespace(**{**values, **changes})


def test_pooling_and_dilation(target):
    cells = largest_in(target, 16)
    assert np.argwhere(cells).tolist() == [[0, 1, 1], [0, 1, 2]]
    assert np.asarray(dilated(cells))[0].tolist() == [[1, 1, 1, 1]] * 3 + [[0, 0, 0, 0]]


def by_hand(form, logits, target, positives=(24, 1)):
    """Summed over the pixels, divided by the positives, 24 and none, or the least that counts."""
    p, y = sigmoid(logits), target.astype(float)
    if form == "focal":
        value = -0.25 * y * (1 - p) ** 2 * np.log(p) - 0.75 * (1 - y) * p**2 * np.log(1 - p)
        return value.sum(axis=(1, 2)) / positives
    return (-y * np.log(p) - (1 - y) * np.log(1 - p)).sum(axis=(1, 2)) / [32, 32]


def test_focal_loss_is_divided_by_the_positives(target):
    logits = np.asarray(jax.random.normal(jax.random.key(0), target.shape))
    y = jnp.asarray(target, jnp.float32)
    np.testing.assert_allclose(
        by_positives(focal(jnp.asarray(logits), y), y), by_hand("focal", logits, target), rtol=1e-4
    )


def test_terms_of_the_segmentation_loss(target):
    out = outputs(classes=outputs().classes[:1], scores=None, decisions=(None, None))
    own = by_hand("focal", *(np.asarray(x) for x in (out.classes[0], largest_in(target, 16))), positives=[2, 1])
    parts = {form: by_hand(form, out.logits, target) for form in ("focal", "cross_entropy")}
    parts["soft_iou"] = soft_iou(out.logits, jnp.asarray(target))
    np.testing.assert_allclose(adsnet_loss(out, target), own + parts["focal"], rtol=1e-4)  # the paper's
    for terms in (("cross_entropy",), ("soft_iou",), ("focal", "soft_iou"), ("cross_entropy", "soft_iou")):
        wanted = own + sum(parts[term] for term in terms)
        np.testing.assert_allclose(adsnet_loss(out, target, segmentation=terms), wanted, rtol=1e-4)


@pytest.mark.parametrize("terms", [("dice",), "focal", (), ("focal", "focal")])
def test_terms_that_there_are_not(target, terms):
    with pytest.raises(ValueError, match="segmentation must have one or several different ones of"):
        adsnet_loss(outputs(), target, segmentation=terms)


def test_iou_of_neighbourhoods(target):
    logits = np.asarray(outputs().logits)
    iou, defined = neighbourhood_iou(jnp.asarray(logits), jnp.asarray(target, jnp.float32), 16)
    p = np.pad(sigmoid(logits), ((0, 0), (16, 16), (16, 16)))
    y = np.pad(target.astype(float), ((0, 0), (16, 16), (16, 16)))
    for b, i, j in np.ndindex(2, 4, 4):
        a, t = (v[b, 16 * i : 16 * i + 48, 16 * j : 16 * j + 48] for v in (p, y))
        both = (a * t).sum()
        np.testing.assert_allclose(iou[b, i, j], both / (a.sum() + t.sum() - both), rtol=1e-4, atol=1e-6)
        assert bool(defined[b, i, j]) == (t.sum() > 0 or a.sum() > 0.5)
    quiet = neighbourhood_iou(jnp.full((1, 64, 64), -12.0), jnp.zeros((1, 64, 64)), 16)[1]
    assert not np.asarray(quiet).any()
    assert not np.asarray(
        jax.grad(lambda x: neighbourhood_iou(x, jnp.asarray(target, jnp.float32), 16)[0].sum())(logits)
    ).any()


def test_the_parts_add_up(target):
    out, y = outputs(), jnp.asarray(target)
    whole = adsnet_loss(out, y)
    assert whole.shape == (2,) and np.isfinite(whole).all()
    no_masks = adsnet_loss(outputs(decisions=(None, None)), y)
    wanted = np.zeros(2)
    occupied = np.asarray(dilated(largest_in(target, 16)))
    for decision, mask, fraction in zip(out.decisions, out.kept, (0.25, 0.5), strict=True):
        wanted += 2 * (np.asarray(mask).mean(axis=(1, 2)) - (1 - fraction)) ** 2
        p = sigmoid(decision[..., 0] - decision[..., 1])
        wanted += 0.5 * -(occupied * np.log(p) + (1 - occupied) * np.log(1 - p)).mean(axis=(1, 2))
    np.testing.assert_allclose(whole - no_masks, wanted, rtol=1e-4)
    segmentation = by_hand("focal", out.logits, target)
    sites = [(x, largest_in(target, 64 // x.shape[1])) for x in out.classes]
    classes = [by_positives(focal(x, y), y) for x, y in sites]
    bare = adsnet_loss(outputs(decisions=(None, None), scores=None), y)
    np.testing.assert_allclose(bare, segmentation + sum(classes) / 3, rtol=1e-5)
    assert (np.asarray(no_masks) > np.asarray(bare)).all()


@pytest.mark.parametrize("cell", [8, 16, 32])
def test_cells_of_other_sizes(target, cell):
    value = adsnet_loss(outputs(cell=cell), jnp.asarray(target), cell=cell)
    assert value.shape == (2,) and np.isfinite(value).all()


def test_recall_of_target_patches(target):
    first = np.ones((2, 4, 4))
    second = np.ones((2, 4, 4))
    second[0, 1, 2] = 0
    np.testing.assert_array_equal(target_patch_recall([first, second], target), [[[2, 2], [1, 2]], [[0, 0], [0, 0]]])


def test_silent_heads_are_refused(target):
    with pytest.raises(ValueError, match="needs the heads"):
        adsnet_loss(outputs(classes=()), jnp.asarray(target))

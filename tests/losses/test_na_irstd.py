"""The losses of Na-IRSTD against plain numpy."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from irjax.losses.na_irstd import mask_loss, na_irstd_loss, score_loss, selection_counts
from irjax.ops.patches import mask_of


@pytest.fixture(scope="module")
def target():
    """One target on the border of two patches of the first image, none in the second."""
    value = np.zeros((2, 64, 96), bool)
    value[0, 20:24, 29:35] = True
    return value


def outputs(**changes):
    normal = lambda *shape, seed: jnp.asarray(np.random.default_rng(seed).normal(size=(2, *shape)), jnp.float32)  # noqa: E731
    indices = jnp.array([[0, 3], [1, 2]])
    values = {
        "logits": normal(64, 96, seed=0),
        "coarse": normal(16, 24, seed=1),
        "scores": normal(2, 3, seed=2),
        "selected": (mask_of(indices, (2, 3)),),
    }
    return types.SimpleNamespace(**{**values, **changes})


def cross_entropy(logits, y):
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    return -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(axis=(1, 2)), p


@pytest.mark.parametrize("form", ["pixels", "targets"])
def test_masks(target, form):
    wanted = 0
    for logits, y, least in (
        (outputs().logits, target.astype(float), 32),
        (outputs().coarse, target.reshape(2, 16, 4, 24, 4).any(axis=(2, 4)).astype(float), 2),
    ):
        entropy, p = cross_entropy(logits, y)
        if form == "targets":
            entropy = entropy * y[0].size / np.maximum(y.sum(axis=(1, 2)), least)
        both, sums = (p * y).sum(axis=(1, 2)), (p + y).sum(axis=(1, 2))
        wanted = wanted + entropy + 1 - (2 * both + 1) / (sums + 1)
    np.testing.assert_allclose(mask_loss(outputs(), jnp.asarray(target), cross_entropy=form), wanted, rtol=1e-5)


def test_no_such_cross_entropy(target):
    with pytest.raises(ValueError, match="cross_entropy must be one of"):
        mask_loss(outputs(), jnp.asarray(target), cross_entropy="sites")


def test_scores_of_one_or_all_stages():
    y = np.random.default_rng(0).uniform(size=(2, 2, 3))
    wanted = cross_entropy(outputs().scores, y)[0]
    np.testing.assert_allclose(score_loss(outputs(), jnp.asarray(y, jnp.float32)), wanted, rtol=1e-5)
    stages = jnp.stack([outputs().scores, -outputs().scores], axis=1)
    both = (wanted + cross_entropy(-outputs().scores, y)[0]) / 2
    np.testing.assert_allclose(score_loss(outputs(scores=stages), jnp.asarray(y, jnp.float32)), both, rtol=1e-5)


def test_one_stage_is_the_sum(target):
    y, relevance = jnp.asarray(target), jnp.full((2, 2, 3), 0.3)
    masks, scores = mask_loss(outputs(), y), score_loss(outputs(), relevance)
    np.testing.assert_allclose(na_irstd_loss(outputs(), y, relevance, score_weight=0.5), masks + 0.5 * scores)
    np.testing.assert_allclose(na_irstd_loss(outputs(), y), masks)
    perfect = outputs(
        logits=jnp.where(y, 40.0, -40.0), coarse=jnp.where(y.reshape(2, 16, 4, 24, 4).any(axis=(2, 4)), 40.0, -40.0)
    )
    assert float(jnp.abs(na_irstd_loss(perfect, y)).max()) < 1e-5


def test_coverage_and_recall(target):
    counts = selection_counts(outputs().selected, jnp.asarray(target))
    np.testing.assert_array_equal(counts, [[[1, 2, 2]], [[0, 2, 0]]])
    both, selected, true = counts.sum(axis=0)[0]
    assert both / selected == 1 / 4 and both / true == 1 / 2
    stages = outputs(selected=(outputs().selected[0], jnp.ones((2, 2, 3))))
    np.testing.assert_array_equal(selection_counts(stages.selected, jnp.asarray(target))[:, 1], [[2, 6, 2], [0, 6, 0]])


def test_without_a_native_branch(target):
    bare = outputs(scores=None, selected=())
    assert np.isfinite(na_irstd_loss(bare, jnp.asarray(target))).all()
    with pytest.raises(ValueError, match="needs a native branch"):
        na_irstd_loss(bare, jnp.asarray(target), jnp.zeros((2, 2, 3)))
    with pytest.raises(ValueError, match="needs a native branch"):
        selection_counts(bare.selected, jnp.asarray(target))
    with pytest.raises(ValueError, match=r"got \(2, 2, 3\) and \(2, 3, 3\)"):
        score_loss(outputs(), jnp.zeros((2, 3, 3)))

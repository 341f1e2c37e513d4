import jax
import jax.numpy as jnp
import numpy as np
import pytest

from irjax.losses import binary_cross_entropy, dice, focal, soft_iou


@pytest.fixture
def maps():
    keys = jax.random.split(jax.random.key(0))
    return jax.random.normal(keys[0], (3, 12, 10)) * 3, (jax.random.uniform(keys[1], (3, 12, 10)) > 0.8) * 1.0


def test_against_pytorch(maps):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    logits, target = (torch.from_numpy(np.array(x, np.float64)) for x in maps)
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((1, 2))
    np.testing.assert_allclose(binary_cross_entropy(*maps), plain, rtol=1e-5)
    weighted = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, target, reduction="none", pos_weight=torch.tensor(4.0)
    ).mean((1, 2))
    np.testing.assert_allclose(binary_cross_entropy(*maps, positive_weight=4.0), weighted, rtol=1e-5)


def test_formulas(maps):
    p, t = (np.asarray(x, np.float64) for x in (jax.nn.sigmoid(maps[0]), maps[1]))
    both, a, g = (x.sum((1, 2)) for x in (p * t, p, t))
    np.testing.assert_allclose(soft_iou(*maps), 1 - (both + 1) / (a + g - both + 1), rtol=1e-5)
    np.testing.assert_allclose(dice(*maps), 1 - (2 * both + 1) / (a + g + 1), rtol=1e-5)
    right = np.where(t > 0, p, 1 - p)
    alpha = np.where(t > 0, 0.25, 0.75)
    np.testing.assert_allclose(focal(*maps), (-alpha * (1 - right) ** 2 * np.log(right)).mean((1, 2)), rtol=1e-4)


@pytest.mark.parametrize("loss", [soft_iou, dice, binary_cross_entropy, focal])
def test_perfect_masks_cost_nothing_and_sure_mistakes_stay_finite(loss, maps):
    target = maps[1]
    sure = jnp.where(target > 0, 90.0, -90.0)
    np.testing.assert_allclose(loss(sure, target), 0, atol=1e-6)
    value, grad = jax.value_and_grad(lambda x: loss(x, target).sum())(-sure)
    assert np.isfinite(value) and value > 1 and np.isfinite(grad).all()
    with pytest.raises(ValueError, match="both be"):
        loss(sure, target[:1])

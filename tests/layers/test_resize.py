import jax
import numpy as np
import pytest

from irjax.layers.resize import aligned_weights, upsample_aligned


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (1, 1, 4, 2), (1, 8, 8, 1)])
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_is_that_of_pytorch(shape, factor):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(x.transpose(0, 3, 1, 2)), scale_factor=factor, mode="bilinear", align_corners=True
    )
    np.testing.assert_allclose(upsample_aligned(x, factor), wanted.numpy().transpose(0, 2, 3, 1), atol=1e-5)


@pytest.mark.parametrize("factor", [2, 4])
def test_is_the_matrix_product_and_its_gradient_the_transposed_one(factor):
    x = np.random.default_rng(1).normal(size=(1, 6, 9, 2)).astype(np.float32)
    rows, columns = aligned_weights(6, 6 * factor), aligned_weights(9, 9 * factor)
    y, pull = jax.vjp(lambda x: upsample_aligned(x, factor), x)
    np.testing.assert_allclose(y, np.einsum("ih,jw,bhwc->bijc", rows, columns, x), atol=1e-5)
    grad = np.random.default_rng(2).normal(size=y.shape).astype(np.float32)
    np.testing.assert_allclose(pull(grad)[0], np.einsum("ih,jw,bijc->bhwc", rows, columns, grad), atol=1e-4)


def test_corners_stay_and_constants_stay():
    x = np.random.default_rng(3).normal(size=(1, 4, 4, 1)).astype(np.float32)
    y = np.asarray(upsample_aligned(x, 2))
    np.testing.assert_allclose(y[0, [0, 0, -1, -1], [0, -1, 0, -1]], x[0, [0, 0, -1, -1], [0, -1, 0, -1]], atol=1e-6)
    np.testing.assert_allclose(upsample_aligned(np.ones((1, 3, 5, 2), np.float32), 2), 1, atol=1e-6)
    with pytest.raises(ValueError, match="at least 1"):
        upsample_aligned(x, 0)

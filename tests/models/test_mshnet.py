import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from irjax import convert
from irjax.layers.attention import SPATIAL_KINDS
from irjax.losses import scale_iou_loss
from irjax.models import MSHNet

TINY = {"widths": (4, 8, 8), "depths": (1, 1, 1)}
TWO_SCALES = {"widths": (4, 8), "depths": (1, 1)}


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    "kind, extra", [("plain", 0), ("gaussian", 16), ("gaussian_pinwheel", 16), ("gaussian_pinwheel_rotated", 32)]
)
def test_parameters_and_shapes(kind, extra):
    model = MSHNet(spatial_attention=kind)
    images = jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    assert count(shapes["params"]) == 4_065_513 + extra
    output = jax.eval_shape(model.apply, shapes, images)
    chex.assert_shape(output.logits, (2, 256, 256))
    assert [side.shape for side in output.sides] == [(2, 256 >> i, 256 >> i) for i in range(4)]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(output))


def test_an_ablated_kernel_may_have_no_free_weights():
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    model = MSHNet(spatial_attention="gaussian_pinwheel_rotated", free_weight=False)
    assert count(jax.eval_shape(model.init, jax.random.key(0), images)["params"]) == 4_065_513 + 16 * (2 - 98)


@pytest.mark.parametrize("channels, parameters", [(3, 4_065_721), (1, 4_065_721 - 2 * 2 * 4 * 4)])
def test_pinwheels_in_the_first_layers(channels, parameters):
    images = jax.ShapeDtypeStruct((2, 256, 256, channels), jnp.float32)
    model = MSHNet(first_layers="pinwheel")
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    assert count(shapes["params"]) == parameters
    assert shapes["params"]["stem"]["across"]["kernel"].shape == (1, 4, channels, 4)
    assert shapes["params"]["encoder0_0"]["conv1"]["down"]["kernel"].shape == (3, 1, 16, 4)
    output = jax.eval_shape(model.apply, shapes, images)
    chex.assert_shape(output.logits, (2, 256, 256))


def test_pinwheels_learn_and_have_no_published_counterpart():
    model, images = (
        MSHNet(**TWO_SCALES, first_layers="pinwheel"),
        jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 24, 1)), jnp.float32),
    )
    variables = jax.jit(model.init)(jax.random.key(1), images)

    def loss(params):
        output, _ = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        return jnp.mean(output.logits**2)

    grads = jax.jit(jax.grad(loss))(variables["params"])
    for part in ("across", "down", "join"):
        for layer in (grads["stem"], grads["encoder0_0"]["conv1"]):
            assert np.abs(layer[part]["kernel"]).max() > 0
    with pytest.raises(ValueError, match="no published counterpart for the variable .*(across|down|join)"):
        convert.to_torch("mshnet", variables)
    published = {f"conv_init.{name}": np.zeros(1, np.float32) for name in ("cw.conv.weight", "ch.conv.weight")}
    with pytest.raises(ValueError, match="not a mshnet checkpoint.*2 extra: conv_init.ch.conv.weight"):
        convert.from_torch("mshnet", published)
    with pytest.raises(ValueError, match="first_layers must be one of .*, got 'round'"):
        jax.eval_shape(MSHNet(**TINY, first_layers="round").init, jax.random.key(0), images)


@pytest.fixture(scope="module")
def tiny():
    model = MSHNet(**TINY, spatial_attention="gaussian_pinwheel_rotated")
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 24, 1)), jnp.float32)
    return model, images, jax.jit(model.init)(jax.random.key(1), images)


@pytest.mark.parametrize("kind", SPATIAL_KINDS)
def test_one_trace_and_a_finite_gradient_everywhere(kind, tiny):
    chex.clear_trace_counter()  # it knows functions by name, and this one is made once for each kind
    model, images = MSHNet(**TWO_SCALES, spatial_attention=kind), tiny[1]
    variables = jax.jit(model.init)(jax.random.key(1), images)
    target = jnp.zeros(images.shape[:3]).at[:, 5:8, 9:12].set(1.0)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def gradient(variables, images):
        def loss(params):
            output, _ = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
            return jnp.mean(scale_iou_loss(output.logits, target) + scale_iou_loss(output.sides[0], target))

        return jax.grad(loss)(variables["params"])

    for scale in (1.0, 0.5):
        grads = gradient(variables, scale * images)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    # Bias before batch normalisation has no effect; all else does.
    moved = {jax.tree_util.keystr(path): np.abs(leaf).max() > 0 for path, leaf in jax.tree.leaves_with_path(grads)}
    assert all(value for name, value in moved.items() if "bias" not in name), moved


def test_half_precision_keeps_logits_and_parameters_in_float32(tiny):
    model, images, variables = tiny
    half = model.clone(dtype=jnp.bfloat16)
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(half.init, jax.random.key(1), images), variables)
    logits = jax.jit(half.apply)(variables, images).logits
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, jax.jit(model.apply)(variables, images).logits, atol=0.1)


def test_bad_input(tiny):
    model, images, variables = tiny
    with pytest.raises(ValueError, match=r"multiples of 4, got \(18, 24\)"):
        jax.eval_shape(model.apply, variables, jnp.zeros((1, 18, 24, 1)))
    with pytest.raises(ValueError, match=r"\[B, H, W, C\], got shape \(16, 24, 1\)"):
        jax.eval_shape(model.apply, variables, images[0])
    with pytest.raises(ValueError, match="unknown spatial attention 'wide'"):
        jax.eval_shape(MSHNet(**TINY, spatial_attention="wide").init, jax.random.key(0), images)


# --- the published network --------------------------------------------------------------------------------------------


def test_published_network(shared):
    with np.load(shared / "golden" / "mshnet_losses_pconv.npz") as recorded:
        start = "mshnet/state/"
        state = {key.removeprefix(start): recorded[key] for key in recorded if key.startswith(start)}
        images, logits = recorded["mshnet/input_nhwc"], recorded["mshnet/logits"]
        warm = recorded["mshnet/logits_warmup"]
        sides = [recorded[f"mshnet/side_logits_{i}"] for i in range(4)]
    variables = convert.from_torch("mshnet", {"state_dict": state})
    chex.assert_trees_all_equal(variables, convert.from_torch("mshnet", state))
    output = jax.jit(MSHNet().apply)(variables, images)
    np.testing.assert_allclose(output.logits, logits, atol=1e-4)
    np.testing.assert_allclose(output.sides[0], warm, atol=1e-4)
    for ours, theirs in zip(output.sides, sides, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    back = convert.to_torch("mshnet", variables)
    assert set(back) == set(state)
    np.testing.assert_array_equal(back["decoder_2.0.shortcut.0.weight"], state["decoder_2.0.shortcut.0.weight"])


@pytest.mark.parametrize("channels, size", [(3, (48, 32)), (1, (16, 80))])
def test_other_weights_and_sizes_against_pytorch(torch_network, channels, size):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    net = torch_network("torch_mshnet.py", "TorchMSHNet", channels).eval()
    images = np.random.default_rng(0).normal(size=(2, *size, channels)).astype(np.float32)
    with torch.no_grad():
        logits, sides = net(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    output = jax.jit(MSHNet().apply)(convert.from_torch("mshnet", net.state_dict()), images)
    assert float(logits.abs().max()) > 0.1
    np.testing.assert_allclose(output.logits, logits[:, 0], atol=1e-4)
    for ours, theirs in zip(output.sides, sides, strict=True):
        np.testing.assert_allclose(ours, theirs[:, 0], atol=1e-4)


def test_a_spire_checkpoint_is_refused():
    with pytest.raises(ValueError, match="not a mshnet checkpoint.*missing.*extra"):
        convert.from_torch("mshnet", {"conv1.weight": np.zeros((64, 3, 3, 3), np.float32)})

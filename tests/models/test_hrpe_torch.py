"""HRPE against an independent PyTorch HRPE with random weights; needs the extra `torch`, no other file."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from irjax import convert
from irjax.models import HRPE

torch = pytest.importorskip("torch", reason="compares with PyTorch (extra torch)")


def nchw(images):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


@pytest.fixture(scope="module", params=[1, 3])
def pair(request, torch_network):
    net = torch_network("torch_hrpe.py", "TorchHRPE", request.param)
    images = np.random.default_rng(1).normal(size=(2, 64, 96, request.param)).astype(np.float32)
    return net, convert.from_torch("spire", net.state_dict()), images


def test_parameter_count(pair):
    net, variables, _ = pair
    ours = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert ours == sum(p.numel() for p in net.parameters())


def test_eval_heatmap(pair):
    net, variables, images = pair
    with torch.no_grad():
        wanted = net.eval()(nchw(images)).numpy()
    assert np.abs(wanted).max() > 0.1
    np.testing.assert_allclose(jax.jit(HRPE().apply)(variables, images), wanted, atol=1e-4)


def test_training_step(torch_network):
    """Loss, every gradient, and running statistics.

    A ReLU whose input is within rounding of zero may open in one program and not in the other, which changes gradients
    by some 1e-3. That is rare, so the median over three inputs is judged; an error would show in all.
    """
    net = torch_network("torch_hrpe.py", "TorchHRPE", 1)
    variables = convert.from_torch("spire", net.state_dict())

    @jax.jit
    def step(params, images, target):
        def loss_fn(params):
            heatmap, updated = HRPE().apply({**variables, "params": params}, images, train=True, mutable="batch_stats")
            return 2 * jnp.mean((heatmap - target) ** 2), updated["batch_stats"]

        return jax.value_and_grad(loss_fn, has_aux=True)(params)

    errors = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        images = rng.normal(size=(2, 32, 48, 1)).astype(np.float32)
        target = rng.uniform(size=(2, 8, 12)).astype(np.float32)
        (loss, stats), grads = step(variables["params"], images, target)
        ours = convert.to_torch("spire", {"params": grads, "batch_stats": stats})

        fresh = copy.deepcopy(net).train()
        wanted = 2 * torch.mean((fresh(nchw(images)) - torch.from_numpy(target)) ** 2)
        wanted.backward()
        np.testing.assert_allclose(loss, wanted.item(), rtol=1e-5)
        for name, value in fresh.named_buffers():
            if "running" in name:
                np.testing.assert_allclose(ours[name], value.numpy(), atol=1e-5, rtol=1e-5, err_msg=name)
        gradients = {name: parameter.grad.numpy() for name, parameter in fresh.named_parameters()}
        # Some biases stand before a normalisation that removes them: their gradient is rounding around zero.
        floor = 1e-3 * max(np.abs(g).max() for g in gradients.values())
        errors.append(max(np.abs(ours[n] - g).max() / max(np.abs(g).max(), floor) for n, g in gradients.items()))
    assert np.median(errors) <= 1e-4, errors


def test_converted_weights_load_in_pytorch(pair):
    net, variables, _ = pair
    state = {key: torch.from_numpy(np.asarray(value)) for key, value in convert.to_torch("spire", variables).items()}
    assert set(state) == set(net.state_dict())
    net.load_state_dict(state, strict=True)

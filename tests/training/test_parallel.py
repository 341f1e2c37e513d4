import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from irjax.experiments.spire import SpireConfig
from irjax.methods.spire import ModelConfig, objective
from irjax.training.parallel import data_parallel, replicate
from irjax.training.state import TrainState
from irjax.training.steps import make_train_step

KEY = jax.random.key(3)
# Adam divides by the gradient's size, so that it would make much of rounding where a gradient is nearly zero.
SGD = optax.sgd(0.1, momentum=0.9)


@pytest.fixture(scope="module")
def devices():
    devices = jax.devices("cpu")
    if len(devices) < 8:
        pytest.skip("needs eight devices; the backend was started with fewer")
    return devices[:8]


def make_step(tiny):
    # Everything random is on: another key anywhere would show.
    config = tiny.changed(augment={"rotations": True, "gain": 0.2, "noise": 0.02, "inject": 1})
    return lambda axis_name: make_train_step(
        tiny.objective(axis_name, config=config), SGD, seed_key=KEY, averaging=0.9, axis_name=axis_name
    )


@pytest.fixture(scope="module")
def start(tiny):
    images = jnp.zeros((1, 64, 64, 1))
    variables = jax.device_get(
        jax.jit(lambda key: tiny.objective().model.init(key, images, train=False))(jax.random.key(0))
    )
    return lambda devices: replicate(
        TrainState.create(jax.tree.map(jnp.array, variables), SGD, averaging=True), devices
    )


def three_steps(step, state, batch):
    losses = []
    for number in range(3):
        state, metrics = step(state, batch.replace(index=batch.index + 8 * number))
        losses.append(metrics["loss"])
    return jax.device_get((state, jnp.stack(losses)))


@pytest.fixture
def one_device(tiny, devices, start, batch):
    return three_steps(data_parallel(make_step(tiny), devices[:1]), start(devices[:1]), batch)


def assert_same(found, wanted):
    chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [2, 8])
def test_devices_together_do_the_step_of_one(tiny, devices, start, batch, one_device, count):
    assert_same(three_steps(data_parallel(make_step(tiny), devices[:count]), start(devices[:count]), batch), one_device)


def three_batches(batch):
    """[3, B, ...], as `three_steps` takes them."""
    batches = [batch.replace(index=batch.index + 8 * number) for number in range(3)]
    return jax.tree.map(lambda *columns: np.stack(columns), *batches)


def test_steps_in_one_dispatch_are_the_same_steps(tiny, devices, start, batch, one_device):
    for count in (1, 8):
        step = data_parallel(make_step(tiny), devices[:count], several=True)
        state, metrics = step(start(devices[:count]), three_batches(batch))
        chex.assert_shape(metrics["loss"], (3,))
        assert_same(jax.device_get((state, metrics["loss"])), one_device)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_the_state_is_given_away_and_not_held_twice(tiny, devices, start, batch, count, several):
    state = start(devices[:count])
    step = data_parallel(make_step(tiny), devices[:count], several=several)
    step(state, three_batches(batch) if several else batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.variables, state.average, state.opt_state)))


def test_sharded_jit_does_the_step_of_pmap(tiny, devices, start, batch, one_device):
    sharding = NamedSharding(Mesh(np.array(devices), ("data",)), PartitionSpec("data"))
    step = jax.jit(make_step(tiny)(None))
    state = jax.device_put(start(devices[:1]), NamedSharding(sharding.mesh, PartitionSpec()))
    losses = []
    for number in range(3):
        shared = jax.device_put(batch.replace(index=batch.index + 8 * number), sharding)
        state, metrics = step(state, shared)
        losses.append(metrics["loss"])
    assert len(shared.images.sharding.device_set) == 8
    assert_same(jax.device_get((state, jnp.stack(losses))), one_device)


def test_statistics_are_those_of_the_global_batch(tiny, devices, start, batch, one_device):
    def unsynchronised(axis_name):
        return make_train_step(tiny.objective(None), SGD, seed_key=KEY, averaging=0.9, axis_name=axis_name)

    state, _ = three_steps(data_parallel(unsynchronised, devices), start(devices), batch)
    with pytest.raises(AssertionError):  # so that the tests above do not pass for another reason
        assert_same(state.variables["batch_stats"], one_device[0].variables["batch_stats"])


def test_one_bad_device_skips_the_step_on_all(tiny, devices, start, batch):
    images = np.asarray(batch.images, np.float32) / 255
    images[6] = np.nan
    before = jax.device_get(start(devices))
    step = data_parallel(
        lambda axis: make_train_step(tiny.objective(axis), SGD, seed_key=KEY, averaging=0.9, axis_name=axis), devices
    )
    state, metrics = step(start(devices), batch.replace(images=images))
    assert metrics["skipped"] == 1 and int(state.skipped) == 1
    chex.assert_trees_all_equal(jax.device_get(state.variables), before.variables)


@pytest.mark.parametrize("several", [False, True])
def test_a_batch_that_cannot_be_shared_is_refused(tiny, devices, start, batch, several):
    step = data_parallel(make_step(tiny), devices[:3], several=several)
    with pytest.raises(ValueError, match="batch of 8 cannot be shared among 3 devices"):
        step(start(devices[:3]), three_batches(batch) if several else batch)


@pytest.mark.parametrize("count", [1, 8])
def test_no_trace_and_no_way_back_to_the_host_between_dispatches(tiny, devices, start, batch, count):
    devices, traces = devices[:count], []

    def counted(axis_name):
        step = make_step(tiny)(axis_name)
        return lambda state, batch: (traces.append(1), step(state, batch))[1]

    step = data_parallel(counted, devices, several=True)
    state, batches = start(devices), jax.device_put(three_batches(batch), devices[0])
    with jax.transfer_guard_device_to_host("disallow"):
        state, _ = step(state, batches)
        first = len(traces)
        for _ in range(2):
            state, _ = step(state, batches)
        # As after a restore: values from the host, placed by the loop.
        with jax.transfer_guard_device_to_host("allow"):
            host = jax.device_get(state)
        state, _ = step(replicate(host, devices), batches)
    assert len(traces) == first, (first, len(traces))
    if count == 1:
        assert first == 1


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_what_was_compiled_before_is_not_compiled_by_the_call(
    tiny, devices, start, batch, compilations, count, several
):
    step = data_parallel(make_step(tiny), devices[:count], several=several)
    state, batches = start(devices[:count]), three_batches(batch) if several else batch
    assert compilations(lambda: step.compile(state, batches)) == 1
    assert compilations(lambda: step(state, batches)) == 0


@pytest.mark.parametrize("chosen", [None, "3"])
def test_every_core_is_a_device_unless_the_user_chose(chosen):
    program = (
        "from irjax.training.parallel import use_all_cores; use_all_cores(); import jax; print(jax.device_count())"
    )
    environment = {
        name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
    }
    environment |= {"JAX_PLATFORMS": "cpu"} | ({"JAX_NUM_CPU_DEVICES": chosen} if chosen else {})
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert int(done.stdout) == int(chosen or cores)


@pytest.mark.slow
def test_the_network_of_spire_over_eight_devices(devices, batch):
    # So small a rate that three steps do not make much of rounding: the first gradient has a norm of 16.
    sgd = optax.sgd(1e-3, momentum=0.9)
    config = SpireConfig(model=ModelConfig(width=16))
    variables = jax.jit(objective(config).model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 1)))
    variables = jax.device_get(variables)

    def make(axis_name):
        return make_train_step(objective(config, axis_name), sgd, seed_key=KEY, averaging=0.9, axis_name=axis_name)

    def run(some):
        state = replicate(TrainState.create(jax.tree.map(jnp.array, variables), sgd, averaging=True), some)
        return three_steps(data_parallel(make, some), state, batch)

    chex.assert_trees_all_close(run(devices), run(devices[:1]), rtol=1e-4, atol=2e-6)

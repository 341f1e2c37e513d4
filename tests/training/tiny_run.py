"""A network that compiles in a second, and runs of it; as a program, a run that kills itself at a chosen moment."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import signal
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp

from irjax.data.augment import AugmentConfig
from irjax.data.clutter import SceneConfig
from irjax.data.splits import DataConfig
from irjax.experiments.spire import SpireConfig
from irjax.layers.conv import Conv
from irjax.layers.norm import BatchNorm
from irjax.methods import spire
from irjax.methods.spire import TargetConfig
from irjax.training import configs
from irjax.training import loop as training
from irjax.training.checkpoints import Checkpoints
from irjax.training.optimizers import OptimizerConfig

CONFIG = SpireConfig(
    data=DataConfig(
        size=64,
        max_points=6,
        synthetic_train=18,
        synthetic_val=6,
        scenes=SceneConfig(height=64, width=64, targets=(1, 3)),
    ),
    target=TargetConfig(sigma=1.0),
    augment=AugmentConfig(crop=48, flips=True),
    optimizer=OptimizerConfig(rate=1e-2, plateau_factor=0.5, plateau_patience=0),
    # 18 images are 5 steps an epoch, so that a dispatch of two does not end with the epoch.
    loop=configs.LoopConfig(
        steps=12, batch_size=4, eval_batch_size=4, steps_per_dispatch=2, averaging=0.9, devices=1, tensorboard=False
    ),
)


class Tiny(nn.Module):
    """Two convolutions of stride 2, and a head: [B, H, W, C] to [B, H / 4, W / 4]."""

    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32
    channels: int = 4

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for i in range(2):
            x = Conv(self.channels, 3, 2, dtype=self.dtype, name=f"conv{i}")(x)
            x = nn.relu(BatchNorm(axis_name=self.axis_name, name=f"norm{i}")(x, train=train))
        return Conv(1, use_bias=True, dtype=self.dtype, name="head")(x)[..., 0].astype(jnp.float32)


def objective(axis_name=None, *, config=CONFIG, **changes):
    dtype = jnp.bfloat16 if config.loop.bf16 else jnp.float32
    return dataclasses.replace(spire.objective(config, axis_name), **{"model": Tiny(axis_name, dtype), **changes})


def variables(channels):
    """Random weights for images of this many channels."""
    init = functools.partial(objective().model.init, train=False)
    return jax.jit(init)(jax.random.key(7), jnp.zeros((1, 64, 64, channels)))


def changed(config=CONFIG, **parts):
    """The config with fields of its parts replaced: changed(loop={"steps": 4})."""
    return configs.replace_parts(config, **parts)


def fit(run, config=CONFIG, *, objective_for=None, **options):
    return training.fit(
        objective_for or (lambda axis_name: objective(axis_name, config=config)),
        config=config,
        data=config.data,
        optimizer=config.optimizer,
        loop=config.loop,
        run=pathlib.Path(run),
        **options,
    )


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at(moment: str) -> None:
    """Moments: ``step`` amid an epoch, ``log`` half a line, ``commit`` of a checkpoint, ``remove`` of an old one."""
    if moment in ("step", "log", "history"):
        save = Checkpoints.save

        def saving(self, *arguments, **options):
            save(self, *arguments, **options)
            self.wait()  # so that what is left is the same every time

        Checkpoints.save = saving
    if moment in ("step", "log"):
        write = training.Log.write

        def dying(self, step, values, *, group):
            if step >= 7:
                if moment == "log":
                    self._file.write('{"step": 8, "gro')
                    self._file.flush()
                _die()
            write(self, step, values, group=group)

        training.Log.write = dying
        return
    seen = []

    def hook(event, arguments):
        if event == "os.rename":
            target = pathlib.Path(os.fsdecode(arguments[1]))
            seen.append(target.name)
            commit = moment == "commit" and target.name == "10"
            history = moment == "history" and seen.count("validation.json") == 2
            if commit or history or (moment == "remove" and target.parent.name == "removed"):
                _die()

    sys.addaudithook(hook)


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)  # as the tests it is compared with
    _die_at(sys.argv[3])
    fit(sys.argv[1], changed(data={"cache": sys.argv[2]}))

"""The state that a training run carries from step to step."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

Variables = dict[str, Any]


@flax.struct.dataclass
class TrainState:
    """Everything the step reads and writes; saved completely, so that a resumed run continues bit for bit.

    Attributes:
      step: int32, optimiser steps attempted so far, including skipped ones.
      variables: ``params`` and ``batch_stats`` of the network.
      average: moving average of `variables`, or None.
      opt_state: state of the optimiser.
      rate_scale: float32 factor on the learning rate, lowered by the plateau rule.
      skipped: int32, number of steps with a non-finite loss or gradient; they changed nothing.
      skipped_in_a_row: int32, number of such steps since the last finite step.
    """

    step: jax.Array
    variables: Variables
    average: Variables | None
    opt_state: optax.OptState
    rate_scale: jax.Array
    skipped: jax.Array
    skipped_in_a_row: jax.Array

    @classmethod
    def create(cls, variables: Variables, tx: optax.GradientTransformation, *, averaging: bool) -> TrainState:
        """Returns the state before the first step."""
        return cls(
            step=jnp.zeros((), jnp.int32),
            variables=variables,
            # A copy: the step donates its buffers, and a buffer cannot be donated twice.
            average=jax.tree.map(jnp.array, variables) if averaging else None,
            opt_state=tx.init(variables["params"]),
            rate_scale=jnp.ones((), jnp.float32),
            skipped=jnp.zeros((), jnp.int32),
            skipped_in_a_row=jnp.zeros((), jnp.int32),
        )

    @property
    def eval_variables(self) -> Variables:
        """The weights to validate and ship: the moving average if there is one."""
        return self.variables if self.average is None else self.average

"""Losses on target masks: values [B] in float32, one per image, from logits and masks."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from irjax.errors import UserError

# About the area of a target. With fewer pixels, images without targets would outweigh all others in a cross-entropy
# divided by the number of positives, because, unlike the focal loss, it does not discount pixels that are nearly right.
FEWEST_PIXELS = 32


def checked(logits: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns both arrays as float32.

    Raises:
      UserError: if they are not both [B, H, W].
    """
    if logits.ndim != 3 or logits.shape != target.shape:
        raise UserError(f"logits and target must both be [B, H, W], got {logits.shape} and {target.shape}")
    return logits.astype(jnp.float32), target.astype(jnp.float32)


def areas(logits: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Computes the soft areas of intersection, prediction and target in pixels.

    Args:
      logits: [B, H, W].
      target: [B, H, W] in [0, 1].

    Returns:
      Three arrays [B] float32.
    """
    logits, target = checked(logits, target)
    p = jax.nn.sigmoid(logits)
    total = lambda value: jnp.sum(value, axis=(-2, -1))  # noqa: E731
    return total(p * target), total(p), total(target)


def soft_iou(logits: jax.Array, target: jax.Array, *, smooth: float = 1.0) -> jax.Array:
    """Computes one minus the soft intersection over union.

    Args:
      logits: [B, H, W].
      target: [B, H, W] in [0, 1].
      smooth: pixels added to both intersection and union.

    Returns:
      [B] float32 in [0, 1].

    Raises:
      UserError: if the shapes differ.
    """
    both, predicted, true = areas(logits, target)
    return 1 - (both + smooth) / (predicted + true - both + smooth)


def dice(logits: jax.Array, target: jax.Array, *, smooth: float = 1.0) -> jax.Array:
    """Computes one minus the soft Dice coefficient; arguments and result as for `soft_iou`."""
    both, predicted, true = areas(logits, target)
    return 1 - (2 * both + smooth) / (predicted + true + smooth)


def binary_cross_entropy(logits: jax.Array, target: jax.Array, *, positive_weight: float = 1.0) -> jax.Array:
    """Computes the mean cross-entropy over the pixels.

    Args:
      logits: [B, H, W].
      target: [B, H, W] in [0, 1].
      positive_weight: factor on the term of the target pixels.

    Returns:
      [B] float32, in nats.

    Raises:
      UserError: if the shapes differ.
    """
    logits, target = checked(logits, target)
    value = -positive_weight * target * jax.nn.log_sigmoid(logits) - (1 - target) * jax.nn.log_sigmoid(-logits)
    return jnp.mean(value, axis=(-2, -1))


def focal(logits: jax.Array, target: jax.Array, *, alpha: float = 0.25, gamma: float = 2.0) -> jax.Array:
    """Computes the mean focal loss over the pixels.

    Args:
      logits: [B, H, W].
      target: [B, H, W] in [0, 1].
      alpha: weight of target pixels; the others have 1 - alpha.
      gamma: exponent by which confident pixels are discounted.

    Returns:
      [B] float32, in nats.

    Raises:
      UserError: if the shapes differ.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, Equation 5.
    """
    logits, target = checked(logits, target)
    positive = alpha * jax.nn.sigmoid(-logits) ** gamma * jax.nn.log_sigmoid(logits)
    negative = (1 - alpha) * jax.nn.sigmoid(logits) ** gamma * jax.nn.log_sigmoid(-logits)
    return -jnp.mean(target * positive + (1 - target) * negative, axis=(-2, -1))


def by_positives(values: jax.Array, target: jax.Array, *, least: float = 1) -> jax.Array:
    """Converts means over pixels [B] to sums over max(number of positives in `target` [B, H, W], `least`): [B]."""
    return values * target[0].size / jnp.maximum(jnp.sum(target, axis=(1, 2)), least)

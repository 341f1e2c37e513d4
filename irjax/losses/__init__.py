"""Losses: per-example values [B]; the caller reduces."""

from irjax.losses.heatmap import heatmap_mse

__all__ = ["heatmap_mse"]

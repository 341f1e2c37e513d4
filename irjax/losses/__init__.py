"""Losses: one value [B] per example, not reduced over the batch."""

from irjax.losses.heatmap import heatmap_mse
from irjax.losses.scale import location_loss, scale_dynamic_loss, scale_iou_loss, scale_weight
from irjax.losses.segmentation import binary_cross_entropy, dice, focal, soft_iou

__all__ = [
    "binary_cross_entropy",
    "dice",
    "focal",
    "heatmap_mse",
    "location_loss",
    "scale_dynamic_loss",
    "scale_iou_loss",
    "scale_weight",
    "soft_iou",
]

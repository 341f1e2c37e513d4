"""Training targets computed from the ground truth inside the jitted step."""

from irjax.targets.heatmaps import prps
from irjax.targets.patch_relevance import relevance

__all__ = ["prps", "relevance"]

"""Ground truth to what a network regresses, inside the jitted step."""

from irjax.targets.prps import prps
from irjax.targets.relevance import relevance

__all__ = ["prps", "relevance"]

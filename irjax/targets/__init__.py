"""Ground truth to what a network regresses, inside the jitted step."""

from irjax.targets.prps import prps

__all__ = ["prps"]

"""The networks, one file a method."""

from irjax.models.hrpe import HRPE

__all__ = ["HRPE"]

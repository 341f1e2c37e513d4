"""The networks, one module for each method."""

from irjax.models.adsnet import ADSNet
from irjax.models.hrpe import HRPE
from irjax.models.mshnet import MSHNet
from irjax.models.na_irstd import NaIRSTD

__all__ = ["HRPE", "ADSNet", "MSHNet", "NaIRSTD"]

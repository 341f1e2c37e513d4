"""Methods, one file each, and the interface through which other packages add their own."""

from irjax.methods.common import InputConfig, MaskDecodeConfig, mask_inputs, mask_score
from irjax.methods.detector_config import DetectorConfig
from irjax.methods.method import Method, Objective, network_of, options_of
from irjax.methods.registry import find_method, method_names, register

__all__ = [
    "DetectorConfig",
    "InputConfig",
    "MaskDecodeConfig",
    "Method",
    "Objective",
    "find_method",
    "mask_inputs",
    "mask_score",
    "method_names",
    "network_of",
    "options_of",
    "register",
]

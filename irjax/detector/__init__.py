"""Detectors: pure prediction functions, the `Detector` class for images of any size and type, weights and files."""

from irjax.detector.detector import Detector
from irjax.detector.loading import load
from irjax.methods.detector_config import DetectorConfig

__all__ = ["Detector", "DetectorConfig", "load"]

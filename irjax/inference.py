"""Moved; see `irjax.moved`."""

from irjax.moved import moved

__getattr__ = moved(
    __name__,
    {
        "Detector": "irjax.detector.detector:Detector",
        "load": "irjax.detector.loading:load",
        "resolve": "irjax.detector.loading:resolve",
        "network_inputs": "irjax.detector.inference:network_inputs",
        "predict": "irjax.detector.inference:predict",
        "run_network": "irjax.detector.inference:run_network",
        "to_image": "irjax.detector.inference:to_image",
        "DetectorConfig": "irjax.methods.detector_config:DetectorConfig",
    },
)

"""Moved; see `irjax.moved`."""

from irjax.moved import moved

__getattr__ = moved(
    __name__,
    {
        "CARD_FIELDS": "irjax.detector.weights:CARD_FIELDS",
        "load_weights": "irjax.detector.weights:load_weights",
        "names": "irjax.detector.weights:names",
        "on_disk": "irjax.detector.weights:on_disk",
        "save_weights": "irjax.detector.weights:save_weights",
    },
)

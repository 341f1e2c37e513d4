"""Moved; see `irjax.moved`."""

from irjax.moved import moved

__getattr__ = moved(
    __name__,
    {
        "selection_curve": "irjax.studies.relevance:selection_curve",
    },
)

"""Moved; see `irjax.moved`."""

from irjax.moved import moved

__getattr__ = moved(
    __name__,
    {
        "Options": "irjax.evaluation.evaluate:Options",
        "evaluate_files": "irjax.evaluation.evaluate:evaluate_files",
        "report_maps": "irjax.evaluation.evaluate:report_maps",
        "report_points": "irjax.evaluation.evaluate:report_points",
    },
)

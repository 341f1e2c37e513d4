"""Detection metrics: named evaluation protocols, exact counts, optimal matching and bootstrap intervals.

Examples:
  >>> evaluate(maps, masks, protocols=("irjax", "centroid"))  # doctest: +SKIP
  >>> evaluate(points, source, protocols="centroid", threshold=0.35)  # doctest: +SKIP
  >>> compare(evaluate_images(ours, masks)["irjax"], evaluate_images(theirs, masks)["irjax"])  # doctest: +SKIP
  >>> centroid_sweep(points, truths, thresholds=[0.2, 0.35, 0.5]).best()  # doctest: +SKIP
"""

from irjax.metrics.accumulators import Counts
from irjax.metrics.bootstrap import bootstrap_intervals
from irjax.metrics.comparison import Comparison, compare
from irjax.metrics.counting import count_image
from irjax.metrics.curves import Sweep, SweepPoint, average_precision, centroid_sweep, sweep
from irjax.metrics.evaluation import Evaluation, evaluate, evaluate_images
from irjax.metrics.histograms import PixelCurve, ScoreHistogram, distinct_scores, score_histogram
from irjax.metrics.inputs import PointPredictions, PointTruth, from_detections
from irjax.metrics.matching import Matching, match
from irjax.metrics.protocols import PROTOCOLS, Curve, Protocol, protocol

__all__ = [
    "PROTOCOLS",
    "Comparison",
    "Counts",
    "Curve",
    "Evaluation",
    "Matching",
    "PixelCurve",
    "PointPredictions",
    "PointTruth",
    "Protocol",
    "ScoreHistogram",
    "Sweep",
    "SweepPoint",
    "average_precision",
    "bootstrap_intervals",
    "centroid_sweep",
    "compare",
    "count_image",
    "distinct_scores",
    "evaluate",
    "evaluate_images",
    "from_detections",
    "match",
    "protocol",
    "score_histogram",
    "sweep",
]

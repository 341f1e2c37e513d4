"""One-to-one matching of predicted to true points.

irjax uses `optimal`, which finds the largest number of pairs within the limit and, among those matchings, the smallest
total distance. `first` and `nearest_in_order` are the greedy rules of published programs; both can miss possible pairs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from irjax.errors import UserError

Pairs = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Matching:
    """M matched pairs; all other points are misses or false detections.

    Attributes:
      truths: [M] int64, indices into the true points, rising.
      predictions: [M] int64, indices into the predicted points.
      distances: [M] float64, in pixels.
    """

    truths: np.ndarray
    predictions: np.ndarray
    distances: np.ndarray

    def __len__(self) -> int:
        return len(self.truths)


def pairwise_distances(truths: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Computes the Euclidean distances [K, N] float64 between points [K, 2] and [N, 2]."""
    difference = np.asarray(truths, np.float64)[:, None, :] - np.asarray(predictions, np.float64)[None, :, :]
    return np.sqrt(np.square(difference).sum(axis=-1))


def within(distances: np.ndarray, limit: float, inclusive: bool) -> np.ndarray:
    """Returns which distances are ``<= limit`` if `inclusive`, else ``< limit``; bool of the same shape."""
    return distances <= limit if inclusive else distances < limit


def _optimal(distances: np.ndarray, inside: np.ndarray) -> Pairs:
    rows, cols = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if rows.size == 0:
        return rows, cols
    near, cost = inside[np.ix_(rows, cols)], distances[np.ix_(rows, cols)]
    # One pair outside the limit costs more than all pairs inside it together, so the number of pairs takes priority.
    outside = (min(near.shape) + 1) * (cost[near].max() + 1)
    from scipy.optimize import linear_sum_assignment  # half a second, which predicting does not need

    i, j = linear_sum_assignment(np.where(near, cost, outside))
    keep = near[i, j]
    return rows[i[keep]], cols[j[keep]]


def _greedy(distances: np.ndarray, inside: np.ndarray, nearest: bool) -> Pairs:
    free = np.ones(distances.shape[1], bool)
    pairs = []
    for row in range(distances.shape[0]):
        candidates = np.flatnonzero(inside[row] & free)
        if candidates.size:
            col = candidates[np.argmin(distances[row, candidates])] if nearest else candidates[0]
            free[col] = False
            pairs.append((row, col))
    found = np.array(pairs, np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _first(distances: np.ndarray, inside: np.ndarray) -> Pairs:
    return _greedy(distances, inside, nearest=False)


def _nearest_in_order(distances: np.ndarray, inside: np.ndarray) -> Pairs:
    return _greedy(distances, inside, nearest=True)


METHODS: Mapping[str, Callable[[np.ndarray, np.ndarray], Pairs]] = MappingProxyType(
    {"optimal": _optimal, "first": _first, "nearest_in_order": _nearest_in_order}
)


def match(
    truths: np.ndarray, predictions: np.ndarray, *, limit: float, inclusive: bool = False, method: str = "optimal"
) -> Matching:
    """Matches predicted to true points; each point is used at most once.

    Args:
      truths: [K, 2] (x, y) in pixels. The greedy methods process them in this order.
      predictions: [N, 2] (x, y) in pixels; "first" takes the first one within the limit in this order.
      limit: largest distance in pixels.
      inclusive: whether a distance of exactly `limit` counts (``<=``) or not (``<``).
      method: "optimal", or one of two greedy rules of published programs, which process the true points one by one:
        "first" (the first unused prediction within the limit) or "nearest_in_order" (the nearest unused prediction
        within the limit).

    Returns:
      The matched pairs, in the order of the true points.

    Raises:
      UserError: if `method` is unknown.
    """
    if method not in METHODS:
        raise UserError(f"unknown matching method {method!r}; known: {', '.join(METHODS)}")
    if len(truths) == 0 or len(predictions) == 0:
        none = np.zeros(0, np.int64)
        return Matching(none, none, np.zeros(0))
    distances = pairwise_distances(truths, predictions)
    rows, cols = METHODS[method](distances, within(distances, limit, inclusive))
    return Matching(rows, cols, distances[rows, cols])


def optimal_gains(inside: np.ndarray) -> np.ndarray:
    """Returns which predictions, added one after another, increase the size of the optimal matching.

    Adding a prediction increases the largest possible number of pairs by one if an augmenting path starts at it, and
    otherwise leaves it unchanged. The running sum of the result is therefore the optimal number of pairs for every
    prefix, and a threshold sweep needs one pass instead of one assignment per threshold.

    Args:
      inside: [K, N] bool, whether truth k and prediction n are within the limit; predictions by falling score.

    Returns:
      [N] bool.

    Source: augmenting paths, Berge 1957.
    """
    gains = np.zeros(inside.shape[1], bool)
    near = {int(n): np.flatnonzero(inside[:, n]).tolist() for n in np.flatnonzero(inside.any(axis=0))}
    owner: dict[int, int] = {}
    held: dict[int, int] = {}
    for start in near:
        reached_from: dict[int, int] = {}
        queue = [start]
        free: int | None = None
        for prediction in queue:
            for truth in near[prediction]:
                if truth in reached_from:
                    continue
                reached_from[truth] = prediction
                if truth not in owner:
                    free = truth
                    break
                queue.append(owner[truth])
            if free is not None:
                break
        if free is None:
            continue
        gains[start] = True
        while True:
            prediction = reached_from[free]
            previous = held.get(prediction)
            owner[free], held[prediction] = prediction, free
            if prediction == start:
                break
            assert previous is not None  # only `start` is unmatched
            free = previous
    return gains

"""What is compared: prediction sets of any program, and detectors, whose predictions are made first."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from irjax.detector.files import detect_into
from irjax.detector.loading import title_of
from irjax.detector.named import Named, open_named
from irjax.errors import UsageError, UserError
from irjax.evaluation.evaluate import Options
from irjax.evaluation.pairs import PredictionSet, holds_maps, open_predictions
from irjax.evaluation.scoring import Scorer
from irjax.evaluation.truths import split_images
from irjax.io.names import flat
from irjax.metrics import Evaluation


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One of those that are compared.

    Attributes:
      title: its name in tables and pictures; no two are equal.
      path: file or folder of the predictions, or what the detector was named by.
      found: the predictions.
      threshold: the detector's threshold; None for predictions, which are scored at the protocol's.
      model: the detector; None for predictions.
    """

    title: str
    path: str
    found: PredictionSet
    threshold: float | None = None
    model: Named | None = None


@dataclasses.dataclass(frozen=True)
class Scored:
    """A candidate with its scores.

    Attributes:
      candidate: what was scored.
      scorer: how; `Scorer.view` gives what is drawn of an image.
      evaluation: its numbers.
      intervals: {metric: (low, high)}.
    """

    candidate: Candidate
    scorer: Scorer
    evaluation: Evaluation
    intervals: Mapping[str, tuple[float, float]]


def gather(
    predictions: Sequence[str | os.PathLike],
    models: Sequence[str],
    folder: pathlib.Path,
    truth: str | os.PathLike,
    *,
    split: str | None,
    key: str | None,
    logits: bool,
    options: Options,
    overrides: Mapping[str, Any],
    **reading: Any,
) -> list[Candidate]:
    """Opens prediction sets, and runs detectors on the data set; see `irjax.evaluation.compare.compare_files`.

    Args:
      predictions: ``PATH`` or ``TITLE=PATH`` each.
      models: ``NAME`` or ``TITLE=NAME`` each.
      folder: a new folder, for the predictions of detectors.
      truth: the data set.
      split: its split.
      key: array in .npz and .mat files.
      logits: whether float maps are logits.
      options: how to score.
      overrides: of the detectors.
      **reading: how the data set is read.

    Returns:
      The candidates, prediction sets first.

    Raises:
      UsageError: if two have one title.
      UserError: if one cannot be opened or an image cannot be read; the message names it.
    """
    sets = [_titled(text) for text in predictions]
    named = [_titled(text) for text in models]
    titles = _titles([(title, path) for title, path in (*sets, *named)])
    result = []
    for title, (_, path) in zip(titles, sets, strict=False):
        result.append(Candidate(title, path, _open(path, key, logits, options)))
    opened = [open_named(path, threshold=options.threshold, **overrides) for _, path in named]
    if not opened:
        return result
    files, depth = split_images(truth, split or "all", **reading)
    for title, model in zip(titles[len(sets) :], opened, strict=True):
        detect, place = model.within(), folder / flat(title)
        outcome = detect_into(place, detect, files, threshold=model.threshold, depth=depth)
        detect.tell()
        if outcome.failures:
            raise UserError(next(iter(outcome.failures.values())))
        found = open_predictions(place / ("masks" if outcome.masks else "predictions.json"))
        result.append(Candidate(title, model.name, dataclasses.replace(found, title=title), model.threshold, model))
    return result


def _open(path: str, key: str | None, logits: bool, options: Options) -> PredictionSet:
    maps = holds_maps(path)  # what is said of maps holds for maps, where another set is of points
    return open_predictions(
        path,
        key=key if maps else None,
        logits=logits and maps,
        scale=options.scale if maps else None,
        names=options.names if maps or path.lower().endswith(".json") else None,
    )


def _titled(text: str | os.PathLike) -> tuple[str, str]:
    """Splits ``TITLE=PATH``; the title is "" where there is none, or where all of it is a path that exists."""
    text = os.fspath(text)
    title, separator, path = text.partition("=")
    if separator and title and path and "/" not in title and not os.path.lexists(text):
        return title, path
    return "", text


def _titles(named: Sequence[tuple[str, str]]) -> list[str]:
    """Returns the titles given, else the names of the paths, with their folders where these alone tell them apart."""
    short = [title or title_of(path) or path for title, path in named]
    count = collections.Counter(short)
    titles = [title or (path if count[name] > 1 else name) for (title, path), name in zip(named, short, strict=True)]
    twice = [title for title, number in collections.Counter(titles).items() if number > 1]
    if twice:
        raise UsageError(f"two of those compared are called {twice[0]!r}; TITLE=PATH gives another title")
    return titles

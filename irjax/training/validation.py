"""Validation of a network during training: one batch on the device at a time, images scored one by one."""

from __future__ import annotations

import collections
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from irjax.data.pipeline import network_views, read_ahead, stack_views
from irjax.data.splits import DataConfig
from irjax.methods.method import Objective
from irjax.training.parallel import largest_share, over_devices, replicate
from irjax.training.state import Variables
from irjax.training.steps import make_eval_step
from irjax.types import Example, Source

_COUNTS = ("tp", "fp", "fn")


def _over_data_sets(parts: Mapping[str, Mapping[str, float]], choice: str) -> dict[str, float]:
    """Returns the metrics over all data sets; means skip data sets where a metric is undefined."""
    if len(parts) == 1:
        return dict(next(iter(parts.values())))
    together: dict[str, float] = {}
    for name in next(iter(parts.values())):
        values = np.array([metrics[name] for metrics in parts.values()])
        if name in _COUNTS:
            together[name] = int(values.sum())
        else:
            defined = values[~np.isnan(values)]
            together[name] = float(defined.mean()) if len(defined) else float("nan")
    return {**together, **{f"{choice} {name}": metrics[choice] for name, metrics in parts.items()}}


class Validation:
    """Validates weights on a source, holding only a few images at a time.

    Args:
      objective: the trained objective; its loss, predictions and score.
      source: the images. They are read again in each validation.
      data: how images are presented to the network.
      batch_size: canvases or windows in one run of the network.
      with_masks: whether the method needs target masks.
      devices: devices for the network; as many of them are used as divide the batch size.
      parts: the data sets in order, name -> number of images; None if there is only one.
      before_batch: called before each batch; an exception it raises ends the validation.
    """

    def __init__(
        self,
        objective: Objective,
        source: Source,
        data: DataConfig,
        *,
        batch_size: int,
        with_masks: bool,
        devices: Sequence[jax.Device],
        parts: Mapping[str, int] | None = None,
        before_batch: Callable[[], None] = lambda: None,
    ):
        self._parts, self._before_batch = parts or {"": len(source)}, before_batch
        self._objective, self._source, self._batch_size = objective, source, batch_size
        self._devices = devices[: largest_share(batch_size, len(devices))]
        self._step = over_devices(make_eval_step(objective), self._devices)
        options: dict[str, Any] = {
            "with_mask": with_masks,
            "enlarge": data.enlarge,
            "slide": data.slide,
            "dtype": source.dtype,
        }
        self._views = lambda example: network_views(example, data.size, data.max_points, **options)

    def __call__(self, variables: Variables) -> dict[str, float]:
        """Returns the validation ``loss`` (mean over canvases or windows), all metrics of the method, and ``seconds``.

        With several data sets, a metric is the mean over them with equal weights, whatever their sizes (counts are
        summed), and the selection metric is also given for each.
        """
        begin = time.perf_counter()
        losses: list[np.ndarray] = []
        found = self._found(replicate(variables, self._devices), losses)
        parts = {name: self._objective.score(itertools.islice(found, count)) for name, count in self._parts.items()}
        metrics = _over_data_sets(parts, self._objective.select)
        loss = float(np.mean(np.concatenate(losses), dtype=np.float64))
        return {"loss": loss, **metrics, "seconds": time.perf_counter() - begin}

    def _found(self, variables: Variables, losses: list[np.ndarray]) -> Iterator[tuple[Example, Any]]:
        """Yields each image with the stacked predictions of its canvas or windows; appends their losses to `losses`."""
        waiting: collections.deque[tuple[Example, int]] = collections.deque()

        def views() -> Iterator[dict[str, np.ndarray]]:
            read = lambda index: (example := self._source[index], self._views(example))  # noqa: E731
            for example, parts in read_ahead(read, range(len(self._source))):
                waiting.append((example, len(parts)))
                yield from parts

        rows: collections.deque[Any] = collections.deque()
        for loss, predictions, count in self._outputs(variables, views()):
            losses.append(loss)
            rows.extend(jax.tree.map(lambda column: column[i], predictions) for i in range(count))  # noqa: B023
            while waiting and len(rows) >= waiting[0][1]:
                example, number = waiting.popleft()
                yield example, jax.tree.map(lambda *each: np.stack(each), *(rows.popleft() for _ in range(number)))

    def _outputs(
        self, variables: Variables, views: Iterator[dict[str, np.ndarray]]
    ) -> Iterator[tuple[np.ndarray, Any, int]]:
        """Yields loss [n] and predictions of n views, in numpy, and n.

        The next batch is stacked while the device computes.
        """
        running: collections.deque[tuple[Any, int]] = collections.deque()
        while (chunk := list(itertools.islice(views, self._batch_size))) or running:
            self._before_batch()
            if chunk:
                # One shape, one program: the last batch is padded with repetitions, which are dropped below.
                filled = chunk + chunk[-1:] * (self._batch_size - len(chunk))
                batch = stack_views([{**view, "index": np.array(i, np.int32)} for i, view in enumerate(filled)])
                running.append((self._step(variables, batch), len(chunk)))
            if len(running) > 1 or not chunk:
                outputs, count = running.popleft()
                loss, predictions = jax.tree.map(lambda column: column[:count], outputs())  # noqa: B023
                yield loss, predictions, count

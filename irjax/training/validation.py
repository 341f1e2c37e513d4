"""Validation of a network while it trains: one batch on the device at a time, one image after the other scored."""

from __future__ import annotations

import collections
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from irjax.data.pipeline import network_views, read_ahead, stack_views
from irjax.training.data import DataConfig
from irjax.training.parallel import largest_share, over_devices, replicate
from irjax.training.state import Variables
from irjax.training.steps import Method, make_eval_step
from irjax.types import Example, Source

_COUNTS = ("tp", "fp", "fn")


def _over_data_sets(parts: Mapping[str, Mapping[str, float]], choice: str) -> dict[str, float]:
    """The metrics of all data sets together; a mean leaves out where a metric is not defined."""
    if len(parts) == 1:
        return dict(next(iter(parts.values())))
    together = {}
    for name in next(iter(parts.values())):
        values = np.array([metrics[name] for metrics in parts.values()])
        if name in _COUNTS:
            together[name] = int(values.sum())
        else:
            defined = values[~np.isnan(values)]
            together[name] = float(defined.mean()) if len(defined) else float("nan")
    return {**together, **{f"{choice} {name}": metrics[choice] for name, metrics in parts.items()}}


class Validation:
    """Validates weights on a source, of which no more than a few images are in use at a time.

    Args:
      method: what is trained; its loss, predictions and score.
      source: the images. They are read again in each validation.
      data: how images are shown to the network.
      batch_size: canvases or windows in one run of the network.
      with_masks: whether the method needs target masks.
      devices: where the network runs; as many of them as divide the batch size.
      parts: the data sets one after the other, name -> number of images; none: there is one.
      before_batch: called before each batch; what it raises ends the validation.
    """

    def __init__(
        self,
        method: Method,
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
        self._method, self._source, self._batch_size = method, source, batch_size
        self._devices = devices[: largest_share(batch_size, len(devices))]
        self._step = over_devices(make_eval_step(method), self._devices)
        options = {"with_mask": with_masks, "enlarge": data.enlarge, "slide": data.slide, "dtype": source.dtype}
        self._views = lambda example: network_views(example, data.size, data.max_points, **options)

    def __call__(self, variables: Variables) -> dict[str, float]:
        """The validation ``loss``, a mean over canvases or windows, all metrics of the method, and ``seconds``.

        Of several data sets a metric is the mean over them, each weighing the same, whatever their sizes (counts are
        added up), and the metric that chooses is given of each as well.
        """
        begin = time.perf_counter()
        losses: list[np.ndarray] = []
        found = self._found(replicate(variables, self._devices), losses)
        parts = {name: self._method.score(itertools.islice(found, count)) for name, count in self._parts.items()}
        metrics = _over_data_sets(parts, self._method.select)
        loss = float(np.mean(np.concatenate(losses), dtype=np.float64))
        return {"loss": loss, **metrics, "seconds": time.perf_counter() - begin}

    def _found(self, variables: Variables, losses: list[np.ndarray]) -> Iterator[tuple[Example, Any]]:
        """Each image with the predictions of its canvas or windows, stacked; `losses` collects theirs."""
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
        """Loss [n] and predictions of n views, in numpy, and n; the next batch is made while the device computes."""
        running: collections.deque[tuple[Any, int]] = collections.deque()
        while (chunk := list(itertools.islice(views, self._batch_size))) or running:
            self._before_batch()
            if chunk:
                # One shape, one program: repetitions fill the last batch up and do not count.
                filled = chunk + chunk[-1:] * (self._batch_size - len(chunk))
                batch = stack_views([{**view, "index": np.int32(i)} for i, view in enumerate(filled)])
                running.append((self._step(variables, batch), len(chunk)))
            if len(running) > 1 or not chunk:
                outputs, count = running.popleft()
                loss, predictions = jax.tree.map(lambda column: column[:count], outputs())  # noqa: B023
                yield loss, predictions, count

"""Scores many images in this process or in several worker processes.

The workers are fresh interpreters that receive their work through pipes. Forking could deadlock with the threads of
JAX, and the spawn method of `multiprocessing` runs the caller's script again in each worker, which fails if the script
does not guard its main part.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import logging
import os
import pickle
import queue
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from irjax.bars import bar
from irjax.errors import UsageError, UserError
from irjax.metrics import inputs
from irjax.metrics.accumulators import Counts
from irjax.metrics.counting import ImageWork
from irjax.metrics.spec import Protocol

_logger = logging.getLogger(__name__)

# Workers are worthwhile above these sizes: they take a second or two to start, and sending a map costs as much as
# counting it once.
_LARGE_WORK = 1 << 31  # pixels times protocols, about six seconds
_CURVE_WORK = 4  # cost of a ROC relative to that of a protocol
_LARGE_IMAGES = 1000  # for a sequence that loads its images, which usually costs more than counting them
_CHUNK = 8  # images in one message
_WORKER = "from irjax.metrics.parallel import serve; serve()"


@dataclasses.dataclass(frozen=True)
class Job:
    """Protocols and options that apply to every image.

    Attributes:
      specs: the protocols.
      threshold: as for `counting.count_image`.
      logits: whether float maps are logits.
    """

    specs: tuple[Protocol, ...]
    threshold: float | None
    logits: bool


@dataclasses.dataclass(frozen=True)
class Scored:
    """Result of scoring one image.

    Attributes:
      rows: counts for each protocol.
      rules: the rule by which each protocol read the mask; None for points.
      scale: the value that represented p = 1 in an integer map; None for other predictions.
    """

    rows: tuple[Counts, ...]
    rules: tuple[str | None, ...]
    scale: int | None


def score_image(job: Job, name: str, prediction: Any, truth: Any, scale: int | None = None) -> Scored:
    """Scores one image under every protocol.

    Args:
      job: protocols and options.
      name: name of the image, for messages.
      prediction: as for `counting.count_image`.
      truth: as for `counting.count_image`.
      scale: the value that represents p = 1 in an integer map; None: 1 if no value exceeds 1, else 255.

    Raises:
      UserError: if the image cannot be scored; the message names it.
    """
    try:
        if scale is None:
            scale = inputs.own_scale(prediction)
        work = ImageWork(prediction, truth, logits=job.logits, scale=scale or 255)
        counted = [work.count(spec, job.threshold) for spec in job.specs]
    except UserError as error:
        raise UserError(f"image {name}: {error}") from error
    return Scored(tuple(rows for rows, _ in counted), tuple(rule for _, rule in counted), scale)


def count_all(
    job: Job, predictions: Sequence[Any], truths: Sequence[Any], names: Sequence[str], processes: int | None
) -> list[Scored]:
    """Scores all images, in order.

    Args:
      job: protocols and options.
      predictions: sequence over images.
      truths: sequence over the same images.
      names: names of the same images.
      processes: number of processes; None uses one for each processor for large sets of maps, else only this process.

    Raises:
      UserError: if an image cannot be scored (the message names it), or `processes` is below 1.
      RuntimeError: if a worker process ends.
    """
    if processes is not None and processes < 1:
        raise UsageError(f"processes must be at least 1, got {processes}")
    if processes is None:
        processes = processors() if _is_large(job, predictions) else 1
    processes = min(processes, -(-len(names) // _CHUNK))
    _logger.info("scoring %d images in %d processes", len(names), max(processes, 1))
    if processes <= 1:
        everything = bar(zip(names, predictions, truths, strict=True), "scoring", total=len(names))
        scored = [score_image(job, name, prediction, truth) for name, prediction, truth in everything]
    else:
        scored = _shared(job, predictions, truths, names, processes)
    # The whole set decides whether 1 or 255 represents p = 1: an 8-bit map whose maximum is 1 of 255 is not a mask.
    if any(image.scale == 255 for image in scored):
        for index, image in enumerate(scored):
            if image.scale == 1:
                scored[index] = score_image(job, names[index], predictions[index], truths[index], 255)
    return scored


def processors() -> int:
    """Returns the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_large(job: Job, predictions: Sequence[Any]) -> bool:
    if not len(predictions):
        return False
    if not _in_memory(predictions):
        return len(predictions) >= _LARGE_IMAGES
    if any(inputs.is_points(item) for item in predictions):
        return False
    work = sum(1 + _CURVE_WORK * (spec.curve is not None) for spec in job.specs)
    return work * sum(int(np.prod(np.shape(item), dtype=np.int64)) for item in predictions) >= _LARGE_WORK


def _in_memory(items: Sequence[Any]) -> bool:
    return isinstance(items, list | tuple) or hasattr(items, "dtype")


def _plain(item: Any) -> Any:
    """Converts an item to one that a process without JAX can unpickle."""
    return item if inputs.is_points(item) or inputs.is_example(item) else np.asarray(item)


def _pickled(items: Sequence[Any]) -> bytes | None:
    """Pickles a sequence that loads its images, for the workers to load them; None to send items one by one instead."""
    if _in_memory(items):
        return None
    try:
        return pickle.dumps(items)
    except Exception:  # pickling can raise any exception
        return None


class _Worker:
    """A fresh interpreter that scores the images sent to it."""

    def __init__(self, *setup: Any):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        assert self._process.stdin is not None and self._process.stdout is not None  # both are pipes
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._send(setup)

    def _send(self, message: Any) -> None:
        try:
            pickle.dump(message, self._stdin, pickle.HIGHEST_PROTOCOL)
            self._stdin.flush()
        except BrokenPipeError:
            pass  # the worker has ended, which `_receive` reports

    def _receive(self, at: str) -> Any:
        try:
            answer = pickle.load(self._stdout)
        except (EOFError, pickle.UnpicklingError) as error:
            raise RuntimeError(f"a worker process ended with status {self._process.wait()} at {at}") from error
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def loads(self) -> bool:
        """Returns whether the worker could unpickle the sequences; must be called once, before `score`."""
        return self._receive("its start")

    def score(self, tasks: list[tuple[Any, ...]]) -> list[Scored]:
        """Scores images (index, name, prediction, truth); raises any exception that the worker raised."""
        self._send(tasks)
        return self._receive(f"the images {tasks[0][1]} to {tasks[-1][1]}")

    def end(self) -> None:
        """Kills the worker process."""
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        self._stdout.close()
        self._process.wait()


def _tasks(predictions, truths, names, loaded: tuple[bool, ...]) -> Iterator[list[tuple[Any, ...]]]:
    for start in range(0, len(names), _CHUNK):
        yield [
            (
                index,
                names[index],
                None if loaded[0] else _plain(predictions[index]),
                None if loaded[1] else _plain(truths[index]),
            )
            for index in range(start, min(start + _CHUNK, len(names)))
        ]


def _shared(job, predictions, truths, names, processes: int) -> list[Scored]:
    sequences = _pickled(predictions), _pickled(truths)
    workers = [_Worker(job, *sequences) for _ in range(processes)]
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def score(tasks: list[tuple[Any, ...]]) -> list[Scored]:
        worker = idle.get()
        try:
            return worker.score(tasks)
        finally:
            idle.put(worker)

    scored: list[Scored] = []
    pool = concurrent.futures.ThreadPoolExecutor(processes)
    try:
        # Workers cannot unpickle everything, for example not a class that the caller's script defines.
        load = all([worker.loads() for worker in workers])
        waiting: list[concurrent.futures.Future] = []
        parts = _tasks(predictions, truths, names, tuple(load and s is not None for s in sequences))
        for tasks in bar(parts, "scoring", total=-(-len(names) // _CHUNK), unit=f"{_CHUNK} images"):
            waiting.append(pool.submit(score, tasks))
            # The number of waiting messages is limited, so that a lazily loaded set is never in memory as a whole.
            if len(waiting) > 2 * processes:
                scored += waiting.pop(0).result()
        for future in waiting:
            scored += future.result()
    finally:
        for worker in workers:
            worker.end()
        pool.shutdown(cancel_futures=True)
    return scored


def serve() -> None:
    """Runs the loop of a worker process: reads the job and then images from stdin, and writes counts to stdout."""
    source = sys.stdin.buffer
    # Redirect prints to stderr, so that they do not mix with the answers on stdout.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    job, *sequences = pickle.load(source)
    predictions: Any
    truths: Any
    try:
        predictions, truths = (None if data is None else pickle.loads(data) for data in sequences)
        loads = True
    except Exception:  # unpickling imports modules, which can raise any exception
        predictions, truths, loads = None, None, False
    answers.write(pickle.dumps(loads))
    answers.flush()
    while True:
        try:
            tasks = pickle.load(source)
        except EOFError:
            return
        try:
            answer = []
            for index, name, prediction, truth in tasks:
                prediction = predictions[index] if prediction is None else prediction
                answer.append(score_image(job, name, prediction, truths[index] if truth is None else truth))
            data = pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # any exception is raised again in the parent process
            data = _pickled_error(error)
        answers.write(data)
        answers.flush()


def _pickled_error(error: Exception) -> bytes:
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
        return data
    except Exception:
        return pickle.dumps(RuntimeError("".join(traceback.format_exception(error))))

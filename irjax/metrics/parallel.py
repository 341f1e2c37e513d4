"""Scores many images, in this process or shared among several.

The worker processes are fresh interpreters that are sent their work through pipes. Forking could deadlock beside JAX's
threads, and `multiprocessing`'s spawn runs the caller's script again in each worker, which a script without a guarded
main part does not survive.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import pickle
import queue
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from irjax.errors import UsageError, UserError
from irjax.metrics import inputs
from irjax.metrics.accumulators import Counts
from irjax.metrics.counting import ImageWork
from irjax.metrics.spec import Protocol

# From here on workers pay: they take a second or two to start, and a map costs as much to send as to count once.
_LARGE_WORK = 1 << 31  # pixels times protocols, some six seconds
_CURVE_WORK = 4  # what a ROC costs, in protocols
_LARGE_IMAGES = 1000  # of a sequence that loads its images, which mostly costs more than to count them
_CHUNK = 8  # images in one message
_WORKER = "from irjax.metrics.parallel import serve; serve()"


@dataclasses.dataclass(frozen=True)
class Job:
    """What to do with every image."""

    specs: tuple[Protocol, ...]
    threshold: float | None
    logits: bool


@dataclasses.dataclass(frozen=True)
class Scored:
    """One image: counts and the rule its mask was read by, both by protocol; and what stood for p = 1, if integers."""

    rows: tuple[Counts, ...]
    rules: tuple[str | None, ...]
    scale: int | None


def score_image(job: Job, name: str, prediction: Any, truth: Any, scale: int | None = None) -> Scored:
    """Scores one image under every protocol.

    Args:
      job: protocols and options.
      name: of the image, for messages.
      prediction: as for `counting.count_image`.
      truth: as for `counting.count_image`.
      scale: what stands for p = 1 in an integer map; None: 1 if no value exceeds it, else 255.

    Raises:
      UserError: if it cannot be scored; the image is named.
    """
    try:
        if scale is None:
            scale = inputs.own_scale(prediction)
        work = ImageWork(prediction, truth, logits=job.logits, scale=scale or 255)
        counted = [work.count(spec, job.threshold) for spec in job.specs]
    except UserError as error:
        raise UserError(f"image {name}: {error}") from error
    return Scored(tuple(rows for rows, _ in counted), tuple(rule for _, rule in counted), scale)


def score_all(
    job: Job, predictions: Sequence[Any], truths: Sequence[Any], names: Sequence[str], processes: int | None
) -> list[Scored]:
    """Scores all images, in their order.

    Args:
      job: protocols and options.
      predictions: over images.
      truths: over the same images.
      names: of the same images.
      processes: how many share the work; None: as many as processors for large sets of maps, else this one alone.

    Raises:
      UserError: if an image cannot be scored (it is named), or `processes` is below 1.
      RuntimeError: if a worker process ends.
    """
    if processes is not None and processes < 1:
        raise UsageError(f"processes must be at least 1, got {processes}")
    if processes is None:
        processes = processors() if _is_large(job, predictions) else 1
    processes = min(processes, -(-len(names) // _CHUNK))
    if processes <= 1:
        everything = zip(names, predictions, truths, strict=True)
        scored = [score_image(job, name, prediction, truth) for name, prediction, truth in everything]
    else:
        scored = _shared(job, predictions, truths, names, processes)
    # Whether 1 or 255 stands for p = 1 is decided over the whole set: an 8-bit map that peaks at 1 of 255 is no mask.
    if any(image.scale == 255 for image in scored):
        for index, image in enumerate(scored):
            if image.scale == 1:
                scored[index] = score_image(job, names[index], predictions[index], truths[index], 255)
    return scored


def processors() -> int:
    """How many processors this process may use."""
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
    """An item that a process without JAX can unpickle."""
    return item if inputs.is_points(item) or inputs.is_example(item) else np.asarray(item)


def _pickled(items: Sequence[Any]) -> bytes | None:
    """A sequence that loads its images, for the workers to load them; None if items are better sent one by one."""
    if _in_memory(items):
        return None
    try:
        return pickle.dumps(items)
    except Exception:  # whatever cannot be pickled raises what it likes
        return None


class _Worker:
    """A fresh interpreter that scores what it is sent."""

    def __init__(self, *setup: Any):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        self._send(setup)

    def _send(self, message: Any) -> None:
        try:
            pickle.dump(message, self._process.stdin, pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, which `score` finds out and says

    def _receive(self, at: str) -> Any:
        try:
            answer = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError) as error:
            raise RuntimeError(f"a worker process ended with status {self._process.wait()} at {at}") from error
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def loads(self) -> bool:
        """Whether it could unpickle the sequences; to be asked once, first."""
        return self._receive("its start")

    def score(self, tasks: list[tuple[Any, ...]]) -> list[Scored]:
        """Scores images (index, name, prediction, truth); raises what the worker raised."""
        self._send(tasks)
        return self._receive(f"the images {tasks[0][1]} to {tasks[-1][1]}")

    def end(self) -> None:
        """Ends the process, whatever it is doing."""
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def _tasks(predictions, truths, names, loaded: tuple[bool, bool]) -> Iterator[list[tuple[Any, ...]]]:
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
        # A class of the caller's own script, say, is not there in another process.
        load = all([worker.loads() for worker in workers])
        waiting: list[concurrent.futures.Future] = []
        for tasks in _tasks(predictions, truths, names, tuple(load and s is not None for s in sequences)):
            waiting.append(pool.submit(score, tasks))
            # Only a few messages wait, so that a set that is loaded on the way is never in memory as a whole.
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
    """The loop of a worker process: reads the job, then images from stdin, and writes their counts to stdout."""
    source = sys.stdin.buffer
    # What else is printed must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    job, *sequences = pickle.load(source)
    try:
        predictions, truths = (None if data is None else pickle.loads(data) for data in sequences)
        loads = True
    except Exception:  # whatever an import may raise
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
        except Exception as error:  # of whatever kind, it is raised where the images came from
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

"""Reads and writes video files frame by frame, through imageio and its ffmpeg (the extra `video`).

Frames are those that are stored, each once, whatever their timestamps. A video is decoded from its beginning on, and
only a few frames of it are in memory at a time.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import functools
import importlib.util
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from irjax.errors import FileError, MissingPackageError, UserError, reading, writing

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")  # those that imageio takes

# Frames that are kept behind the newest one, for threads that read ahead of each other; fewer if they are large.
_KEPT, _KEPT_LEAST, _KEPT_BYTES = 32, 8, 2**26
_DEEP = re.compile(r"(?<!\d)(9|10|12|14|16|20|48|64)(le|be)")  # ends the names of formats above 8 bits: yuv420p10le
_FPS = 25.0  # of videos that do not state it
HOW = "pip install 'irjax[video]'"


def is_video(path: str | os.PathLike) -> bool:
    """Returns whether the ending of a path is that of a video."""
    return os.path.splitext(os.fspath(path))[1].lower() in VIDEO_SUFFIXES


def available() -> bool:
    """Returns whether the packages of the extra `video` are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("imageio", "imageio_ffmpeg"))


def frame_count(path: str | os.PathLike) -> int:
    """Returns the number of frames that can be decoded; decodes the whole video without keeping anything.

    Raises:
      MissingPackageError: if the extra `video` is not installed.
      UserError: if the file cannot be read; the message names it.
    """
    _need(path)
    return _count(*_state(path))


@functools.lru_cache(maxsize=1024)  # a data set is opened for each of its splits
def _count(path: str, changed: int, size: int) -> int:
    import imageio_ffmpeg

    try:
        return int(imageio_ffmpeg.count_frames_and_secs(os.path.abspath(path))[0])
    except Exception as error:  # of many types, with all that ffmpeg printed
        raise UserError(_unreadable(path, error)) from error


def read_frame(path: str | os.PathLike, number: int) -> np.ndarray:
    """Reads one frame; one after the other is fast, one before the last few starts from the beginning.

    Args:
      path: the file.
      number: number of the frame, from 0.

    Returns:
      [H, W] if all channels of the frame are equal, else [H, W, 3] (RGB); uint16 of videos above 8 bits, else uint8.

    Raises:
      MissingPackageError: if the extra `video` is not installed.
      UserError: if the file cannot be read or has fewer frames; the message names it.
    """
    return _video(path).read(number)


def frame_rate(path: str | os.PathLike) -> float:
    """Returns the frames per second that a video states, 25 if it states none; errors as in `read_frame`."""
    return float(_video(path).about.get("fps") or _FPS)


def is_deep(path: str | os.PathLike) -> bool:
    """Returns whether a video has more than 8 bits; errors as in `read_frame`."""
    return _video(path).deep


class _Video:
    """An open video; several threads may read."""

    def __init__(self, path: str):
        self._path, self._lock = path, threading.Lock()
        self._kept: collections.OrderedDict[int, np.ndarray] = collections.OrderedDict()
        self._reader: Any = None
        self._next = 0
        self.deep = False
        self.about = self._start()
        self.deep = bool(_DEEP.search(str(self.about.get("pix_fmt", "")).partition("(")[0]))
        if self.deep:
            self._start()

    def read(self, number: int) -> np.ndarray:
        with self._lock:
            if number not in self._kept and number < self._next:
                self._start()
            while number not in self._kept:
                frame = self._call(lambda: np.asarray(self._reader.get_next_data()))
                if frame is None:
                    raise UserError(f"{self._path}: has {self._next} frames, no frame {number + 1}")
                gray = np.array_equal(frame[..., 0], frame[..., 1]) and np.array_equal(frame[..., 0], frame[..., 2])
                self._kept[self._next] = np.ascontiguousarray(frame[..., 0]) if gray else frame
                self._next += 1
                if len(self._kept) > min(_KEPT, max(_KEPT_LEAST, _KEPT_BYTES // frame.nbytes)):
                    self._kept.popitem(last=False)
            return self._kept[number]

    def _start(self) -> dict[str, Any]:
        """Opens the video at its first frame; returns what it says about itself."""
        import imageio.v2

        path = os.path.abspath(self._path)  # what stands before a colon would be a protocol
        options: dict[str, Any] = {"dtype": "uint16" if self.deep else "uint8"}
        options["output_params"] = ["-fps_mode", "passthrough"]  # else frames are repeated or dropped at uneven times
        self.close()
        self._reader = self._call(lambda: imageio.v2.get_reader(path, "FFMPEG", **options))
        self._next = 0
        self._kept.clear()
        return self._call(lambda: self._reader.get_meta_data())

    def _call(self, function: Callable[[], Any]) -> Any:
        """Returns what a function of imageio returns; None at the end of the video."""
        reason = None
        with _quiet():
            try:
                return function()
            except (StopIteration, IndexError):
                return None
            except Exception as error:  # of many types, with all that ffmpeg printed
                reason = _unreadable(self._path, error)
        raise UserError(reason)  # without the error, whose traceback would keep files open

    def close(self) -> None:
        with _quiet():
            if self._reader is not None:
                self._reader.close()
            self._reader = None

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at the end of the process, modules may be gone
            self.close()


def _video(path: str | os.PathLike) -> _Video:
    _need(path)
    return _opened(*_state(path), os.getpid())  # a process that was forked must not share the decoder of its parent


def _state(path: str | os.PathLike) -> tuple[str, int, int]:
    """Returns the path, the time of the last change and the size of a file."""
    with reading(path):
        state = os.stat(path)
    return os.fspath(path), state.st_mtime_ns, state.st_size


@functools.lru_cache(maxsize=1)
def _opened(path: str, changed: int, size: int, process: int) -> _Video:
    _close_at_exit()
    return _Video(path)


@functools.cache
def _close_at_exit() -> None:
    atexit.register(_opened.cache_clear)


def _need(path: str | os.PathLike) -> None:
    if not available():
        raise MissingPackageError(f"{os.fspath(path)}: what reads videos is not installed: {HOW}")


def _unreadable(path: str | os.PathLike, error: Exception) -> str:
    reason = re.search(r"Error opening input: *(.+)", str(error))
    return f"{os.fspath(path)}: not a readable video" + (f": {reason[1]}" if reason else "")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences warnings about how imageio runs ffmpeg.

    The child of a process with threads leaves its group and becomes ffmpeg, nothing else; and pipes to a process that
    has ended are closed only when nothing refers to them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)  # JAX
        warnings.filterwarnings("ignore", r".*use of fork\(\) may lead to deadlocks", DeprecationWarning)  # Python
        warnings.filterwarnings("ignore", category=ResourceWarning)
        yield


@contextlib.contextmanager
def video_writer(path: str | os.PathLike, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Yields ``write(frame)`` for frames [H, W, 3] uint8 of one size with even sides; they become H.264 in MP4.

    Raises:
      MissingPackageError: if the extra `video` is not installed.
      FileError: if the file cannot be written; the message names it.
    """
    _need(path)
    import imageio.v2

    with writing(path):
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    options: dict[str, Any] = {"fps": fps, "macro_block_size": 2, "quality": 8, "ffmpeg_log_level": "error"}
    writer: Any = imageio.v2.get_writer(os.path.abspath(path), "FFMPEG", **options)

    def write(frame: np.ndarray) -> None:
        try:
            with _quiet():  # the first frame starts ffmpeg
                writer.append_data(frame)
        except (OSError, RuntimeError) as error:
            raise FileError(f"cannot write {os.fspath(path)}: {str(error).splitlines()[0]}") from error

    try:
        yield write
    finally:
        with _quiet():
            writer.close()

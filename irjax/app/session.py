"""What one browser tab works on: files, detections, and points that were corrected. Nothing here knows of the page."""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import pathlib
import tempfile
import threading
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from irjax.detector.canvases import Response
from irjax.detector.files import find_images, in_order, predictions_table
from irjax.detector.named import Named, open_named
from irjax.errors import UsageError, UserError, reading
from irjax.io.files import whole_folder, write_text
from irjax.io.images import Frame, read_image
from irjax.io.names import file_of, first_repeated, flat, image_names
from irjax.io.predictions import write_predictions
from irjax.io.sequences import places
from irjax.metrics.inputs import PointPredictions, from_detections
from irjax.reports.tables import csv_table

COMMAND = "irjax app"  # whose results these are
_KEPT = 16  # responses in memory
# Compilation and large networks take all cores, whatever the number of tabs.
_ONE_AT_A_TIME = threading.Lock()


@functools.lru_cache(maxsize=4)
def opened(name: str) -> Named:
    """Opens a detector once for all tabs; errors of `open_named`."""
    return open_named(name)


def nearest(points: np.ndarray, x: float, y: float, within: float) -> int | None:
    """Returns the index of the nearest of points [K, 2] at most so many pixels away, or None."""
    if not len(points):
        return None
    distance = np.hypot(*(points - (x, y)).T)
    index = int(distance.argmin())
    return index if distance[index] <= within else None


class Session:
    """The files of a tab, what a detector says of them, and what the user made of it.

    Attributes:
      images: {name: file or frame}, in the order in which they were added; frames by their numbers.
      model: name of the detector.
      threshold: lowest score of a detection; of a filter, the share of the way from the mean of its response to its
        maximum.
      edited: {name: points [K, 2] (x, y) in pixels} of the images whose points were changed; they no longer follow
        the threshold.
      seen: names of the images that were shown.
    """

    def __init__(self, model: str):
        self.images: dict[str, pathlib.Path | Frame] = {}
        self.edited: dict[str, np.ndarray] = {}
        self.seen: set[str] = set()
        self._folder = tempfile.TemporaryDirectory(prefix="irjax-app-", ignore_cleanup_errors=True)
        self._uploads = 0
        self._saved: set[pathlib.Path] = set()
        self._responses: collections.OrderedDict[tuple[str, str], Response] = collections.OrderedDict()
        self.choose(model)

    def close(self) -> None:
        """Removes the uploaded files."""
        self._folder.cleanup()

    def choose(self, model: str) -> None:
        """Takes another detector, at its own threshold; corrected points stay.

        Raises:
          UserError: if it cannot be opened; the one before stays.
        """
        with _ONE_AT_A_TIME:
            self.threshold = opened(model).threshold
        self.model = model

    def place_for(self, names: list[str]) -> list[pathlib.Path]:
        """Returns where uploaded files of these names go: a new folder of the session.

        Raises:
          UserError: if a name is that of no file, or of two.
        """
        self._uploads += 1
        folder = pathlib.Path(self._folder.name) / f"{self._uploads:04d}"
        folder.mkdir()
        kept = [pathlib.PurePath(name.replace("\\", "/")).name for name in names]
        if bad := [name for name, last in zip(names, kept, strict=True) if last in ("", ".", "..") or "\0" in last]:
            raise UserError(f"{bad[0]!r} is no name of a file")
        if twice := first_repeated(kept):
            raise UserError(f"two of these files are called {twice}: add them one after the other, or rename one")
        return [folder / name for name in kept]

    def add(self, files: list[pathlib.Path]) -> tuple[list[str], list[str]]:
        """Adds image files and videos.

        Args:
          files: the files, from `place_for`. A file of a name that is open already takes its place, unless points were
            corrected there.

        Returns:
          The names of the images and frames that are new, in order, and why the other files were not taken, each with
          the name of the file.
        """
        found: dict[str, pathlib.Path | Frame] = {}
        refused = []
        for file in files:
            try:
                images = find_images([file])
                read_image(next(iter(images.values())))  # now, while the user knows which files were meant
                if corrected := [name for name in images if name in self.edited]:
                    raise UserError(f"{corrected[0]} is open already, with corrected points: rename the file")
                found |= images
            except UserError as error:
                refused.append(str(error).replace(f"{file}", file.name))
        new = in_order(list(found), places(found, folders=True))
        for name in new:
            self.images.pop(name, None)
            self.seen.discard(name)
            for key in [key for key in self._responses if key[1] == name]:
                del self._responses[key]
            self.images[name] = found[name]
        return new, refused

    def image(self, name: str) -> np.ndarray:
        """Reads an image [H, W], uint8 or uint16."""
        self.seen.add(name)
        return read_image(self.images[name])

    def response(self, name: str) -> Response:
        """Returns what the detector responds with to an image; run once, and kept for the next thresholds."""
        key = (self.model, name)
        if key not in self._responses:
            with _ONE_AT_A_TIME:
                self._responses[key] = opened(self.model).respond(read_image(self.images[name]))
            while len(self._responses) > _KEPT:
                self._responses.popitem(last=False)
        self._responses.move_to_end(key)
        return self._responses[key]

    def points(self, name: str) -> PointPredictions:
        """Returns the corrected points of an image, with score 1, or the detections at the threshold."""
        if name in self.edited:
            return PointPredictions(self.edited[name], np.ones(len(self.edited[name])))
        (found,) = from_detections(self.response(name).detections(self.threshold))
        return found

    def add_point(self, name: str, x: float, y: float) -> None:
        """Adds a point, in pixels of the image; those before become corrected points, too."""
        self._edit(name, lambda points: np.concatenate([points, [self._inside(name, x, y)]]))

    def move_point(self, name: str, index: int, x: float, y: float) -> None:
        """Moves a point, by its index in `points`."""
        there = self._inside(name, x, y)
        self._edit(name, lambda points: np.where(np.arange(len(points))[:, None] == index, there, points))

    def delete_point(self, name: str, index: int) -> None:
        """Deletes a point, by its index in `points`."""
        self._edit(name, lambda points: np.delete(points, index, axis=0))

    def restore(self, name: str) -> None:
        """Forgets the corrections of an image: it has the detections again."""
        self.edited.pop(name, None)

    def _edit(self, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
        self.edited[name] = np.asarray(change(np.asarray(self.points(name).points, np.float64)), np.float64)

    def _inside(self, name: str, x: float, y: float) -> np.ndarray:
        height, width = read_image(self.images[name]).shape
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            raise UsageError(f"({x:.1f}, {y:.1f}) lies outside of {name}, {width} x {height} pixels")
        return np.clip([x, y], 0, [width - 1, height - 1])

    def save_predictions(self, out: str | os.PathLike) -> str:
        """Writes predictions.json and predictions.csv of all images, as `irjax predict` does, and says what it wrote.

        Raises:
          UserError: if there are no images, the folder holds what this session did not save, or it cannot be written.
        """
        found = {name: self.points(name) for name in self._all()}
        sizes = {name: read_image(file).shape for name, file in self.images.items()}
        with self._saving(out) as folder:
            write_predictions(folder / "predictions.json", found, sizes)
            write_text(folder / "predictions.csv", predictions_table(found, places(self.images)))
        return f"{sum(map(len, found.values()))} points in {len(found)} images: {out}/predictions.json, predictions.csv"

    def save_dataset(self, out: str | os.PathLike) -> str:
        """Writes the images that were shown with their points, as a data set of the layout `points`.

        ``images/NAME.png`` has the gray values that were read, 8 or 16 bits; ``points.csv`` a line ``name,x,y`` for
        each point. An image without points is in the data set as one without targets.

        Raises:
          UserError: as `save_predictions`; also if no image was shown.
        """
        names = [name for name in self._all() if name in self.seen]
        files = dict(zip(names, (file_of(flat(name)) for name in image_names(names)), strict=True))
        with self._saving(out) as folder:
            (folder / "images").mkdir()
            rows = []
            for name, file in files.items():
                image = read_image(self.images[name])
                Image.fromarray(image).save(folder / "images" / f"{file}.png")
                # A point of a heatmap may lie up to a cell outside of its image.
                inside = np.clip(self.points(name).points, 0, np.array(image.shape[::-1]) - 1)
                rows += [[file, float(x), float(y)] for x, y in inside]
            write_text(folder / "points.csv", csv_table(["name", "x", "y"], rows))
        left = len(self.images) - len(names)
        more = f"; {left} that you have not looked at are left out" if left else ""
        return f"{len(rows)} points in {len(names)} images: {out} (irjax train spire --data.root {out}){more}"

    def _all(self) -> list[str]:
        if not self.images:
            raise UserError("there are no images to save yet")
        return list(self.images)

    @contextlib.contextmanager
    def _saving(self, out: str | os.PathLike) -> Iterator[pathlib.Path]:
        """Yields a folder whose content becomes that of `out`: new, empty, or what this session saved there."""
        if not os.fspath(out).strip():
            raise UsageError("name a folder to save in")
        place = pathlib.Path(out).expanduser()
        with reading(place):
            filled = place.exists() and (not place.is_dir() or any(place.iterdir()))
        if filled and place.resolve() not in self._saved:
            raise UserError(f"{out} holds something already, which is not replaced: give another folder")
        with whole_folder(place, COMMAND) as folder:
            yield folder
        self._saved.add(place.resolve())

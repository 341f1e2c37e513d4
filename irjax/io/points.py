"""The one reader of tables of points (CSV), of labels and of predictions; points inside images."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator

import numpy as np

from irjax.errors import UserError
from irjax.io import lists
from irjax.io.coco import finite_text, note_left_out
from irjax.io.images import read_bytes


def read_table(path: str | os.PathLike) -> Iterator[tuple[str, str, tuple[float, float], float | None]]:
    """Reads a CSV table with the columns name, x, y and perhaps score, in any order; other columns are ignored.

    Yields:
      Of each row "FILE, line N", the name, the point (x, y), and the score, None where there is no such column.

    Raises:
      MissingFileError: if there is no such file.
      UserError: if a column or a name is missing, or a value is no finite number; the message names file and line.
    """
    path = os.fspath(path)
    text = lists.decode_text(read_bytes(path), path)
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
        columns = [column.strip() for column in rows.fieldnames or ()]
        if missing := [column for column in ("name", "x", "y") if column not in columns]:
            raise UserError(
                f"{path}: columns name, x, y, and of predictions score, are wanted; "
                f"{', '.join(missing)} not among {columns}"
            )
        rows.fieldnames = columns
        for row in rows:
            where, name = f"{path}, line {rows.line_num}", (row["name"] or "").strip()
            if not name:
                raise UserError(f"{where}: a name is wanted")
            x, y = (finite_text(row[column], f"{where}: {column}") for column in ("x", "y"))
            score = finite_text(row["score"], f"{where}: score") if "score" in columns else None
            yield where, name, (x, y), score
    except csv.Error as error:
        raise UserError(f"{path}: not a csv file ({error})") from error


def read_points_csv(path: str | os.PathLike, known: frozenset[str] | None = None) -> dict[str, np.ndarray]:
    """Reads the points of a table (`read_table`); scores are left out, with a note.

    Args:
      path: the CSV file.
      known: the names of all images, or None to accept any name as it is written.

    Returns:
      Name -> [K, 2] float32 (x, y) in pixels, for the names that have rows.

    Raises:
      MissingFileError: if there is no such file.
      UserError: see `read_table`; also if a name is unknown.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    find, scored = None if known is None else lists.Resolver(known), 0
    for where, written, point, score in read_table(path):
        name = written if find is None or written in find else find(written)
        if name is None:
            raise UserError(f"{where}: there is no image for the name {written!r}")
        found.setdefault(name, []).append(point)
        scored += score is not None
    if scored:
        note_left_out(f"{scored} scores", path)
    return {name: np.array(points, np.float32) for name, points in found.items()}


def check_points(points: np.ndarray, size: tuple[int, int], where: str | os.PathLike) -> None:
    """Checks that points [K, 2] lie in an image of `size` (height, width).

    Raises:
      UserError: if a point lies outside; `where` names the file in the message.
    """
    height, width = size
    # A pixel extends half a pixel beyond its centre.
    inside = np.all((points >= -0.5) & (points < np.array([width, height]) - 0.5), axis=1)
    if not inside.all():
        x, y = points[np.argmin(inside)]
        raise UserError(f"{os.fspath(where)}: the point ({x:g}, {y:g}) is outside the image of {width}x{height} pixels")

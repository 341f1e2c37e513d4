"""Saving of matplotlib figures."""

from __future__ import annotations

import os
import warnings
from typing import Any

from irjax.errors import UsageError
from irjax.io.files import atomic_path

PICTURES = (".png", ".svg", ".pdf")  # formats of figures


def save_figure(figure: Any, path: str | os.PathLike, dpi: int = 150) -> None:
    """Saves a figure atomically; the ending of the path, one of `PICTURES`, gives the format.

    Names are drawn as they are: a ``$`` begins no formula, and letters that the font lacks become boxes.

    Raises:
      UsageError: if the path has another ending.
      FileError: if the file cannot be written.
    """
    if not os.fspath(path).lower().endswith(PICTURES):
        raise UsageError(f"the picture must end in {', '.join(PICTURES)}, got {os.fspath(path)}")
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        said = text.get_text()
        text.set_parse_math(r"\mathdefault" in said or "$" not in said)  # as of the labels of logarithmic axes
        text.set_text(said.encode("utf-8", errors="replace").decode())  # bytes of file names that are no UTF-8
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
        figure.savefig(temporary, dpi=dpi)

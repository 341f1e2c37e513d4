"""Saving of matplotlib figures."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
import warnings
from collections.abc import Container, Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

from irjax.errors import UsageError
from irjax.io.files import atomic_path

PICTURES = (".png", ".svg", ".pdf")  # formats of figures
_NAMED = re.compile(r"#([\w-]+)")
_PNG = "data:image/png;base64,"
_DIGITS = re.compile(r"(\.\d\d)\d+")


def save_figure(figure: Any, path: str | os.PathLike, dpi: int = 150) -> None:
    """Saves a figure atomically; the ending of the path, one of `PICTURES`, gives the format.

    Names are drawn as they are: a ``$`` begins no formula, and letters that the font lacks become boxes.

    Raises:
      UsageError: if the path has another ending.
      FileError: if the file cannot be written.
    """
    if not os.fspath(path).lower().endswith(PICTURES):
        raise UsageError(f"the picture must end in {', '.join(PICTURES)}, got {os.fspath(path)}")
    _as_they_are(figure)
    with atomic_path(path) as temporary, _missing_letters():
        figure.savefig(temporary, dpi=dpi)


def inline_svg(figure: Any, kind: str, description: str, colours: Mapping[str, str] | None = None) -> str:
    """Draws a figure as an ``<svg>`` element for a page, without a size of its own and with letters as text.

    Args:
      figure: the figure; its background is left out. Its images are gray.
      kind: class of the element.
      description: text alternative, for screen readers.
      colours: {"#rrggbb" of the figure: what stands instead}, such as ``var(--ink)``, which follows a dark mode.

    Returns:
      The element. Equal figures give equal text.
    """
    import matplotlib

    _as_they_are(figure)
    out = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "irjax"}), _missing_letters():
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(out.getvalue())
    named = {name for element in root.iter() for value in element.attrib.values() for name in _NAMED.findall(value)}
    for element in root.iter():
        _simplify(element, named, colours or {})
    width, height = (72 * side for side in figure.get_size_inches())
    root.attrib = {"class": kind, "viewBox": f"0 0 {width:g} {height:g}", "role": "img", "aria-label": description}
    for child in list(root):
        if child.tag == "metadata" or (child.tag == "defs" and child[0].tag == "style"):  # the page has a style
            root.remove(child)
    return ElementTree.tostring(root, encoding="unicode")


def _simplify(element: ElementTree.Element, named: Container[str], colours: Mapping[str, str]) -> None:
    """Leaves of an element what a page needs: no namespaces, names that nobody uses, fonts, or digits beyond .01."""
    element.tag = element.tag.rpartition("}")[2]
    element.tail = None
    if not (element.text or "").strip():
        element.text = None
    kept = {}
    for key, value in element.attrib.items():
        key = key.rpartition("}")[2]
        if key == "id" and value not in named:  # several figures of a page would share it
            continue
        if key == "style":
            value = "; ".join(part for part in value.split("; ") if not part.startswith("font-family"))
            for old, new in colours.items():
                value = value.replace(old, new)
        elif key == "href" and value.startswith(_PNG):
            value = _PNG + _gray_png(value.removeprefix(_PNG))
        elif key in ("d", "x", "y", "transform", "width", "height"):
            value = _DIGITS.sub(r"\1", " ".join(value.split()))
        kept[key] = value
    element.attrib = kept


def _gray_png(encoded: str) -> str:
    """Encodes a picture again, in one channel: matplotlib writes four."""
    from PIL import Image

    out = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
        picture.convert("L").save(out, "PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def _as_they_are(figure: Any) -> None:
    """Lets names be drawn as they are: a ``$`` begins no formula."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        said = text.get_text()
        text.set_parse_math(r"\mathdefault" in said or "$" not in said)  # as of the labels of logarithmic axes
        text.set_text(said.encode("utf-8", errors="replace").decode())  # bytes of file names that are no UTF-8


@contextlib.contextmanager
def _missing_letters() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
        yield

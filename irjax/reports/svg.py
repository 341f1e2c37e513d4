"""Curves, annotated cut-outs and 3-D surfaces as SVG text, for self-contained pages.

Colours of the page (text, grid, curves) are CSS variables, so that figures follow its dark mode and print layout;
colours that encode a value or a kind of event are fixed.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import math
from collections.abc import Sequence

import numpy as np

from irjax.reports.events import FALSE, MISS, Event, Inset, brightest, contrast
from irjax.reports.lines import decades

# Ten stops of viridis, from low to high.
_STOPS = np.array(
    [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142],
     [31, 158, 137], [53, 183, 121], [110, 206, 88], [181, 222, 43], [253, 231, 37]], float)  # fmt: skip
_WIDTH, _HEIGHT = 460, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 14, 46

Values = Sequence[float] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Series:
    """A curve: its label, its points, its dash pattern, and an optional marked point (x, y, text)."""

    label: str
    x: Values
    y: Values
    dash: str = ""
    mark: tuple[float, float, str] | None = None


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis: its title with the unit, its limits, and whether it is logarithmic (then both limits are above 0)."""

    title: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False

    def place(self, value: float) -> float:
        """Returns the position of a value between the limits, in [0, 1]; values beyond them are clipped."""
        if self.log:
            value, low, high = math.log10(max(value, self.low)), math.log10(self.low), math.log10(self.high)
        else:
            low, high = self.low, self.high
        return min(max((value - low) / (high - low), 0.0), 1.0)

    def ticks(self) -> list[tuple[float, str]]:
        """Returns the values of the ticks and their labels."""
        if not self.log:
            return [(v, f"{v:g}") for v in np.linspace(self.low, self.high, 6).round(10)]
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        step = max(1, -(-(last - first) // 6))
        return [(10.0**power, f"1e{power}" if power else "1") for power in range(first, last + 1, step)]


def log_axis(title: str, values: Values, high: float | None = None) -> Axis:
    """Returns a logarithmic axis over whole decades, at least one, that contains all positive values and `high`."""
    return Axis(title, *decades(np.asarray(values), high), log=True)


def _point(x: Axis, y: Axis, a: float, b: float) -> tuple[float, float]:
    across = _LEFT + x.place(a) * (_WIDTH - _LEFT - _RIGHT)
    return across, _HEIGHT - _BOTTOM - y.place(b) * (_HEIGHT - _TOP - _BOTTOM)


def _curve(x: Axis, y: Axis, series: Series, number: int) -> str:
    path: list[str] = []
    pen = "M"
    for a, b in zip(series.x, series.y, strict=True):
        if not (math.isfinite(a) and math.isfinite(b)):
            pen = "M"
            continue
        across, down = _point(x, y, a, b)
        place = f"{across:.1f} {down:.1f}"
        if pen == "M" or path[-1][1:] != place:  # no two corners in one place
            path.append(f"{pen}{place}")
        pen = "L"
    dash = f' stroke-dasharray="{series.dash}"' if series.dash else ""
    text = f'<path class="c{number}" d="{"".join(path)}" fill="none" stroke-width="2"{dash}/>'
    if len(path) == 1:
        text += f'<circle class="c{number}" cx="{across:.1f}" cy="{down:.1f}" r="3"/>'
    if series.mark and all(map(math.isfinite, series.mark[:2])):
        across, down = _point(x, y, *series.mark[:2])
        text += f'<circle class="c{number} dot" cx="{across:.1f}" cy="{down:.1f}" r="4.5"/>'
    return text


def chart(x: Axis, y: Axis, series: Sequence[Series], *, description: str, guides: Sequence[Series] = ()) -> str:
    """Draws a line chart.

    Args:
      x: the horizontal axis.
      y: the vertical axis.
      series: the curves; nan interrupts a curve.
      description: text alternative of the chart, for screen readers.
      guides: thin gray lines behind the curves, each with its label at its last point.

    Returns:
      An `<svg>` element.
    """
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(description)}">',
    ]
    for value, text in x.ticks():
        across, _ = _point(x, y, value, y.low)
        parts.append(f'<line class="grid" x1="{across:.1f}" y1="{_TOP}" x2="{across:.1f}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{across:.1f}" y="{bottom + 16}" text-anchor="middle">{text}</text>')
    for value, text in y.ticks():
        _, down = _point(x, y, x.low, value)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{down:.1f}" x2="{right}" y2="{down:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{down + 3.5:.1f}" text-anchor="end">{text}</text>')
    for guide in guides:
        points = [_point(x, y, a, b) for a, b in zip(guide.x, guide.y, strict=True)]
        path = "L".join(f"{across:.1f} {down:.1f}" for across, down in points)
        parts.append(f'<path class="guide" d="M{path}" fill="none"/>')
        if guide.label:
            across, down = points[-1]
            label = html.escape(guide.label)
            parts.append(f'<text class="tick" x="{across - 3:.1f}" y="{down - 3:.1f}" text-anchor="end">{label}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none"/>')
    parts += [_curve(x, y, one, number) for number, one in enumerate(series)]
    parts += _legend(x, y, series)
    middle = (_LEFT + right) / 2, (_TOP + bottom) / 2
    parts.append(
        f'<text class="title" x="{middle[0]}" y="{_HEIGHT - 8}" text-anchor="middle">{html.escape(x.title)}</text>'
    )
    parts.append(
        f'<text class="title" x="14" y="{middle[1]}" text-anchor="middle" '
        f'transform="rotate(-90 14 {middle[1]})">{html.escape(y.title)}</text>'
    )
    return "".join(parts) + "</svg>"


def _legend(x: Axis, y: Axis, series: Sequence[Series]) -> list[str]:
    """Draws the legend in the corner, or in the middle of a side, that covers the fewest points of the curves."""
    lines = []
    for number, one in enumerate(series):
        if one.label:
            lines.append((number, one.label, one.dash, False))
        if one.mark:
            lines.append((number, one.mark[2], "", True))
    if not lines:
        return []
    width, height = 36 + max(6.3 * len(text) for _, text, *_ in lines), 17 * len(lines) + 6
    points = np.array(
        [_point(x, y, a, b) for one in series for a, b in zip(one.x, one.y, strict=True) if math.isfinite(a + b)]
    ).reshape(-1, 2)
    # Points are interpolated, because a curve also runs between its points.
    points = np.concatenate([points[:-1] + part * np.diff(points, axis=0) for part in np.linspace(0, 1, 33)])
    corners = [
        (across, down)
        for down in (_HEIGHT - _BOTTOM - height - 6, _TOP + 6, (_HEIGHT - _BOTTOM + _TOP - height) / 2)
        for across in (_WIDTH - _RIGHT - width - 6, _LEFT + 8)
    ]
    covered = [
        np.count_nonzero(((points > corner) & (points < np.add(corner, (width, height)))).all(axis=1))
        for corner in corners
    ]
    left, top = corners[int(np.argmin(covered))]
    parts = [f'<rect class="legend" x="{left:.1f}" y="{top}" width="{width:.1f}" height="{height}" rx="3"/>']
    for row, (number, text, dash, dot) in enumerate(lines):
        down = top + 14 + 17 * row
        if dot:
            parts.append(f'<circle class="c{number} dot" cx="{left + 15:.1f}" cy="{down - 3.5}" r="4.5"/>')
        else:
            stroke = f' stroke-dasharray="{dash}"' if dash else ""
            parts.append(
                f'<line class="c{number}" x1="{left + 5:.1f}" y1="{down - 3.5}" x2="{left + 25:.1f}" '
                f'y2="{down - 3.5}" stroke-width="2"{stroke}/>'
            )
        parts.append(f'<text class="key" x="{left + 30:.1f}" y="{down}">{html.escape(text)}</text>')
    return parts


def png_uri(image: np.ndarray, low: float, high: float) -> str:
    """Encodes a gray image [H, W] as a PNG data URI; `low` is black, `high` is white."""
    from PIL import Image

    levels = np.clip((image.astype(np.float64) - low) / (high - low), 0, 1)
    out = io.BytesIO()
    Image.fromarray(np.rint(levels * 255).astype(np.uint8)).save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def outline_path(mask: np.ndarray) -> str:
    """Returns the outline of a mask along pixel edges as SVG path data; pixel (0, 0) extends from -0.5 to 0.5."""
    padded = np.pad(np.asarray(mask, bool), 1)
    parts = []
    for axis in (0, 1):
        edges = padded[1:] != padded[:-1] if axis == 0 else (padded[:, 1:] != padded[:, :-1]).T
        for line, row in enumerate(edges):
            ends = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
            for start, stop in zip(ends[::2], ends[1::2], strict=True):
                across, down = (start - 1.5, line - 0.5) if axis == 0 else (line - 0.5, start - 1.5)
                parts.append(f"M{across:g} {down:g}{'h' if axis == 0 else 'v'}{stop - start}")
    return "".join(parts)


def marker(event: Event, size: float) -> str:
    """Draws the open marker of an event with a dark rim; `size` is its radius in pixels of the image."""
    x, y = event.x, event.y
    if event.kind is MISS:
        shape = f"M{x:.2f} {y - size:.2f}L{x + 0.9 * size:.2f} {y + 0.7 * size:.2f}H{x - 0.9 * size:.2f}Z"
    elif event.kind is FALSE:
        side = 0.8 * size
        shape = f"M{x - side:.2f} {y - side:.2f}h{2 * side:.2f}v{2 * side:.2f}h{-2 * side:.2f}Z"
    else:
        arc = f"a{size:.2f} {size:.2f} 0 1 0"
        shape = f"M{x - size:.2f} {y:.2f}{arc} {2 * size:.2f} 0{arc} {-2 * size:.2f} 0"
    return f'<path class="rim" d="{shape}"/><path class="mark" stroke="{event.kind.colour}" d="{shape}"/>'


def cut_out(
    image: np.ndarray,
    inset: Inset,
    *,
    truth: np.ndarray | None,
    predicted: np.ndarray | None,
    points: np.ndarray,
    limit: float,
) -> str:
    """Draws an enlarged cut-out with its own contrast, outlines of truth and prediction, match circles and events.

    Args:
      image: [H, W].
      inset: the part to show, with its events.
      truth: [H, W] bool true mask, drawn with a solid outline, or None.
      predicted: [H, W] bool predicted mask, drawn with a dashed outline, or None.
      points: [K, 2] (x, y) true points, each drawn with a circle of radius `limit`.
      limit: largest distance of a match in pixels.

    Returns:
      An `<svg>` element.
    """
    patch = inset.cut(image)
    height, width = patch.shape
    box = f"{inset.left - 0.5} {inset.top - 0.5} {width} {height}"
    text = "; ".join(f"{e.kind.label} at x {e.x:.1f}, y {e.y:.1f}" for e in inset.events)
    parts = [
        f'<svg class="cut" viewBox="{box}" role="img" aria-label="{html.escape(text)}">',
        f'<image x="{inset.left - 0.5}" y="{inset.top - 0.5}" width="{width}" height="{height}" '
        f'href="{png_uri(patch, *contrast(patch, 0.5, 100))}"/>',
    ]
    shift = f'transform="translate({inset.left} {inset.top})"'
    for mask, kind in ((truth, "true"), (predicted, "found")):
        if mask is not None and (border := outline_path(inset.cut(mask))):
            parts.append(f'<path class="{kind}" {shift} d="{border}"/>')
    for x, y in points:
        if inset.left - limit < x < inset.left + width + limit and inset.top - limit < y < inset.top + height + limit:
            parts.append(f'<circle class="limit" cx="{x:.2f}" cy="{y:.2f}" r="{limit:g}"/>')
    parts += [marker(event, 2.3) for event in inset.events]
    return "".join(parts) + "</svg>"


def whole(image: np.ndarray, events: Sequence[Event], insets: Sequence[Inset], *, largest: int = 512) -> str:
    """Draws the whole image as an `<svg>` element, with a marker for each event and a numbered frame for each inset.

    An image with a side longer than `largest` is reduced by an integer factor, keeping the brightest pixel of each
    block, so that targets of a few pixels remain visible.
    """
    height, width = image.shape
    factor = -(-max(height, width) // largest)
    low, high = contrast(image)
    image = brightest(image, factor)
    side = max(height, width)
    parts = [
        f'<svg class="whole" viewBox="-0.5 -0.5 {width} {height}" role="img" '
        f'aria-label="{len(events)} events in an image of {width} by {height} pixels">',
        f'<image x="-0.5" y="-0.5" width="{image.shape[1] * factor}" height="{image.shape[0] * factor}" '
        f'preserveAspectRatio="none" href="{png_uri(image, low, high)}"/>',
    ]
    parts += [marker(event, side / 90) for event in events]
    for number, inset in enumerate(insets, 1):
        parts.append(
            f'<rect class="frame" x="{inset.left - 0.5}" y="{inset.top - 0.5}" width="{inset.side}" '
            f'height="{inset.side}"/><text class="number" x="{inset.left + side / 90:.1f}" '
            f'y="{inset.top + side / 24:.1f}" font-size="{side / 24:.1f}">{number}</text>'
        )
    return "".join(parts) + "</svg>"


def surface(values: np.ndarray, *, left: int, top: int, low: float, high: float, unit: str) -> str:
    """Draws a surface over pixels in oblique projection, coloured by height, as an `<svg>` element.

    Args:
      values: [h, w] heights.
      left: x of the first column in pixels of the image.
      top: y of the first row.
      low: value of the floor.
      high: value of the highest grid line, above `low`.
      unit: title of the vertical axis.
    """
    height, width = values.shape
    scaled = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)
    across = np.array([0.88, 0.47])  # a step in x, to the right and down
    back = np.array([-0.88, 0.47])  # a step in y, to the left and down
    span, tall = 104.0, 96.0
    grid_y, grid_x = np.mgrid[0:height, 0:width]
    flat = (grid_x[..., None] / max(width - 1, 1)) * across * span + (
        grid_y[..., None] / max(height - 1, 1)
    ) * back * span
    shifted = flat + [118, 112]
    points = shifted.copy()
    points[..., 1] -= scaled * tall
    parts = [f'<svg class="surface" viewBox="-16 0 252 228" role="img" aria-label="{html.escape(unit)} as a surface">']
    corner = lambda x, y, z=0.0: shifted[y, x] - [0, z * tall]  # noqa: E731
    for level in (0.0, 0.5, 1.0):
        a, b, c = corner(0, height - 1, level), corner(0, 0, level), corner(width - 1, 0, level)
        parts.append(
            f'<path class="grid" fill="none" d="M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}L{c[0]:.1f} {c[1]:.1f}"/>'
        )
        text = f"{low + level * (high - low):.3g}"
        parts.append(f'<text class="tick" x="{a[0] - 3:.1f}" y="{a[1] + 5:.1f}" text-anchor="end">{text}</text>')
    mean = (scaled[:-1, :-1] + scaled[1:, :-1] + scaled[:-1, 1:] + scaled[1:, 1:]) / 4
    floor = [corner(0, 0), corner(width - 1, 0), corner(width - 1, height - 1), corner(0, height - 1)]
    parts.append(f'<path fill="{_viridis(0)}" d="M{"L".join(f"{p[0]:.1f} {p[1]:.1f}" for p in floor)}Z"/>')
    order = np.argsort((grid_x + grid_y)[:-1, :-1], axis=None, kind="stable")
    for index in order:
        row, column = divmod(int(index), width - 1)
        if mean[row, column] < 0.004:  # at the floor, which is already drawn
            continue
        quad = [points[row, column], points[row, column + 1], points[row + 1, column + 1], points[row + 1, column]]
        shade = _viridis(mean[row, column])
        parts.append(f'<path fill="{shade}" d="M{"L".join(f"{p[0]:.1f} {p[1]:.1f}" for p in quad)}Z"/>')
    near, right = corner(0, height - 1), corner(width - 1, 0)
    front = corner(width - 1, height - 1)
    parts.append(
        f'<path class="axis" fill="none" d="M{near[0]:.1f} {near[1]:.1f}L{front[0]:.1f} {front[1]:.1f}'
        f'L{right[0]:.1f} {right[1]:.1f}"/>'
        f'<text class="tick" x="-14" y="222">x {left} to {left + width - 1}</text>'
        f'<text class="tick" x="234" y="222" text-anchor="end">y {top} to {top + height - 1}</text>'
        f'<text class="title" x="-14" y="16">{html.escape(unit)}</text>'
    )
    return "".join(parts) + "</svg>"


def _viridis(value: float) -> str:
    place = min(max(value, 0.0), 1.0) * (len(_STOPS) - 1)
    first = min(int(place), len(_STOPS) - 2)
    red, green, blue = _STOPS[first] + (place - first) * (_STOPS[first + 1] - _STOPS[first])
    return f"#{round(red):02x}{round(green):02x}{round(blue):02x}"

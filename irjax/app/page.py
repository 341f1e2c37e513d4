"""The page of `irjax app`, in NiceGUI: what a tab shows of its `Session`, and what a click does to it."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from irjax.app.session import Session, nearest
from irjax.baselines import BASELINES
from irjax.errors import MissingPackageError, UserError
from irjax.metrics.inputs import PointPredictions
from irjax.reports.cards import canvas_html, cards_html, make_card, page_part, surface
from irjax.reports.events import FOUND, POINT, brightest, contrast, event_at, find_insets, gray_levels

_SIDE = 25  # side of a cut-out in pixels
_CARDS = 6
_LARGEST = 2048  # side in pixels up to which images are shown as they are
_GRID = 96  # cells of the surface of a whole response along its longer side
_MARK = "fill:none;vector-effect:non-scaling-stroke"
_STYLE = """<style>
.nicegui-content { padding: 12px; } figure { margin: 0; } .events { display: grid; gap: 10px;
  grid-template-columns: repeat(auto-fill, minmax(210px, 1fr)); } figcaption { font-size: 13px; }
svg { stroke-linejoin: round; } .q-uploader__list { display: none; } .scene { cursor: crosshair; }
.scene img { image-rendering: pixelated; background: #000; }
.wide canvas { max-width: 520px; margin: auto; }
</style>"""


@dataclasses.dataclass(frozen=True)
class Shown:
    """What is shown of an image.

    Attributes:
      picture: 8-bit gray, the image or its response.
      factor: pixels of the image to one of the picture.
      points: detections or corrected points.
      corrected: whether they are corrected.
      cards: enlarged targets, HTML.
      whole: the surface of the whole response, HTML.
    """

    picture: Image.Image
    factor: int
    points: PointPredictions
    corrected: bool
    cards: str
    whole: str


def shown_of(session: Session, name: str, view: str) -> Shown:
    """Reads, detects and draws; takes as long as the network does, the first time.

    Raises:
      UserError: if the image cannot be read or used.
    """
    image, response, points = session.image(name), session.response(name).values, session.points(name)
    is_filter = session.model in BASELINES
    top, unit = (max(float(response.max()), 1e-6), "response") if is_filter else (1.0, "p")
    low, high = contrast(image) if view == "image" else (0.0, top)
    reduced, factor = brightest(image if view == "image" else response, _LARGEST)
    corrected = name in session.edited
    kind = POINT if corrected else FOUND
    scores = np.ones(len(points)) if points.scores is None else points.scores
    events = [event_at(kind, point, float(score)) for point, score in zip(points.points, scores, strict=True)]
    insets = find_insets(events, image.shape, _SIDE)[:_CARDS]
    cards = [make_card(image, inset, response, top=top, unit=unit) for inset in insets]
    cells, step = brightest(response, _GRID)
    whole = surface(cells, 0.0, top, unit, step=step)
    picture = Image.fromarray(gray_levels(reduced, low, high))
    return Shown(picture, factor, points, corrected, cards_html(cards), canvas_html(whole))


class Tab:
    """The elements of one tab and what they do."""

    def __init__(self, ui: Any, run: Any, session: Session, models: Sequence[str]):
        self.ui, self.run, self.session = ui, run, session
        self.name: str | None = None
        self.shown: Shown | None = None
        self.selected: int | None = None
        self._pressed: tuple[float, float, int | None] | None = None
        self._busy = asyncio.Lock()
        self._build(models)

    def _build(self, models: Sequence[str]) -> None:
        ui = self.ui
        with ui.row().classes("w-full items-center gap-4 no-wrap max-sm:flex-wrap"):
            ui.label("irjax").classes("text-xl font-bold")
            self.model = ui.select(list(models), value=self.session.model, on_change=self.choose, label="detector")
            self.model.classes("w-48")
            ui.label("threshold").classes("text-sm")
            self.threshold = ui.slider(min=0, max=1, step=0.01, value=self.session.threshold).classes("w-56")
            self.threshold.on("change", self.set_threshold)
            ui.label().classes("w-10").bind_text_from(self.threshold, "value", lambda value: f"{value:.2f}")
            self.view = ui.toggle(["image", "response"], value="image", on_change=self.refresh)
            self.edit = ui.switch("correct points")
            self.spinner = ui.spinner()
            self.spinner.visible = False
        upload = ui.upload(
            multiple=True, auto_upload=True, label="Drop images, frames or a video", on_multi_upload=self.uploaded
        )
        upload.classes("w-full").props("flat bordered")
        self.upload = upload
        with ui.row().classes("w-full no-wrap max-md:flex-wrap gap-4 items-start"):
            with ui.column().classes("w-3/5 max-md:w-full gap-1"):
                with ui.row().classes("w-full items-center no-wrap"):
                    ui.button(icon="chevron_left", on_click=lambda: self.step(-1)).props(
                        "flat dense aria-label=previous"
                    )
                    self.names = ui.select([], on_change=self.pick, with_input=True).classes("grow").props("dense")
                    ui.button(icon="chevron_right", on_click=lambda: self.step(1)).props("flat dense aria-label=next")
                self.image = ui.interactive_image(on_mouse=self.mouse, events=["mousedown", "mouseup"], sanitize=False)
                self.image.classes("w-full scene")
                with ui.row().classes("w-full items-center"):
                    self.status = ui.label("Nothing is open yet.").classes("text-sm grow")
                    self.delete = ui.button("delete point", on_click=self.delete_selected).props("flat dense")
                    self.restore = ui.button("detections again", on_click=self.restored).props("flat dense")
                ui.label(
                    "With “correct points”: click adds a point, drag moves one, click and Delete (or Shift and click) "
                    "removes it."
                ).classes("text-xs opacity-70")
                self._saving("predictions", "runs/app-predictions", self.session.save_predictions)
                self._saving("data set", "runs/app-dataset", self.session.save_dataset)
            with ui.column().classes("w-2/5 max-md:w-full gap-3"):
                self.cards = ui.html(sanitize=False).classes("w-full events")
                self.whole = ui.html(sanitize=False).classes("w-full wide")
        ui.keyboard(on_key=self.key)

    def _saving(self, what: str, folder: str, save: Callable[[str], str]) -> None:
        ui = self.ui
        with ui.row().classes("w-full items-end no-wrap"):
            out = ui.input("folder", value=folder).classes("grow").props("dense")

            async def saved() -> None:
                async def work() -> None:
                    said = await self.run.io_bound(save, out.value)
                    ui.notify(said, type="positive", multi_line=True, close_button=True, timeout=10_000)

                await self.guarded(work)

            ui.button(f"save {what}", on_click=saved).props("no-caps outline")

    async def guarded(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Does something that takes a while, one thing at a time; a user's error is shown. Returns if it went well."""
        async with self._busy:
            self.spinner.visible = True
            try:
                await work()
                return True
            except UserError as error:
                self.tell(str(error))
                return False
            finally:
                self.spinner.visible = False

    def tell(self, error: str) -> None:
        """Shows what went wrong."""
        self.ui.notify(error, type="negative", multi_line=True, close_button=True, timeout=15_000)

    async def uploaded(self, event: Any) -> None:
        """Takes dropped files and shows the first."""

        async def work() -> None:
            paths = self.session.place_for([file.name for file in event.files])
            for file, path in zip(event.files, paths, strict=True):
                await file.save(path)
            new, refused = await self.run.io_bound(self.session.add, paths)
            for text in refused:
                self.tell(text)
            self.name = new[0] if new else self.name

        await self.guarded(work)
        self.upload.reset()
        if self.session.images:
            self.names.set_options(list(self.session.images), value=self.name)
            await self.refresh()

    async def choose(self, event: Any) -> None:
        """Takes another detector."""

        async def work() -> None:
            await self.run.io_bound(self.session.choose, event.value)

        if await self.guarded(work):
            self.threshold.value = self.session.threshold
        else:
            self.model.value = self.session.model
        await self.refresh()

    async def set_threshold(self) -> None:
        """Decodes again at another threshold."""
        self.session.threshold = float(self.threshold.value)
        await self.refresh()

    async def pick(self, event: Any) -> None:
        """Shows the image of this name."""
        if event.value and event.value != self.name:
            self.name, self.selected = event.value, None
            await self.refresh()

    async def step(self, by: int) -> None:
        """Shows the next image, or the one before."""
        names = list(self.session.images)
        if names and self.name in names:
            self.names.value = names[(names.index(self.name) + by) % len(names)]

    async def refresh(self) -> None:
        """Draws what is shown."""
        if self.name is None:
            return

        async def work() -> None:
            self.shown = await self.run.io_bound(shown_of, self.session, self.name, self.view.value)
            self.draw()

        await self.guarded(work)

    def draw(self) -> None:
        """Puts what was computed on the page."""
        if (shown := self.shown) is None:
            return
        self.image.set_source(shown.picture)
        self.image.content = self._marks(shown)
        self.cards.content, self.whole.content = shown.cards, shown.whole
        self.ui.run_javascript("setTimeout(drawSurfaces, 50)")
        number = len(shown.points)
        what = "point" if shown.corrected else "detection"
        more = ", corrected" if shown.corrected else f" by {self.session.model}"
        self.status.text = f"{number} {what}{'' if number == 1 else 's'}{more}"

    def _marks(self, shown: Shown) -> str:
        marks = []
        for index, (x, y) in enumerate((shown.points.points + 0.5) / shown.factor):
            radius = max(shown.picture.size) / 70
            width = 4 if index == self.selected else 2
            own = (POINT if shown.corrected else FOUND).colour
            for colour, line in (("#000", width + 2), (own, width)):
                marks.append(
                    f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{radius:.2f}" style="{_MARK};stroke:{colour};'
                    f'stroke-width:{line}px"/>'
                )
        return "".join(marks)

    async def mouse(self, event: Any) -> None:
        """Adds, selects, moves and deletes points."""
        if not self.edit.value or self.name is None or self.shown is None or event.button:
            return
        name, factor = self.name, self.shown.factor
        x, y = event.image_x * factor - 0.5, event.image_y * factor - 0.5
        if event.type == "mousedown":
            within = factor * max(self.shown.picture.size) / 50
            self._pressed = (x, y, nearest(self.shown.points.points, x, y, within))
            return
        if self._pressed is None:
            return
        (from_x, from_y, index), self._pressed = self._pressed, None
        moved = np.hypot(x - from_x, y - from_y) > factor * max(self.shown.picture.size) / 150

        async def work() -> None:
            self.selected = None
            if index is None:
                await self.run.io_bound(self.session.add_point, name, x, y)
            elif event.shift:
                await self.run.io_bound(self.session.delete_point, name, index)
            elif moved:
                await self.run.io_bound(self.session.move_point, name, index, x, y)
            else:
                self.selected = index

        await self.guarded(work)
        await self.refresh()

    async def key(self, event: Any) -> None:
        """Deletes the selected point with the key Delete."""
        if event.action.keydown and event.key.delete:
            await self.delete_selected()

    async def delete_selected(self) -> None:
        """Deletes the selected point."""
        if self.name is not None and self.selected is not None and self.edit.value:
            await self.run.io_bound(self.session.delete_point, self.name, self.selected)
            self.selected = None
            await self.refresh()

    async def restored(self) -> None:
        """Shows the detections again instead of corrected points."""
        if self.name is not None:
            self.session.restore(self.name)
            self.selected = None
            await self.refresh()


def free_port(host: str, port: int) -> int:
    """Returns a port, checked to be free; 0 takes any.

    Raises:
      UserError: if it is taken, or the address is not of this machine.
    """
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as there:
            there.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            there.bind((host, port))
            return there.getsockname()[1]
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen at --host {host} --port {port}: {error}") from error


def serve(models: Sequence[str], *, host: str, port: int, open_browser: bool) -> None:
    """Serves the page until it is interrupted.

    Args:
      models: names of the detectors to choose from; the first is chosen.
      host: address to listen at.
      port: port, or 0 for a free one.
      open_browser: open the page in the browser of this machine.

    Raises:
      MissingPackageError: without NiceGUI.
      UserError: if the first detector cannot be opened, or the port is taken.
    """
    try:
        from nicegui import app, run, ui
    except ImportError as error:
        raise MissingPackageError("irjax app needs NiceGUI: pip install 'irjax[app]'") from error
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    Session(models[0]).close()  # errors now, not in the browser
    port = free_port(host, port)
    # A page of another host whose name leads here is refused.
    everywhere = host in ("0.0.0.0", "::")
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["*"] if everywhere else ["localhost", "127.0.0.1", host])

    @ui.page("/")
    def page() -> None:
        session = Session(models[0])
        ui.context.client.on_delete(session.close)
        ui.add_head_html(f"<style>{page_part('colours.css')}{page_part('cards.css')}</style>{_STYLE}")
        ui.add_body_html(f"<script>{page_part('surfaces.js')}</script>")
        Tab(ui, run, session, models)

    print(f"irjax app: http://{host}:{port} (Ctrl+C ends it)", flush=True)
    ui.run(
        host=host,
        port=port,
        title="irjax",
        dark=None,
        reload=False,
        show=open_browser,
        show_welcome_message=False,
        # A tab keeps its files while a network is compiled, or the machine sleeps for a while.
        reconnect_timeout=120,
    )

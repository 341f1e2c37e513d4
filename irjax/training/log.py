"""The log of a run: metrics.jsonl, other writers and the progress bar."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Sequence

from irjax.errors import reading, writing
from irjax.io.files import json_values, write_text
from irjax.training.budget import Clock
from irjax.training.writers import MetricWriter


def _lines_until(path: pathlib.Path, step: int) -> list[str]:
    """Returns the log's lines up to the step that a run resumes from; later ones will be written again."""
    kept = []
    with reading(path):
        lines = path.read_text(encoding="utf-8").splitlines()
    for line in lines:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except json.JSONDecodeError:  # truncated by a killed process or a full disk
            break
    return kept


class Log:
    """Writes metrics.jsonl, to other writers, and the progress bar of a run.

    Args:
      run: the run directory.
      start: the step that the run starts or resumes at.
      steps: length of the run, or None if it is given in `minutes`.
      clock: clock of the run; its time is written on every line.
      minutes: length of the run in minutes.
      writers: what else gets the metrics, as ``train/loss``; closed with the log.
    """

    def __init__(
        self,
        run: pathlib.Path,
        start: int,
        steps: int | None,
        clock: Clock,
        *,
        minutes: float,
        writers: Sequence[MetricWriter] = (),
    ):
        from tqdm import tqdm

        self._path = run / "metrics.jsonl"
        if self._path.exists():
            write_text(self._path, "".join(f"{line}\n" for line in _lines_until(self._path, start)))
        with writing(self._path):
            self._file = self._path.open("a", buffering=1)
        self._writers = writers
        self._clock, self._minutes = clock, minutes
        shown = {"disable": not sys.stderr.isatty(), "dynamic_ncols": True}
        if steps is None:
            form = "{l_bar}{bar}| {n:.1f} of {total:g} minutes{postfix}"
            self._bar = tqdm(total=minutes, initial=clock.seconds / 60, bar_format=form, **shown)
        else:
            self._bar = tqdm(total=steps, initial=start, unit="step", **shown)
        if start and steps is None:
            self.say(f"resuming {run} at step {start}, after {clock.seconds / 60:.1f} of {minutes:g} minutes")
        elif start:
            self.say(f"resuming {run} at step {start} of {steps}")

    def write(self, step: int, values: dict[str, float], *, group: str) -> None:
        """Writes one line; `group` is ``train`` or ``val``."""
        with writing(self._path):
            line = {"step": step, "minutes": round(self._clock.seconds / 60, 3), "group": group, **json_values(values)}
            self._file.write(json.dumps(line) + "\n")
        for writer in self._writers:
            writer.write(step, {f"{group}/{name}": value for name, value in values.items()})

    def advance(self, step: int, count: int, **shown: str) -> None:
        """Advances the bar by the `count` steps up to `step`."""
        self._bar.set_postfix({"step": step, **shown} if self._minutes else shown, refresh=False)
        self._bar.update(self._clock.seconds / 60 - self._bar.n if self._minutes else count)

    def validation(self, step: int, metrics: dict[str, float]) -> None:
        """Logs and prints the metrics of a validation."""
        self.write(step, metrics, group="val")
        self.say(f"step {step}: validation " + "  ".join(f"{name} {value:.4g}" for name, value in metrics.items()))

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self._bar.write(text, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        """Closes the bar and the files."""
        self._bar.close()
        self._file.close()
        for writer in self._writers:
            writer.close()

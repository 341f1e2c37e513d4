"""irjax compare: compares detectors and prediction sets on the same images."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from irjax.commands.evaluate import ScoringFlags
from irjax.commands.shared import DataFlags, Folder, NetworkFlags, Pictures, Switch, Text, arg, protocol_names


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare:
    """Scores detectors and prediction sets of any programs on the same images, and resamples them together.

    Prints the metrics of each with bootstrap intervals, what detectors cost, the differences of the first from the
    others with their paired intervals, on how many images each is better, and where they differ most.

    Attributes:
      predictions: maps or points of any format; see irjax evaluate. TITLE=PATH gives a title.
      models: what irjax predict takes as --model: weights, runs, exported files, filters. TITLE=NAME gives a title.
      protocol: protocol to score under (default: irjax if all are maps, else centroid).
      pictures: images drawn side by side by every method: those on which the most differ.
      no_costs: do not measure parameters, multiply-adds, latency and memory of the models.
      out: write tables (JSON, CSV, Markdown, LaTeX), pictures and the models' predictions there.
    """

    predictions: Annotated[tuple[str, ...], arg("[TITLE=]PATH ...")] = ()
    models: Annotated[tuple[str, ...], arg("[TITLE=]NAME ...")] = ()
    protocol: Text = None
    pictures: Pictures = 4
    no_costs: Switch = False
    out: Folder = None
    scoring: ScoringFlags
    network: NetworkFlags = NetworkFlags()
    data: DataFlags = DataFlags()

    def run(self) -> None:
        """Compares, prints and writes."""
        from irjax.benchmarks.costs import measure_costs
        from irjax.detector.programs import keep_programs
        from irjax.evaluation.compare import compare_files
        from irjax.evaluation.evaluate import Options
        from irjax.io.files import output_folder
        from irjax.training.allocator import keep_freed_memory

        keep_freed_memory()
        if self.models:
            keep_programs()
        compare_files(
            self.predictions,
            self.scoring.truth,
            models=self.models,
            overrides=self.network.overrides,
            **self.scoring.reading,
            **self.data.opening,
            options=Options(
                protocols=protocol_names(self.protocol),
                out_dir=self.out and output_folder(self.out),
                **self.scoring.options,
            ),
            pictures=self.pictures,
            measure=None if self.no_costs else measure_costs,
        )

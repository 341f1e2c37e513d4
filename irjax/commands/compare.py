"""irjax compare: compares two prediction sets on the same images."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from irjax.commands.evaluate import ScoringFlags
from irjax.commands.shared import DataFlags, Folder, Text, arg, protocol_names


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare:
    """Scores two prediction sets, of any programs, on the same images and resamples them together.

    Prints the difference of every metric with its paired bootstrap interval, on how many images each is better, and
    where they differ most.

    Attributes:
      predictions: maps or points of any format; see irjax evaluate.
      protocol: protocol to score under (default: irjax if both are maps, else centroid).
      out: write comparison.json, comparison.csv and per_image.csv there.
    """

    predictions: Annotated[tuple[str, str], arg("A B")]
    protocol: Text = None
    out: Folder = None
    scoring: ScoringFlags
    data: DataFlags = DataFlags()

    def run(self) -> None:
        """Compares, prints and writes."""
        from irjax.evaluation.compare import compare_files
        from irjax.evaluation.evaluate import Options
        from irjax.io.files import output_folder

        compare_files(
            self.predictions,
            self.scoring.truth,
            **self.scoring.reading,
            **self.data.opening,
            options=Options(
                protocols=protocol_names(self.protocol),
                out_dir=self.out and output_folder(self.out),
                **self.scoring.options,
            ),
        )

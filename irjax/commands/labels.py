"""irjax labels: converts annotations from one format to another."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal, Optional

from tyro.conf import Positional

from irjax.commands.shared import DataFlags, Switch, arg


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labels:
    """Converts annotations from one format to another.

    The source is a folder of masks, a data set in a published layout, a COCO file (.json), a table of points (.csv), or
    a folder of YOLO (.txt), VOC (.xml) or LabelMe (.json) files. All of it is read and checked before anything is
    written. Points are (x, y) in pixels of the image, pixel centres at integers. --images is also the folder of the
    images that YOLO, VOC or LabelMe files or a table of points annotate, to know their sizes.

    Attributes:
      source: file or folder of annotations.
      to: points: CSV name,x,y; coco: keypoints and boxes in one file; yolo, voc: a file of boxes for each image; masks:
        a PNG for each image, polygons and boxes filled, points marked.
      out: new folder; of points and coco also a new file, .csv and .json.
      kind: what the source is (default: found automatically).
      split: split of a data set.
      points: where the point of a mask's target is: its centroid; a pixel drawn around it as LESPS does (coarse); any
        of its pixels (uniform).
      seed: seed of drawn points; those of an image depend only on its name.
      connectivity: connectivity of a mask's targets.
      radius: with --to masks: discs of this radius in pixels around the points, 0 for one pixel each (default: polygons
        and boxes of the source filled, one pixel for points and for targets of masks).
      skip_bad: leave out images that cannot be read, or have no annotation that fits, and name them.
      box_convention: convention of VOC files that are read: sirst_v2 for those of SIRST-v2.
    """

    source: Annotated[Positional[str], arg("SOURCE")]
    to: Literal["points", "coco", "yolo", "voc", "masks"]
    out: Annotated[str, arg("FILE_OR_DIR")]
    kind: Annotated[
        Literal["auto", "masks", "dataset", "coco", "yolo", "voc", "labelme", "points"], arg(name="from")
    ] = "auto"
    split: str = "all"
    points: Literal["centroid", "coarse", "uniform"] = "centroid"
    seed: int = 0
    connectivity: Literal[8, 4] = 8
    radius: Annotated[Optional[float], arg("PX")] = None
    skip_bad: Switch = False
    box_convention: Literal["voc", "sirst_v2"] = "voc"
    data: DataFlags = DataFlags()

    def run(self) -> None:
        """Converts, and prints how much there was and what is left out."""
        from irjax.io.files import output_file, output_folder
        from irjax.labels import convert

        one_file = {"points": ("points.csv", (".csv",)), "coco": ("labels.json", (".json",))}
        out = output_file(self.out, *one_file[self.to]) if self.to in one_file else output_folder(self.out)
        flags = {name: value for name, value in vars(self).items() if name not in ("source", "out", "data")}
        done = convert(self.source, out, **flags, **self.data.opening)
        left_out = f", {len(done.skipped)} left out" if done.skipped else ""
        counts = f"{done.targets} targets in {done.images} images, {done.empty} without any{left_out}"
        print(f"{self.source} ({done.kind}): {counts}")
        if done.rules:
            print(f"masks made binary by: {', '.join(f'{rule} {count}' for rule, count in sorted(done.rules.items()))}")
        for note in done.notes:
            print(f"note: {note}")
        print(f"written to {out}")

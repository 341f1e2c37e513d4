"""irjax export: a detector as a program for other software."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional

from irjax.commands.shared import NetworkFlags, arg
from irjax.errors import UsageError, UserError

if TYPE_CHECKING:
    from jax.export import Exported

    from irjax.detector.detector import Detector

MAPS, POINTS = 1e-4, 1e-2  # largest difference of probabilities, and of points in px


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Writes a detector, from pixels to detections and with its weights, as a program for other software.

    docs/export.md says how it is called. The program is then run on synthetic scenes of several sizes and compared with
    the detector; the largest differences are printed.

    Attributes:
      name: the name of shipped weights, a run directory, or a file of weights.
      to: stablehlo: for everything that has JAX, without irjax; for images of any number and size.
      out: the file to write (default: the model's name, with the ending of the format).
      platforms: where the program can run.
    """

    name: Annotated[Positional[str], arg("NAME")]
    to: Literal["stablehlo"] = "stablehlo"
    out: Annotated[str, arg("FILE")] = ""
    platforms: tuple[Literal["cpu", "cuda", "rocm", "tpu"], ...] = ("cpu", "cuda", "tpu")
    network: NetworkFlags = NetworkFlags()

    def run(self) -> None:
        """Exports, compares and prints."""
        from irjax.detector.export import serialized, to_stablehlo
        from irjax.detector.loading import load
        from irjax.io.files import atomic_path, output_file

        if not self.platforms:
            raise UsageError("--platforms needs at least one")
        ending = f".{self.to}"
        place = output_file(self.out or ".", pathlib.Path(self.name).stem + ending, (ending,))
        detector = load(self.name, **self.network.overrides)
        exported = to_stablehlo(detector, self.platforms)
        program = serialized(exported)
        with atomic_path(place) as path:
            path.write_bytes(program)
        print(f"{place}: {len(program) / 1e6:.1f} MB, for {', '.join(self.platforms)}")
        self._compare(exported, detector)

    def _compare(self, exported: Exported, detector: Detector) -> None:
        """Prints how far the program is from the detector; an error if it is too far."""
        import jax
        import numpy as np

        from irjax.data.synthetic import SceneConfig, SyntheticSource
        from irjax.detector.export import difference
        from irjax.types import Detections

        here = jax.default_backend().replace("gpu", "cuda")
        if here not in self.platforms:
            print(f"not compared with the detector: the program is not for {here}, which is what is here")
            return
        side, threshold = detector.config.size, detector.config.threshold
        for number, height, width in ((2, side // 2, 3 * side // 4), (1, 5 * side // 4, 3 * side // 2)):
            scenes = SyntheticSource(SceneConfig(height=max(height, 32), width=max(width, 32)), num_examples=number)
            images = np.stack([scenes[i].image for i in range(number)]) / np.float32(255)
            found = Detections(**jax.tree.map(np.asarray, exported.call(images, np.float32(threshold))))
            apart = difference(found, detector(images), threshold)
            print(f"{number} x {images.shape[1]} x {images.shape[2]}: {apart}")
            if apart.maps > MAPS or not apart.same or apart.points > POINTS:
                raise UserError(
                    f"the program differs from {self.name} by more than {MAPS:g} in maps or {POINTS:g} px in points"
                )

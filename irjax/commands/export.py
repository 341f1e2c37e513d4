"""irjax export: a detector as a program for other software."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal, Optional

from tyro.conf import Positional

from irjax.commands.shared import Folder, NetworkFlags, arg
from irjax.errors import UsageError, UserError

if TYPE_CHECKING:
    import numpy as np

    from irjax.detector.detector import Detector
    from irjax.types import Detections

MAPS, POINTS = 1e-4, 1e-2  # largest difference of probabilities, and of points in px
_CANVASES = 64  # of calibration


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Writes a detector with its weights as a program for other software.

    docs/export.md says how it is called. The file is then read and run on synthetic scenes of several sizes and
    compared with the detector; the largest differences are printed.

    Attributes:
      name: the name of shipped weights, a run directory, a file of weights, or hf:OWNER/NAME.
      to: stablehlo: the whole detection, for everything that has JAX, without irjax; for images of any number and
        size. onnx: the network, for any number of canvases of its size; for irjax predict --runtime and others.
      out: the file to write (default: the model's name, with the ending of the format).
      platforms: where the program can run, of stablehlo (default: cpu cuda tpu).
      int8: of onnx: quantise to 8 bits, for the values that this data set's training images give.
      split: the split of the data set.
    """

    name: Annotated[Positional[str], arg("NAME")]
    to: Literal["stablehlo", "onnx"] = "stablehlo"
    out: Annotated[str, arg("FILE")] = ""
    platforms: Annotated[Optional[tuple[Literal["cpu", "cuda", "rocm", "tpu"], ...]], arg()] = None
    int8: Folder = None
    split: str = "train"
    network: NetworkFlags = NetworkFlags()

    def run(self) -> None:
        """Exports, compares and prints."""
        from irjax.detector.loading import load, title_of
        from irjax.io.files import atomic_path, output_file

        if self.platforms is not None and (self.to == "onnx" or not self.platforms):
            raise UsageError(f"--platforms {'goes with stablehlo' if self.platforms else 'needs at least one'}")
        if self.int8 and self.to != "onnx":
            raise UsageError("--int8 goes with --to onnx")
        ending = f".{self.to}"
        place = output_file(self.out or ".", title_of(self.name) + ending, (ending,))
        detector = load(self.name, **self.network.overrides)
        program = self._onnx(detector) if self.to == "onnx" else self._stablehlo(detector)
        with atomic_path(place) as path:
            path.write_bytes(program)
        print(f"{place}: {len(program) / 1e6:.1f} MB")
        if read := _read(place, detector):
            self._compare(read, detector)

    def _stablehlo(self, detector: Detector) -> bytes:
        from irjax.detector.stablehlo import PLATFORMS, to_stablehlo

        return bytes(to_stablehlo(detector, self.platforms or PLATFORMS).serialize())

    def _onnx(self, detector: Detector) -> bytes:
        import itertools

        import numpy as np

        from irjax.bars import bar
        from irjax.detector.onnx import quantized, to_onnx

        program = to_onnx(detector)
        if not self.int8:
            return program
        from irjax.data.sources import open_source

        source = open_source(self.int8, self.split)
        order = np.random.default_rng(0).permutation(len(source))
        pieces = (piece for index in order for piece in detector.pieces(source[index].image))
        some = bar(itertools.islice(pieces, _CANVASES), "reading", total=_CANVASES)
        return quantized(program, [canvas.astype(np.float32) for canvas, _, _ in some])

    def _compare(self, read: Callable[[np.ndarray], Detections], detector: Detector) -> None:
        """Prints how far the program is from the detector; an error if it is too far."""
        import numpy as np

        from irjax.bars import bar
        from irjax.data.synthetic import SceneConfig, SyntheticSource
        from irjax.detector.difference import difference

        side, threshold = detector.config.size, detector.config.threshold
        sizes = ((2, side // 2, 3 * side // 4), (1, 5 * side // 4, 3 * side // 2))
        for number, height, width in bar(sizes, "comparing"):
            scenes = SyntheticSource(SceneConfig(height=max(height, 32), width=max(width, 32)), num_examples=number)
            images = np.stack([scenes[i].image for i in range(number)]) / np.float32(255)
            apart = difference(read(images), detector(images), threshold)
            print(f"{number} x {images.shape[1]} x {images.shape[2]}: {apart}")
            if not self.int8 and (apart.maps > MAPS or not apart.same or apart.points > POINTS):
                raise UserError(
                    f"the program differs from {self.name} by more than {MAPS:g} in maps or {POINTS:g} px in points"
                )


def _read(place: pathlib.Path, detector: Detector) -> Callable[[np.ndarray], Detections] | None:
    """Reads the program as others do; prints why where it cannot run here."""
    import jax
    import numpy as np

    from irjax.detector.onnx import load_onnx
    from irjax.types import Detections

    if place.suffix == ".onnx":
        return load_onnx(place)
    program = jax.export.deserialize(bytearray(place.read_bytes()))
    here = jax.default_backend().replace("gpu", "cuda")
    if here not in program.platforms:
        print(f"not compared with the detector: the program is not for {here}, which is what is here")
        return None
    threshold = np.float32(detector.config.threshold)
    return lambda images: Detections(**jax.tree.map(np.asarray, program.call(images, threshold)))

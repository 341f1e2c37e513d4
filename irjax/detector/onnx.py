"""Detectors whose network is an ONNX file: written by jax2onnx, run by onnxruntime or OpenVINO."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np

from irjax.detector.canvases import CanvasDetector
from irjax.detector.detector import Detector
from irjax.detector.inference import cell_of, run_network
from irjax.errors import MissingPackageError, UsageError, UserError, reading
from irjax.layers import cpu
from irjax.methods.detector_config import DetectorConfig
from irjax.types import Array

Runtime = Literal["onnxruntime", "openvino"]
RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "openvino")
Network = Callable[[np.ndarray], np.ndarray]  # canvases [B, S, S] float32 to maps
SUFFIX = ".onnx"
OPSET = 21  # the newest that onnxruntime-web and OpenVINO read as well
_KEY = "irjax"  # of the metadata
_CELL = "cell"
# Others, such as masks with infinity, have no useful range, or take little time.
_EIGHT_BITS = ["Conv", "MatMul", "Gemm", "MaxPool", "Concat", "Split", "Add"]
_INPUT = "canvases"


def to_onnx(detector: Detector) -> bytes:
    """Exports a detector's network, with its weights, for any number of canvases of its size.

    Normalisations are folded into the convolutions.

    Returns:
      The bytes of an ONNX model (`OPSET`). Input: `canvases` [batch, S, S] float32 in [0, 1]. Output:
      `probabilities` [batch, S, S] of a segmentation network, else `heatmaps` [batch, S / s, S / s]. The metadata
      `irjax` is a JSON object: the fields of `DetectorConfig`, and `cell`, s in pixels.

    Raises:
      MissingPackageError: without the package jax2onnx.
    """
    try:
        import jax2onnx
        import onnx
    except ImportError as error:
        raise MissingPackageError("exporting to ONNX needs jax2onnx: pip install 'irjax[onnx]'") from error
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # warns of every constant's shape
    try:
        folded = detector.folded()
    except UserError:  # it is
        folded = detector
    config, side, cell = folded.config, folded.config.size, cell_of(folded.config)

    def network(canvases: Array) -> Array:
        return run_network(config, folded.variables, canvases)[0]

    with cpu.for_converters():
        model = jax2onnx.to_onnx(
            network,
            [("batch", side, side)],
            model_name=config.method,
            opset=OPSET,
            input_names=[_INPUT],
            output_names=["probabilities" if cell == 1 else "heatmaps"],
        )
    written = {**json.loads(config.to_json()), _CELL: cell}
    onnx.helper.set_model_props(model, {_KEY: json.dumps(written)})
    model.producer_name, model.producer_version = "irjax", importlib.metadata.version("irjax")
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def quantized(model: bytes, canvases: Iterable[np.ndarray]) -> bytes:
    """Quantises an exported network to 8 bits, statically: ranges of values are those seen on the canvases.

    Args:
      model: of `to_onnx`.
      canvases: [S, S] float32 in [0, 1] each.
    """
    import tempfile

    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._canvases: Iterator[np.ndarray] = iter(canvases)

        def get_next(self) -> dict[str, np.ndarray] | None:
            canvas = next(self._canvases, None)
            return None if canvas is None else {_INPUT: canvas[None]}

    with tempfile.TemporaryDirectory() as folder:
        before, prepared, after = (pathlib.Path(folder) / f"{name}{SUFFIX}" for name in ("before", "prepared", "after"))
        before.write_bytes(model)
        quantization.shape_inference.quant_pre_process(before, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            after,
            Reader(),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            op_types_to_quantize=_EIGHT_BITS,
        )
        return after.read_bytes()


@dataclasses.dataclass(frozen=True, eq=False)
class OnnxDetector(CanvasDetector):
    """A detector whose network is run by another program than XLA.

    Attributes:
      config: how to run the network.
      network: maps canvases [B, S, S] float32 to maps.
      batch_size: largest number of images in one run of the network.
    """

    config: DetectorConfig
    network: Network
    batch_size: int = 16

    def maps(self, canvases: np.ndarray) -> Array:
        """Runs the network on canvases; see `CanvasDetector.maps`."""
        return self.network(canvases)


def load_onnx(path: str | os.PathLike, runtime: Runtime = "onnxruntime", **overrides: Any) -> OnnxDetector:
    """Loads a detector from a file of `irjax export --to onnx`.

    Args:
      path: the file.
      runtime: the package that runs it.
      **overrides: fields of `DetectorConfig` to change, except those of the network.

    Raises:
      MissingPackageError: if the package is not installed.
      UsageError: if an override would need another network.
      UserError: if the file is no such file.
    """
    where = os.fspath(path)
    with reading(path):
        content = pathlib.Path(path).read_bytes()
    network, metadata = open_network(content, where, runtime)
    if _KEY not in metadata:
        raise UserError(f"{where} was not written by irjax export --to onnx: it has no metadata {_KEY!r}")
    values = json.loads(metadata[_KEY])
    values.pop(_CELL, None)
    config = DetectorConfig.from_json(json.dumps(values), f"{where}, metadata {_KEY!r}")
    for name in ("method", "model", "size", "channels", "normalization"):
        if name in overrides and overrides[name] != getattr(config, name):
            raise UsageError(f"{where} has {name} {getattr(config, name)}, not {overrides[name]}: export it again")
    return OnnxDetector(dataclasses.replace(config, **overrides), network)


def open_network(content: bytes, where: str, runtime: Runtime) -> tuple[Network, dict[str, str]]:
    """Opens an ONNX network whose input is `canvases`.

    Args:
      content: bytes of the model.
      where: its name in error messages.
      runtime: the package that runs it.

    Returns:
      A function from canvases to maps, and the metadata.

    Raises:
      MissingPackageError: if the package is not installed.
      UserError: if the content is no such model.
    """
    return {"onnxruntime": _in_onnxruntime, "openvino": _in_openvino}[runtime](content, where)


@contextlib.contextmanager
def _needs(runtime: Runtime) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise MissingPackageError(f"the runtime {runtime} is not installed: pip install 'irjax[{runtime}]'") from error


def _in_onnxruntime(content: bytes, where: str) -> tuple[Network, dict[str, str]]:
    with _needs("onnxruntime"):
        import onnxruntime
    try:
        session = onnxruntime.InferenceSession(content, providers=onnxruntime.get_available_providers())
    except Exception as error:  # its errors have no class of their own
        raise UserError(f"{where}: onnxruntime cannot read it: {error}") from error
    return (
        lambda canvases: session.run(None, {_INPUT: canvases})[0],
        session.get_modelmeta().custom_metadata_map,
    )


@contextlib.contextmanager
def _without_telemetry() -> Iterator[None]:
    """Hides OpenVINO's telemetry, which reports every import to a web service from a forked process, unasked.

    OpenVINO has a stand-in for where that package is not installed.
    """
    package = "openvino_telemetry"
    if package in sys.modules:  # the program's own choice
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


def _in_openvino(content: bytes, where: str) -> tuple[Network, dict[str, str]]:
    with _needs("openvino"), _without_telemetry():
        import openvino
    core = openvino.Core()
    # By its own choice it computes in bfloat16 where the processor has it.
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    try:
        model = core.read_model(content)
        compiled = core.compile_model(model, "CPU", options)
    except RuntimeError as error:
        raise UserError(f"{where}: OpenVINO cannot read it: {error}") from error
    place = ["framework", _KEY]
    metadata = {_KEY: model.get_rt_info(place).value} if model.has_rt_info(place) else {}
    return lambda canvases: compiled(canvases)[0], metadata

"""Loading of detectors from shipped weights, run directories and published checkpoints."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from irjax import convert
from irjax.detector import hub, weights
from irjax.detector.detector import Detector
from irjax.detector.weights import check_variables
from irjax.errors import MissingFileError, UserError, reading
from irjax.methods.detector_config import CONFIG_FILE, DetectorConfig
from irjax.methods.registry import find_method

_logger = logging.getLogger(__name__)


def load(name_or_path: str | os.PathLike, **overrides: Any) -> Detector:
    """Loads a detector with trained weights.

    Args:
      name_or_path: the name of shipped weights (`irjax.detector.weights.names`), a run directory (its best
        checkpoint), a ``.safetensors`` file written by irjax, ``hf:OWNER/NAME[@REVISION]`` on the Hugging Face Hub
        (`irjax.detector.hub`), or a published PyTorch checkpoint (`irjax.convert.ENDINGS`), which gets the settings
        of the published program. Its method is told by its keys.
      **overrides: fields of `DetectorConfig` to change, such as ``threshold=0.5`` or ``size=640``; ``method`` is the
        one whose weights are wanted.

    Returns:
      The detector.

    Raises:
      MissingFileError: if a path does not exist or a directory is not a run directory.
      UserError: if a name is unknown (the known ones are listed), an override is not a field of `DetectorConfig`, the
        weights are not those of the configured network, or a checkpoint cannot be converted.
    """
    fields = [field.name for field in dataclasses.fields(DetectorConfig)]
    unknown = sorted(set(overrides) - set(fields))
    if unknown:
        raise UserError(f"unknown options {unknown}; a detector has {fields}")
    path, where = resolve(name_or_path), os.fspath(name_or_path)
    where = where if hub.is_on_hub(where) else os.fspath(path)
    if path.is_dir():
        config, variables = _load_run(path)
    elif path.suffix == ".safetensors":
        variables, config, _ = weights.load_weights(path, where)
    elif path.suffix.lower() in convert.ENDINGS:
        method, variables = convert.read_checkpoint(path, overrides.get("method"))
        config = DetectorConfig(method=method, **convert.published_settings(method, variables))
    elif path.suffix == ".onnx":
        raise UserError(f"{path} is an exported network, without weights: irjax.detector.onnx.load_onnx reads it")
    else:
        endings = ", ".join(convert.ENDINGS)
        raise UserError(f"{path} is neither a run directory nor a .safetensors file or PyTorch checkpoint ({endings})")
    method = overrides.get("method", config.method)
    if find_method(method).network is not find_method(config.method).network:
        raise UserError(f"{where} has weights of {config.method}, not of {method}")
    config = dataclasses.replace(config, **overrides)
    check_variables(config, variables, where)
    _logger.info("loaded %s from %s", config.method, path)
    return Detector(config, variables)


def resolve(name_or_path: str | os.PathLike) -> pathlib.Path:
    """Returns the file or directory that `load` reads; shipped names take precedence over relative paths of one part.

    A repository of the Hub is downloaded.

    Raises:
      MissingFileError: if a path does not exist.
      UserError: if a name is unknown; the known ones are listed.
    """
    text, shipped = os.fspath(name_or_path), weights.names()
    if text in shipped:
        return shipped[text]
    if hub.is_on_hub(text):
        return hub.download(text)
    path = pathlib.Path(text).expanduser()
    with reading(path):  # fails if a name is too long
        if path.exists():
            return path
    if path.suffix or len(path.parts) > 1:
        raise MissingFileError(f"no file or directory {text}")
    known = ", ".join(shipped) or "none in this installation"
    raise UserError(f"{text!r} is neither the name of shipped weights ({known}) nor an existing path")


def title_of(name: str | os.PathLike) -> str:
    """Returns what a model is called in titles and names of files: without folders, owner, revision and ending."""
    text = os.fspath(name)
    if hub.is_on_hub(text):
        return hub.repository_of(text)[0].partition("/")[2]
    path = pathlib.Path(text)
    return path.name if path.is_dir() else path.stem


def _load_run(directory: pathlib.Path) -> tuple[DetectorConfig, Mapping[str, Any]]:
    file = directory / CONFIG_FILE
    if not file.is_file():
        raise MissingFileError(f"{directory} is no run directory: it has no {CONFIG_FILE}")
    with reading(file):
        text = file.read_text(encoding="utf-8")
    config = DetectorConfig.from_json(text, os.fspath(file))
    from irjax.training import checkpoints

    return config, checkpoints.load_variables(directory, which="best")

"""Prepares a published data set as ArrayRecord files that TFDS, grain and irjax read, without TensorFlow."""

from __future__ import annotations

import contextlib
import importlib
import os
import pathlib
import shutil
import tempfile
from typing import TYPE_CHECKING

from irjax.errors import MissingFileError, UsageError, UserError, writing

if TYPE_CHECKING:
    from irjax.datasets.base import IrstdBuilder

BUILDERS = (
    "sirst_v1",
    "sirst_v2",
    "nudt_sirst",
    "irstd_1k",
    "sirst_aug",
    "sirst_uavb",
    "irdst",
    "mdfa",
    "sirst4",
    "irstd_hard",
    "synthetic",
)


def builder_class(name: str) -> type[IrstdBuilder]:
    """Returns the builder of a data set, by the name of its folder here.

    Raises:
      UsageError: if there is none; the message lists the existing ones.
    """
    if name not in BUILDERS:
        raise UsageError(f"there is no builder {name!r}; there are {', '.join(BUILDERS)}")
    return importlib.import_module(f"irjax.datasets.{name}.{name}_dataset_builder").Builder


def build(
    name: str, source: str | os.PathLike | None, out_dir: str | os.PathLike, *, overwrite: bool = False
) -> pathlib.Path:
    """Prepares one data set. Nothing appears under its final name until it is complete.

    Args:
      name: a builder's name, with a configuration if it has several: "nudt_sirst", "sirst_v2/full", "sirst_v2/v1".
        Without one, the first configuration is used.
      source: the folder of the publication; None for "synthetic", which has none.
      out_dir: the parent folder; the data set is written to OUT_DIR/NAME/[CONFIG/]VERSION.
      overwrite: replace an existing data set.

    Returns:
      The folder of the prepared data set, to be opened with `irjax.data.open_source` or `tfds.builder_from_directory`.

    Raises:
      MissingFileError: if the source does not exist; the message says where to get the data and which files are
        required.
      UsageError: if there is no such builder, a required source is missing, or a builder without source is given one.
      FileError: if `out_dir` cannot be written.
      UserError: if the source is malformed (the message names the file), or the data set exists and `overwrite` is off.
    """
    import tensorflow_datasets as tfds

    name, _, config = name.partition("/")
    cls = builder_class(name)
    chosen = cls.config_for(config)
    out_dir = pathlib.Path(out_dir)
    if not cls.NEEDS_SOURCE:
        if source is not None:
            raise UsageError(f"{name} is made from a seed; it takes no source, got {os.fspath(source)}")
    elif source is None:
        raise UsageError(f"{name} needs a source. {cls.MANUAL_DOWNLOAD_INSTRUCTIONS}")
    elif not pathlib.Path(source).is_dir():
        raise MissingFileError(f"there is no folder {os.fspath(source)}. {cls.MANUAL_DOWNLOAD_INSTRUCTIONS}")
    with writing(out_dir), contextlib.ExitStack() as afterwards:
        out_dir.mkdir(parents=True, exist_ok=True)
        work = pathlib.Path(tempfile.mkdtemp(dir=out_dir, prefix=f".{name}-"))
        afterwards.callback(shutil.rmtree, work, ignore_errors=True)
        builder = cls(source=source, data_dir=work, config=chosen)
        made = pathlib.Path(builder.data_dir)
        target = out_dir / made.relative_to(work)
        if target.exists() and not overwrite:
            raise UserError(f"{target} exists; it is replaced only with overwrite")
        builder.download_and_prepare(
            file_format="array_record",
            download_config=tfds.download.DownloadConfig(manual_dir=source, try_download_gcs=False),
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            target.rename(work / "replaced")
        os.replace(made, target)
    return target

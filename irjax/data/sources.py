"""Sources of examples: opening, concatenating, comparing and naming them."""

from __future__ import annotations

import bisect
import collections
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from irjax.data import layouts
from irjax.data.draws import draw_splits
from irjax.data.resized import ResizedSource
from irjax.errors import FileError, UserError, check_folder
from irjax.io import images, masks
from irjax.io.images import AS_STORED
from irjax.io.names import first_repeated
from irjax.io.sequences import places_of_names
from irjax.types import Example, Source

DRAWN = ("draw_train", "draw_val", "draw_test")


@dataclasses.dataclass(frozen=True)
class TfdsSource:
    """One split of a data set that `irjax.datasets.build` prepared (an `irjax.types.Source`).

    Its examples equal those of the folder it was built from. It can be pickled, since files are opened on first use.

    Attributes:
      directory: the folder with dataset_info.json.
      split: the split's name in that data set.
    """

    directory: str
    split: str

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        """Reads example `index`; raises IndexError outside the source, UserError if the record cannot be decoded."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} examples")
        with self._reading():
            record = self._records[int(index) % len(self)]
        name = record["id"].decode()
        where = f"{self.directory}, {self.split}, {name}"
        return Example(
            name=name,
            image=images.decode_image(record["image"], where),
            points=np.asarray(record["points"], np.float32).reshape(-1, 2),
            mask=masks.decode_mask(record["mask"], where)[0],
        )

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The name of every example, in order."""
        with self._reading():
            return tuple(record["id"].decode() for record in self._records)

    @functools.cached_property
    def dtype(self) -> np.dtype:
        """The type that holds every image without loss."""
        return np.dtype(self._builder.info.features["image"].np_dtype)

    @functools.cached_property
    def _builder(self) -> Any:
        import tensorflow_datasets as tfds

        with self._reading():
            return tfds.builder_from_directory(self.directory)

    @functools.cached_property
    def _records(self) -> Any:
        import tensorflow_datasets as tfds

        # TFDS needs OpenCV to decode 16-bit images; irjax decodes the stored files as it does for folders.
        raw = {"image": tfds.decode.SkipDecoding(), "mask": tfds.decode.SkipDecoding()}
        with self._reading():
            return self._builder.as_data_source(split=self.split, decoders=raw)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # TFDS raises arbitrary exceptions for damaged files
            raise FileError(
                f"{self.directory}: not a readable prepared data set ({type(error).__name__}: {error})"
            ) from error

    def __getstate__(self) -> dict:
        return {"directory": self.directory, "split": self.split}


@dataclasses.dataclass(frozen=True)
class Concatenation:
    """Several sources one after another, with the names of their examples kept (an `irjax.types.Source`)."""

    sources: tuple[Source, ...]

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Example:
        """Reads example `index`; raises IndexError if it is outside the source."""
        source, offset = self.locate(index)
        return source[offset]

    def locate(self, index: int) -> tuple[Source, int]:
        """Returns the source that holds example `index`, and its index there."""
        size = len(self)
        if not -size <= index < size:
            raise IndexError(f"index {index} of {size} examples")
        index = int(index) % size
        number = bisect.bisect_right(self._ends, index)
        return self.sources[number], index - (self._ends[number - 1] if number else 0)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The name of every example, in order; names may repeat across the parts."""
        return tuple(itertools.chain.from_iterable(source.names for source in self.sources))

    @functools.cached_property
    def dtype(self) -> np.dtype:
        """The type that holds every image without loss."""
        return np.result_type(*(source.dtype for source in self.sources))

    @functools.cached_property
    def _ends(self) -> tuple[int, ...]:
        return tuple(itertools.accumulate(len(source) for source in self.sources))


@dataclasses.dataclass(frozen=True)
class MemorySource:
    """Examples in memory (an `irjax.types.Source`)."""

    examples: tuple[Example, ...]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        """Returns example `index`; raises IndexError if it is outside the source."""
        return self.examples[index]

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every example, in order."""
        return tuple(example.name for example in self.examples)

    @property
    def dtype(self) -> np.dtype:
        """The type that holds every image without loss."""
        return np.result_type(*{example.image.dtype for example in self.examples})


@dataclasses.dataclass(frozen=True)
class Selection:
    """Selected examples of a source under new names (an `irjax.types.Source`).

    Attributes:
      source: the examples.
      indices: indices of the selected examples, in order.
      names: their new names.
    """

    source: Source
    indices: tuple[int, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        """Reads example `index`; raises IndexError if it is outside the selection."""
        return dataclasses.replace(self.source[self.indices[index]], name=self.names[index])

    @property
    def dtype(self) -> np.dtype:
        """The type that holds every image without loss."""
        return self.source.dtype


def open_source(root: str | os.PathLike, split: str, layout: str = "auto", **options: Any) -> Source:
    """Opens one split of a folder in a published layout or of a prepared TFDS data set.

    Args:
      root: the folder. A TFDS data set may lie below it (ROOT/[CONFIG/]VERSION/dataset_info.json), if there is only
        one.
      split: name of the split. For a prepared data set, "val" means TFDS's "validation", and the name of a published
        list such as "train_full" means "train" of the config "full". "draw_train", "draw_val" and "draw_test" are drawn
        with the seed from the images of all splits together; if several images have the same name, the names of their
        folders (or of their splits) are prepended.
      layout: one of `layouts.LAYOUTS`, "tfds", or "auto" to detect it.
      **options: `seed`, `fraction`, `shares`, `images`, `masks`, `skip_bad` and `depth`, see `layouts.FolderOptions`.
        A prepared data set takes `seed` and `shares` of them.

    Raises:
      MissingFileError: if the folder does not exist.
      UserError: if the layout or split is unknown, or the annotations are malformed (see `layouts.open_layout`).
    """
    how, root = layouts.FolderOptions(layout, **options), check_folder(root)
    prepared = _prepared(root) if layout in ("auto", "tfds") and not how.says_folders else []
    if layout == "tfds" and not prepared:
        raise UserError(f"{root} is no prepared TFDS data set: no dataset_info.json in it or its version folders")
    if not prepared:

        def opened(name: str) -> layouts.FolderSource:
            return layouts.open_layout(root, name, layout, **options)

        if split not in DRAWN:
            return opened(split)
        published = [opened(name) for name in layouts.list_splits(root, layout, **options)]
        files = [os.path.relpath(str(file), root) for part in published for file in part.images]
        sequences = [part.sequences.get(name) for part in published for name in part.names]
        return _drawn(published, files, sequences, split, how)
    if len(prepared) > 1:
        raise UserError(f"{root} holds several prepared data sets; name one of {', '.join(map(str, prepared))}")
    if how.depth != AS_STORED:
        raise UserError(f"{prepared[0]} is prepared, with images at full scale: {how.depth.describe()} is for folders")
    source = TfdsSource(directory=str(prepared[0]), split=split)
    info = source._builder.info
    if split in DRAWN:
        parts = [dataclasses.replace(source, split=name) for name, part in info.splits.items() if part.num_examples]
        files = [f"{part.split}/{name}" for part in parts for name in part.names]
        own = places_of_names(name for part in parts for name in part.names)
        sequences = [own[name].origin if name in own else None for part in parts for name in part.names]
        return _drawn(parts, files, sequences, split, how)
    config = info.config_name
    role = split.removesuffix(f"_{config}") if config else split
    wanted = {"val": "validation"}.get(role, role)
    if wanted not in info.splits:
        raise UserError(f"{prepared[0]} has no split {split!r}; available: {', '.join(info.splits)}")
    if not info.splits[wanted].num_examples:
        raise UserError(f"{prepared[0]}: split {split!r} is empty")
    return dataclasses.replace(source, split=wanted)


def _drawn(
    parts: Sequence[Source],
    files: Sequence[str],
    sequences: Sequence[str | None],
    split: str,
    how: layouts.FolderOptions,
) -> Selection:
    """Returns one of `DRAWN` from the examples of all parts; an example in several parts has the same file in each.

    Examples of one of `sequences` are drawn together; None: the example is no frame.
    """
    whole = Concatenation(tuple(parts))
    rows = {file: row for row, file in reversed(list(enumerate(files)))}
    alike = collections.Counter(whole.names[row] for row in rows.values())
    places = {}
    for file, row in rows.items():
        name = whole.names[row]
        places[name if alike[name] == 1 else "_".join((*pathlib.PurePath(file).parent.parts, name))] = row
    together = {name: sequence for name, row in places.items() if (sequence := sequences[row]) is not None}
    names = draw_splits(places, how.shares, how.seed, together)[DRAWN.index(split)]
    return Selection(whole, tuple(places[name] for name in names), names)


def concatenate(sources: Sequence[Source]) -> Source:
    """Concatenates sources, keeping the names of their examples.

    Raises:
      UserError: if there is no source, or one of them has a name twice. Several sources may have the same name, since
        data sets number their images alike.
    """
    sources = tuple(sources)
    if not sources:
        raise UserError("there is no source to concatenate")
    for number, source in enumerate(sources):
        if (twice := first_repeated(source.names)) is not None:
            raise UserError(f"source {number} has the name {twice} twice")
    return sources[0] if len(sources) == 1 else Concatenation(sources)


def told_apart(source: Source) -> Source:
    """Returns the source, with the names of its data sets in front of its examples' if a name occurs twice."""
    if first_repeated(source.names) is None:
        return source
    sets = [str(_origin(source, index)) for index in range(len(source))]
    titles = dict(zip(dict.fromkeys(sets), _titles(list(dict.fromkeys(sets))), strict=True))
    names = tuple(f"{titles[one]}/{name}" for one, name in zip(sets, source.names, strict=True))
    return Selection(source, tuple(range(len(source))), names)


def _titles(folders: Sequence[str]) -> list[str]:
    """Returns the last parts of folders, numbered where they are equal."""
    titles = [pathlib.PurePath(folder).name for folder in folders]
    return [f"{title}-{number}" if titles.count(title) > 1 else title for number, title in enumerate(titles, 1)]


def check_disjoint(train: Source, val: Source, *, by_content: bool = False) -> None:
    """Refuses a training and a validation source that share examples.

    A name that is in both counts as shared, unless the two images lie in different data sets and their pixels differ.

    Args:
      train: training examples.
      val: validation examples.
      by_content: also read every image and compare the pixels, regardless of the names.

    Raises:
      UserError: if there are shared examples; the message lists their names.
    """
    places: dict[str, list[int]] = {}
    for index, name in enumerate(train.names):
        places.setdefault(name, []).append(index)
    shared = sorted(
        {
            name
            for index, name in enumerate(val.names)
            for other in places.get(name, ())
            if _origin(train, other) == _origin(val, index) or _digest(train, other) == _digest(val, index)
        }
    )
    if by_content and not shared:
        known = {_digest(train, index): name for index, name in enumerate(train.names)}
        pairs = ((known.get(_digest(val, index)), name) for index, name in enumerate(val.names))
        shared = [name if name == same else f"{same} = {name}" for same, name in pairs if same is not None]
    if shared:
        listed = ", ".join(shared[:10]) + (f" and {len(shared) - 10} more" if len(shared) > 10 else "")
        raise UserError(f"training and validation share {len(shared)} examples: {listed}")


def split_hash(source: Source) -> str:
    """Returns the SHA-256 of the names in order: equal for the same examples in the same order, however stored."""
    return hashlib.sha256("\n".join(source.names).encode()).hexdigest()


def _prepared(root: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders with dataset_info.json at or up to three levels (name, config, version) below the root."""
    patterns = ("/".join(["*"] * depth + ["dataset_info.json"]) for depth in range(4))
    return sorted(path.parent for pattern in patterns for path in root.glob(pattern))


def _origin(source: Source, index: int) -> object:
    """Returns what identifies the data set of an example: the folder that contains it, or else the type of source."""
    if isinstance(source, Concatenation):
        return _origin(*source.locate(index))
    if isinstance(source, Selection):
        return _origin(source.source, source.indices[index])
    if isinstance(source, ResizedSource):
        return _origin(source.source, index)
    if isinstance(source, layouts.FolderSource):
        return str(pathlib.Path(source.root).resolve())
    if isinstance(source, TfdsSource):
        return str(pathlib.Path(source.directory).resolve())
    return type(source)


def _digest(source: Source, index: int) -> bytes:
    image = source[index].image
    kind = repr((image.shape, image.dtype.str)).encode()
    return hashlib.sha256(kind + np.ascontiguousarray(image).tobytes()).digest()

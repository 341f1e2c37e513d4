"""The TFDS builders on dummy data in the published layouts (`tfds.testing` would need TensorFlow)."""

import importlib.util
import pathlib
import pickle
import re
import sys

import numpy as np
import pytest
from PIL import Image

from irjax.data import sources
from irjax.datasets import build as building
from irjax.errors import UserError

RNG = np.random.default_rng(0)


def pair(image_path, mask_path, points, dtype=np.uint8, mode=None):
    for path in (image_path, mask_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    values = RNG.integers(0, np.iinfo(dtype).max, (20, 24)).astype(dtype)
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(image_path)
    mask = np.zeros((20, 24), np.uint8)
    for x, y in points:
        mask[y : y + 2, x : x + 3] = 255
    Image.fromarray(mask).save(mask_path)


def listing(path, names):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(names))


@pytest.fixture
def sirst_v2(tmp_path):
    root = tmp_path / "SIRST-v2"
    for name, mode in (("Misc_1", None), ("Misc_2", "RGB"), ("new_3", None)):
        image = root / "images" / "targets" / f"{name}.png"
        pair(image, root / "annotations" / "masks" / f"{name}_pixels0.png", [(3, 4), (12, 9)], mode=mode)
    (root / "images" / "backgrounds").mkdir()
    Image.fromarray(RNG.integers(0, 255, (30, 26), dtype=np.uint8)).save(root / "images" / "backgrounds" / "back.png")
    listing(root / "splits" / "train_full.txt", ["new_3", "back", "Misc_2"])
    listing(root / "splits" / "val_full.txt", ["Misc_1"])
    listing(root / "splits" / "train_v1.txt", ["Misc_1"])
    return root


@pytest.fixture
def nudt_sirst(tmp_path):
    root = tmp_path / "NUDT-SIRST"
    names = [f"{number:06d}" for number in range(10, 0, -1)]
    for name in names:
        pair(root / "images" / f"{name}.png", root / "masks" / f"{name}.png", [(5, 6)], dtype=np.uint16)
    listing(root / "img_idx" / "train_NUDT-SIRST.txt", names[:8])
    listing(root / "img_idx" / "test_NUDT-SIRST.txt", names[8:])
    return root


def build(name, source, out, counts):
    with pytest.warns(UserWarning, match=counts):
        return building.build(name, source, out)


def assert_same(prepared, folder):
    assert prepared.names == folder.names and len(prepared) == len(folder)
    assert sources.split_hash(prepared) == sources.split_hash(folder)
    assert prepared.dtype == folder.dtype
    for index in range(len(folder)):
        one, other = prepared[index], folder[index]
        assert one.name == other.name and one.image.dtype == other.image.dtype
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.mask, other.mask)
        np.testing.assert_array_equal(one.points, other.points)


def test_sirst_v2_full(sirst_v2, tmp_path):
    out = tmp_path / "out"
    path = build("sirst_v2", sirst_v2, out, "published with 1024 images, 4 were found")
    assert path == out / "sirst_v2" / "full" / "1.0.0"
    for split in ("train_full", "val_full"):
        assert_same(sources.open_source(path, split), sources.open_source(sirst_v2, split))
    source = sources.open_source(out, "val")  # found below the folder
    assert source.split == "validation" and source[0].points.tolist() == [[4, 4.5], [13, 9.5]]
    assert source[-1].name == pickle.loads(pickle.dumps(source))[0].name
    with pytest.raises(ValueError, match="no split 'test'; available: train, validation"):
        sources.open_source(path, "test")
    with pytest.raises(IndexError):
        source[1]


def test_sirst_v2_v1_beside_full(sirst_v2, tmp_path):
    out = tmp_path / "out"
    first = build("sirst_v2/full", sirst_v2, out, "found")
    second = build("sirst_v2/v1", sirst_v2, out, "published with 427 images, 1 were found")
    assert sources.open_source(second, "train_v1").names == ("Misc_1",)
    with pytest.raises(ValueError, match=f"several prepared data sets.*{first.name}"):
        sources.open_source(out, "train")


def test_nudt_sirst_keeps_16_bits_and_carves(nudt_sirst, tmp_path):
    path = build("nudt_sirst", nudt_sirst, tmp_path / "out", "test was published with 664 images, 2 were found")
    prepared = {split: sources.open_source(path, split) for split in ("train", "val", "test")}
    for split, source in prepared.items():
        assert source.dtype == np.uint16
        assert_same(source, sources.open_source(nudt_sirst, split))
    assert len(prepared["train"]) == 6 and len(prepared["val"]) == 2
    sources.check_disjoint(prepared["train"], prepared["val"], by_content=True)


def test_features_and_metadata(nudt_sirst, tmp_path):
    import tensorflow_datasets as tfds

    path = build("nudt_sirst", nudt_sirst, tmp_path / "out", "found")
    builder = tfds.builder_from_directory(path)
    assert "simulated targets" in builder.info.description and "Dense Nested" in builder.info.citation
    assert builder.info.file_format.value == "array_record"
    raw = {"image": tfds.decode.SkipDecoding()}  # 16 bit: TFDS would need OpenCV
    record = builder.as_data_source(split="test", decoders=raw)[0]
    assert record["points"].tolist() == [[6, 6.5]] and record["boxes"].tolist() == [[5, 6, 8, 8]]
    assert record["areas"].tolist() == [6] and record["mask"].shape == (20, 24, 1)


def test_nothing_half_built_and_nothing_overwritten(sirst_v2, tmp_path):
    out = tmp_path / "out"
    broken = sirst_v2 / "images" / "targets" / "Misc_1.png"
    good = broken.read_bytes()
    broken.write_bytes(good[:60])
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=r"Misc_1\.png"):
        building.build("sirst_v2", sirst_v2, out)
    assert list(out.iterdir()) == []
    broken.write_bytes(good)
    path = build("sirst_v2", sirst_v2, out, "found")
    with pytest.raises(UserError, match="overwrite"):
        building.build("sirst_v2", sirst_v2, out)
    with pytest.warns(UserWarning):
        assert building.build("sirst_v2", sirst_v2, out, overwrite=True) == path
    assert [entry.name for entry in out.iterdir()] == ["sirst_v2"]


def test_unknown_names_and_folders(sirst_v2, tmp_path):
    with pytest.raises(ValueError, match="no builder 'coco'; there are sirst_v1, sirst_v2"):
        building.build("coco", sirst_v2, tmp_path / "out")
    with pytest.raises(ValueError, match="no configuration 'v3'; it has full, v1"):
        building.build("sirst_v2/v3", sirst_v2, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="absent"):
        building.build("sirst_v2", tmp_path / "absent", tmp_path / "out")
    (sirst_v2 / "splits").rename(sirst_v2 / "lists")
    with pytest.raises(ValueError, match="has none of the splits train_full, val_full, test_full"):
        building.build("sirst_v2", sirst_v2, tmp_path / "out")


@pytest.mark.parametrize("name", building.BUILDERS)
def test_documents(name):
    import tensorflow_datasets as tfds

    builder = building.builder_class(name)
    folder = pathlib.Path(sys.modules[builder.__module__].__file__).parent
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [
        "CITATIONS.bib",
        "README.md",
        "TAGS.txt",
        "__init__.py",
        f"{name}_dataset_builder.py",
    ]
    entries = bib_entries((folder / "CITATIONS.bib").read_text())
    assert entries and all({"title", "year"} <= fields.keys() for fields in entries.values())
    tags = (folder / "TAGS.txt").read_text().split()
    assert tags and set(tags) <= {tag.split("#")[0].strip() for tag in tfds.core.dataset_metadata.valid_tags()}
    text = (folder / "README.md").read_text()
    assert "licence" in text and len(text) > 300
    # TFDS finds them by the builder's place.
    metadata = builder.get_metadata()
    assert folder.name == name == builder.name
    assert metadata.description.split() == text.split() and set(metadata.tags) == set(tags)
    assert all(key in metadata.citation for key in entries)


def bib_entries(text):
    """Key -> fields of a BibTeX file; fails on anything that is not an entry with braced fields."""
    entries, rest = {}, text.strip()
    while rest:
        start = re.match(r"@(\w+)\{([^,\s]+),\s*", rest)
        assert start, f"not an entry: {rest[:60]!r}"
        depth, end = 1, start.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(rest[end], 0)
            end += 1
        body, key = rest[start.end() : end - 1], start[2]
        fields = re.findall(r"(\w+)\s*=\s*(\{(?:[^{}]|\{[^{}]*\})*\}|\d+)\s*(?:,|$)", body)
        left = re.sub(r"(\w+)\s*=\s*(\{(?:[^{}]|\{[^{}]*\})*\}|\d+)\s*(?:,|$)", "", body).strip()
        assert not left and key not in entries, f"{key}: {left!r}"
        entries[key] = dict(fields)
        rest = rest[end:].strip()
    return entries


def test_tensorflow_was_not_needed():
    if importlib.util.find_spec("tensorflow") is None:
        assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    ("name", "folder", "counts", "warning", "lists"),
    [
        ("sirst_v2/v1", "SIRST-v2", (192, 61), "published with 427 images, 253 were found", "_v1"),
        ("nudt_sirst", "NUDT-SIRST", (530, 133), "test was published with 664 images, 0 were found", ""),
    ],
)
def test_real_data_sets(name, folder, counts, warning, lists, shared, tmp_path):
    source = shared / "data" / folder
    path = build(name, source, tmp_path, warning)
    assert tuple(len(sources.open_source(path, split)) for split in ("train", "val")) == counts
    assert_same(sources.open_source(path, "val"), sources.open_source(source, f"val{lists}"))

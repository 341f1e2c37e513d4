"""Every builder on tiny publications in their published layouts: prepared, and read back without TensorFlow."""

import dataclasses
import json
import pathlib
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from irjax.data import layouts, sources
from irjax.data.hard import HardSource
from irjax.datasets import build as building
from irjax.errors import MissingFileError, UsageError
from irjax.io import masks
from irjax.ops import regions
from irjax.ops.resize import resize_mask
from irjax.types import Example

SHAPE = (24, 28)


def spots(number, shape=SHAPE):
    """A mask with one to three targets, different for every number."""
    rng = np.random.default_rng(number)
    mask = np.zeros(shape, np.uint8)
    for left in range(0, 3 * int(rng.integers(1, 4)), 3):
        y, x = rng.integers(2, shape[0] - 5), 1 + 3 * left
        mask[y : y + int(rng.integers(1, 4)), x : x + int(rng.integers(1, 4))] = 255
    return mask


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


def pair(image, mask, number, dtype=np.uint8, shape=SHAPE):
    rng = np.random.default_rng(1000 + number)
    save(image, rng.integers(0, np.iinfo(dtype).max, shape).astype(dtype))
    save(mask, spots(number, shape))


def listing(path, names):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def masked(root, names, folders=("images", "masks"), suffix="", ending=".png", dtype=np.uint8):
    for number, name in enumerate(names):
        mask = root / folders[1] / f"{name}{suffix}{ending}"
        pair(root / folders[0] / f"{name}{ending}", mask, number, dtype)


NAMES = [f"Misc_{number}" for number in (7, 3, 11, 5, 2, 9, 1)]
XDU = [f"XDU{number}" for number in range(7)]


def sirst_v1(root):
    masked(root, NAMES, suffix="_pixels0")
    (root / "masks" / "Misc_7.xml").write_text("<annotation/>")
    lists = {"train": NAMES[:3], "val": NAMES[3:5], "trainval": NAMES[:5], "test": NAMES[5:], "trainvaltest": NAMES}
    for split, names in lists.items():
        listing(root / "idx_427" / f"{split}.txt", names)


def sirst_v1_basicirstd(root):
    masked(root, NAMES)
    listing(root / "img_idx" / "train_NUAA-SIRST.txt", NAMES[:5])
    listing(root / "img_idx" / "test_NUAA-SIRST.txt", NAMES[5:])


def dnanet(root):
    masked(root, NAMES)
    listing(root / "50_50" / "train.txt", NAMES[:5])
    listing(root / "50_50" / "test.txt", NAMES[5:])


def sirst_v2(root):
    pair(root / "images/targets/Misc_1.png", root / "annotations/masks/Misc_1_pixels0.png", 1)
    pair(root / "images/targets/new_2.png", root / "annotations/masks/new_2_pixels0.png", 2)
    save(root / "images/backgrounds/back.png", np.full((20, 30), 9, np.uint8))
    for split, names in {"train": ["back", "Misc_1"], "test": ["new_2"]}.items():
        listing(root / "splits" / f"{split}_full.txt", names)


def nudt_sirst(root):
    masked(root, [f"{number:06d}" for number in range(1, 9)], dtype=np.uint16)
    listing(root / "img_idx" / "train_NUDT-SIRST.txt", [f"{number:06d}" for number in (5, 3, 1, 2)])
    listing(root / "img_idx" / "test_NUDT-SIRST.txt", [f"{number:06d}" for number in (4, 6, 7, 8)])


def irstd_1k(root):
    masked(root, XDU, folders=("IRSTD1k_Img", "IRSTD1k_Label"))
    gray = spots(1)
    gray[0, :4] = (127, 128, 200, 20)
    save(root / "IRSTD1k_Label" / "XDU1.png", gray)
    listing(root / "trainval.txt", XDU[:4])
    listing(root / "test.txt", XDU[4:])
    listing(root / "trainvaltest.txt", XDU)
    listing(root / "50_50" / "train.txt", XDU[3:])
    listing(root / "50_50" / "test.txt", XDU[:3])


def sirst_aug(root):
    for first, split in enumerate(("trainval", "test")):
        for number in range(4):  # numbered alike, as published
            name, place = f"{number:06d}.png", root / "sirst_aug" / split
            pair(place / "images" / name, place / "masks" / name, 10 * first + number)


def sirst_uavb(root):
    masked(root / "SIRST-UAVB", [str(number) for number in range(1, 8)], ("images/all", "masks"), ending=".jpg")
    listing(root / "SIRST-UAVB" / "train.txt", "12345")
    listing(root / "SIRST-UAVB" / "val.txt", "67")


def sirst_uavb_of_spire(root):
    masked(root, [str(number) for number in range(1, 8)], suffix="_mask")
    (root / "annotations").mkdir()
    (root / "annotations" / "annotations.json").write_text('{"images": [], "annotations": []}')
    listing(root / "img_idx" / "train.txt", "12345")
    listing(root / "img_idx" / "test.txt", "67")


def irdst(root):
    for number in range(7):
        place = f"{'train' if number < 5 else 'test'}/{number:08d}.png"
        pair(root / "IRDST_real" / "images" / place, root / "IRDST_real" / "masks" / place, number)
        box = root / "IRDST_real" / "boxes" / place.replace("png", "txt")
        listing(box, ["[1, 2, 3, 4]"])


def irdst_basicirstd(root):
    names = [f"{number % 2 + 40}/1({number})" for number in range(7)]
    masked(root, names)
    listing(root / "img_idx" / "train_IRDST-real.txt", [f"/{name}" for name in names[:5]])
    listing(root / "img_idx" / "test_IRDST-real.txt", [f"/{name}" for name in names[5:]])


def mdfa(root):
    for number in range(5):
        stem = root / "data" / "training" / f"{number:06d}"
        pair(stem.with_name(f"{stem.name}_1.png"), stem.with_name(f"{stem.name}_2.png"), number)
        gray = np.asarray(Image.open(f"{stem}_1.png"))
        save(pathlib.Path(f"{stem}_1.png"), np.stack([gray] * 3, axis=2))  # colour files, as published
    for number in range(2):
        pair(root / f"data/test_org/{number:05d}.png", root / f"data/test_gt/{number:05d}.png", number, shape=(30, 40))


def sirst4(root):
    names = ["Misc_1", "000001", "XDU0", "back", "XDU1", "Misc_2"]
    masked(root, names)
    for split, some in {"train": names[:4], "test": names[4:]}.items():
        listing(root / "img_idx" / f"{split}.txt", some)
        listing(root / "img_idx" / f"{split}_{root.name}.txt", some)  # the same list under both names


# Test images of the three publications: size and targets (row, column, height, width), and whether the rule keeps them.
HARD = {
    ("IRSTD-1k/IRSTD1k_Img", "XDU4"): ((512, 512), [(10, 20, 8, 10)], True),  # 80 pixels are 20 of 256x256
    ("IRSTD-1k/IRSTD1k_Img", "XDU5"): ((512, 512), [(10, 20, 8, 10), (300, 7, 12, 8)], False),  # 20 and 24
    ("IRSTD-1k/IRSTD1k_Img", "XDU6"): ((512, 512), [(100, 100, 1, 1)], False),  # gone after resizing
    ("NUDT-SIRST/images", "000004"): ((256, 256), [(50, 60, 4, 5), (90, 90, 1, 1)], True),
    ("NUDT-SIRST/images", "000006"): ((256, 256), [], False),
    ("NUDT-SIRST/images", "000007"): ((256, 256), [(50, 60, 3, 7)], False),  # 21
    ("NUDT-SIRST/images", "000008"): ((256, 256), [(9, 9, 3, 4), (12, 13, 3, 3)], False),  # 8-connected: 21
    ("IRDST/IRDST_real/images/test", "00000005"): ((480, 720), [(30, 600, 4, 6)], True),
    ("IRDST/IRDST_real/images/test", "00000006"): ((480, 720), [(30, 600, 30, 6)], False),
}


def irstd_hard(root):
    irstd_1k(root / "IRSTD-1k")
    nudt_sirst(root / "NUDT-SIRST")
    irdst(root / "IRDST")
    for (folder, name), (shape, targets, _) in HARD.items():
        mask = np.zeros(shape, np.uint8)
        for y, x, height, width in targets:
            mask[y : y + height, x : x + width] = 255
        save(root / folder / f"{name}.png", np.random.default_rng(5).integers(0, 255, shape, np.uint8))
        save(root / folder.replace("images", "masks").replace("Img", "Label") / f"{name}.png", mask)


@dataclasses.dataclass(frozen=True)
class Case:
    """A builder, what makes its publication, what it finds there, and where the layout reader finds the same."""

    name: str
    make: Callable
    counts: dict
    inside: str = ""
    layout: str = "auto"
    suffix: str = ""
    warns: str = "published with"

    def __str__(self):
        return f"{self.name}-{self.make.__name__}"


CASES = [
    Case(
        "sirst_v1", sirst_v1, {"train": 3, "validation": 2, "test": 2}, warns="train was published with 256 images, 3"
    ),
    Case("sirst_v1/basicirstd", sirst_v1_basicirstd, {"train": 4, "validation": 1, "test": 2}, warns="213 images, 5"),
    Case("sirst_v1/basicirstd", dnanet, {"train": 4, "validation": 1, "test": 2}, suffix="_50_50"),
    Case("sirst_v2", sirst_v2, {"train": 2, "test": 1}, suffix="_full", warns="1024 images, 3 were found"),
    Case("nudt_sirst", nudt_sirst, {"train": 3, "validation": 1, "test": 4}, warns="663 images, 4 were found"),
    Case("nudt_sirst", dnanet, {"train": 4, "validation": 1, "test": 2}, suffix="_50_50"),
    Case("irstd_1k", irstd_1k, {"train": 3, "validation": 1, "test": 3}, warns="800 images, 4 were found"),
    Case("irstd_1k/50_50", irstd_1k, {"train": 3, "validation": 1, "test": 3}, suffix="_50_50", warns="1001 images, 7"),
    Case("sirst_aug", sirst_aug, {"train": 3, "validation": 1, "test": 4}, inside="sirst_aug", warns="8525 images, 4"),
    Case(
        "sirst_uavb", sirst_uavb, {"train": 4, "validation": 1, "test": 2}, inside="SIRST-UAVB", warns="2400 images, 5"
    ),
    Case("sirst_uavb", sirst_uavb_of_spire, {"train": 4, "validation": 1, "test": 2}, layout="basicirstd"),
    Case("irdst", irdst, {"train": 4, "validation": 1, "test": 2}, inside="IRDST_real", warns="40650 images, 7"),
    Case("irdst", irdst_basicirstd, {"train": 4, "validation": 1, "test": 2}),
    Case("mdfa", mdfa, {"train": 4, "validation": 1, "test": 2}, inside="data", warns="10000 images, 5"),
    Case("sirst4", sirst4, {"train": 3, "validation": 1, "test": 2}, warns="2285 images, 4 were found"),
]


def build(name, source, out, warns):
    """Builds, and asserts that this warning is among those given."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        path = building.build(name, source, out)
    texts = [str(warning.message) for warning in given if issubclass(warning.category, UserWarning)]
    assert any(warns in text for text in texts), texts
    return path, texts


def assert_same(prepared, folder):
    assert prepared.names == folder.names and sources.split_hash(prepared) == sources.split_hash(folder)
    assert prepared.dtype == folder.dtype
    for index in range(len(folder)):
        one, other = prepared[index], folder[index]
        assert one.image.dtype == other.image.dtype
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.mask, other.mask)
        np.testing.assert_array_equal(one.points, other.points)


def records(path, split):
    import tensorflow_datasets as tfds

    raw = {"image": tfds.decode.SkipDecoding(), "mask": tfds.decode.SkipDecoding()}
    return tfds.builder_from_directory(str(path)).as_data_source(split=split, decoders=raw)


def assert_regions(path, splits):
    """What the records say of each target is what the mask says."""
    for split in splits:
        for record in records(path, split):
            mask, _ = masks.decode_mask(record["mask"], "record")
            found = regions.find_regions(mask)
            assert record["boxes"].tolist() == found.boxes.tolist() and record["areas"].tolist() == found.areas.tolist()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_publication(case, tmp_path):
    root = tmp_path / "publication"
    case.make(root)
    path, _ = build(case.name, root, tmp_path / "out", case.warns)
    name, _, config = case.name.partition("/")
    assert path.parts[len(tmp_path.parts) + 1] == name and (not config or config in path.parts)
    layout_splits = {"train": "train", "validation": "val", "test": "test"}
    taken = {}
    for split, count in case.counts.items():
        prepared = sources.open_source(path, split)
        assert len(prepared) == count
        assert_same(prepared, sources.open_source(root / case.inside, layout_splits[split] + case.suffix, case.layout))
        taken[split] = set(prepared.names)
    if "validation" in taken:
        assert not taken["train"] & taken["validation"]
        sources.check_disjoint(*(sources.open_source(path, s) for s in ("train", "validation")), by_content=True)
    assert_regions(path, case.counts)
    stated = json.loads((path / "metadata.json").read_text())
    assert stated["sha256_of_names"] == {s: sources.split_hash(sources.open_source(path, s)) for s in case.counts}
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == [name]


def test_the_draw_of_a_prepared_data_set_is_that_of_its_folder(tmp_path):
    nudt_sirst(tmp_path / "data")
    path, _ = build("nudt_sirst", tmp_path / "data", tmp_path / "out", "663 images, 4")
    drawn = [sources.open_source(path, split) for split in sources.DRAWN]
    assert [len(part) for part in drawn] == [4, 2, 2]
    for part, split in zip(drawn, sources.DRAWN, strict=True):
        assert_same(part, sources.open_source(tmp_path / "data", split))


def test_a_prepared_data_set_is_drawn_by_whole_sequences_as_its_folder_is(tmp_path):
    names = [f"{sequence}/1({number})" for sequence in range(40, 46) for number in range(1, 4)]
    masked(tmp_path / "data", names)
    listing(tmp_path / "data/img_idx/train_IRDST-real.txt", names[:15])
    listing(tmp_path / "data/img_idx/test_IRDST-real.txt", names[15:])
    path, _ = build("irdst", tmp_path / "data", tmp_path / "out", "40650 images, 18")
    parts = [sources.open_source(path, split) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [12, 3, 3]
    drawn = [sources.open_source(path, split) for split in sources.DRAWN]
    for found in (parts, drawn):
        assert sum(len({name.partition("/")[0] for name in part.names}) for part in found) == 6
    for part, split in zip(drawn, sources.DRAWN, strict=True):
        assert_same(part, sources.open_source(tmp_path / "data", split))


@pytest.mark.parametrize(
    ("make", "inside", "layout"),
    [
        (sirst_v1, "", "lists"),
        (sirst_v1_basicirstd, "", "basicirstd"),
        (dnanet, "", "lists"),
        (irstd_1k, "", "lists"),
        (sirst_aug, "sirst_aug", "split_folders"),
        (sirst_uavb, "SIRST-UAVB", "sirst_uavb"),
        (sirst_uavb_of_spire, "", "spire"),
        (irdst, "IRDST_real", "split_folders"),
        (irdst_basicirstd, "", "basicirstd"),
        (mdfa, "data", "mdfa"),
        (sirst4, "", "basicirstd"),
    ],
)
def test_layouts_are_detected(make, inside, layout, tmp_path):
    make(tmp_path)
    assert layouts.detect_layout(tmp_path / inside) == layout


def test_gray_masks_are_binarised_and_reported(tmp_path):
    irstd_1k(tmp_path / "data")
    path, texts = build("irstd_1k", tmp_path / "data", tmp_path / "out", "published with")
    found = {s: sources.open_source(path, s) for s in ("train", "val")}
    split = next(split for split, source in found.items() if "XDU1" in source.names)
    mask = found[split][found[split].names.index("XDU1")].mask
    assert mask[0, :4].tolist() == [False, True, True, False]
    tfds_split = {"val": "validation"}.get(split, split)
    (text,) = [text for text in texts if "not binary" in text]
    assert f"{tfds_split}: 1 of {len(found[split])} masks are not binary; target is above half of 255: XDU1" in text
    assert json.loads((path / "metadata.json").read_text())["gray_masks"][tfds_split] == 1


def test_jpeg_masks_are_binarised_and_reported(tmp_path):
    sirst_uavb(tmp_path / "data")
    path, texts = build("sirst_uavb", tmp_path / "data", tmp_path / "out", "2 of 2 masks are not binary")
    assert len([text for text in texts if "not binary" in text]) == 3
    source = sources.open_source(path, "test")
    for index, name in enumerate(source.names):
        jpeg = np.asarray(Image.open(tmp_path / "data" / "SIRST-UAVB" / "masks" / f"{name}.jpg"))
        np.testing.assert_array_equal(source[index].mask, jpeg >= 128)
        # Thin targets may break in a JPEG file; what was drawn is still where it was.
        overlap = (source[index].mask & (spots(int(name) - 1) > 0)).sum() / (spots(int(name) - 1) > 0).sum()
        assert overlap > 0.7


def test_mask_of_another_size_is_refused(tmp_path):
    sirst_v1(tmp_path / "data")
    save(tmp_path / "data" / "masks" / "Misc_5_pixels0.png", np.zeros((40, 59), np.uint8))
    message = r"Misc_5_pixels0\.png is for 59x40 pixels, but the image .*Misc_5\.png has 28x24"
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=message):
        building.build("sirst_v1", tmp_path / "data", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "make", "path"),
    [
        ("sirst_v1", sirst_v1, "idx_427/test.txt"),
        ("irstd_1k", irstd_1k, "test.txt"),
        ("irstd_1k/50_50", irstd_1k, "50_50/test.txt"),
        ("sirst_uavb", sirst_uavb, "SIRST-UAVB/val.txt"),
    ],
)
def test_a_name_in_train_and_test_is_refused(name, make, path, tmp_path):
    make(tmp_path / "data")
    train = {"sirst_v1": "Misc_7", "irstd_1k": "XDU0", "irstd_1k/50_50": "XDU3", "sirst_uavb": "1"}[name]
    listed = tmp_path / "data" / path
    listed.write_text(f"{listed.read_text()}{train}\n")
    with pytest.raises(ValueError, match=rf"1 names are in both .*: {train}"):
        building.build(name, tmp_path / "data", tmp_path / "out")


def test_the_same_file_in_two_split_folders_is_refused(tmp_path):
    sirst_aug(tmp_path)
    place = tmp_path / "sirst_aug"
    (place / "test/images/000002.png").write_bytes((place / "trainval/images/000002.png").read_bytes())
    with pytest.raises(ValueError, match=r"1 names are in both 'trainval' and 'test': 000002"):
        layouts.open_layout(place, "trainval")


@pytest.mark.parametrize("name", [name for name in building.BUILDERS if name != "synthetic"])
def test_a_missing_or_foreign_folder_says_where_to_get_the_data(name, tmp_path):
    builder = building.builder_class(name)
    for source, error, message in (
        (tmp_path / "absent", MissingFileError, "there is no folder .*absent"),
        (None, UsageError, f"{name} needs a source"),
    ):
        with pytest.raises(error, match=message) as raised:
            building.build(name, source, tmp_path / "out")
        assert builder.HOMEPAGE in str(raised.value) and builder.FOLDER in str(raised.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty") as raised:
        building.build(name, tmp_path / "empty", tmp_path / "out")
    assert builder.HOMEPAGE in str(raised.value) and builder.FOLDER in str(raised.value)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_a_split_without_masks_names_the_image(tmp_path):
    mdfa(tmp_path)
    (tmp_path / "data/training/000003_2.png").unlink()
    with pytest.raises(ValueError, match=r"no mask for .*000003_1\.png"):
        layouts.open_layout(tmp_path / "data", "trainval")


def test_irstd_hard(tmp_path):
    irstd_hard(tmp_path / "data")
    counts = "IRSTD-1K was published with 106 images, 1 were found; NUDT-SIRST was published with 101 images, 1"
    path, texts = build("irstd_hard", tmp_path / "data", tmp_path / "out", counts)
    assert len(texts) == 1
    source = sources.open_source(path, "test")
    assert source.names == ("IRSTD-1K_XDU4", "NUDT-SIRST_000004", "IRDST_00000005")
    assert [folder.split("/")[0].upper() + "_" + name for (folder, name), (*_, kept) in HARD.items() if kept] == [
        name.upper() for name in source.names
    ]
    made = building.builder_class("irstd_hard").open_splits(
        tmp_path / "data", building.builder_class("irstd_hard").config_for("area20")
    )["test"]
    assert_same(source, made)
    assert all(source[i].image.shape == source[i].mask.shape == (256, 256) for i in range(3))
    np.testing.assert_array_equal(source[1].image, layouts.open_layout(tmp_path / "data/NUDT-SIRST", "test")[0].image)
    assert_regions(path, ["test"])
    path, _ = build(
        "irstd_hard/area19", tmp_path / "data", tmp_path / "out", "IRSTD-1K was published with 106 images, 0"
    )
    assert sources.open_source(path, "test").names == ("IRDST_00000005",)


def test_irstd_hard_wants_three_publications(tmp_path):
    irstd_hard(tmp_path)
    (tmp_path / "NUDT-SIRST").rename(tmp_path / "irstd_1k")
    with pytest.raises(ValueError, match="2 folders for IRSTD-1K"):
        building.build("irstd_hard", tmp_path, tmp_path.parent / "out")
    (tmp_path / "irstd_1k").rename(tmp_path / "other")
    with pytest.raises(ValueError, match="no folders for NUDT-SIRST.*IRSTD-1K, NUDT-SIRST and IRDST"):
        building.build("irstd_hard", tmp_path, tmp_path.parent / "out")


def test_hard_rule():
    def keeps(mask, **limits):
        example = Example("a", np.zeros(mask.shape, np.uint8), np.zeros((0, 2), np.float32), mask)
        return len(HardSource(_Memory([example]), **limits))

    mask = np.zeros((512, 512), bool)
    assert keeps(mask) == 0  # no target
    mask[100:110, 100:108] = True  # 80 pixels, 20 of 256x256
    assert keeps(mask) == 1 and keeps(mask, max_area=19) == 0 and keeps(mask, size=512) == 0
    mask[110, 108] = True  # not on the new lattice: 8-connected before, the same 20 after
    assert keeps(mask) == 1
    mask[111, 109] = True  # a diagonal neighbour after resizing
    assert keeps(mask) == 0
    mask[300:310, 300:316] = True
    assert keeps(mask, max_area=40) == 1 and keeps(mask, max_area=39) == 0


@dataclasses.dataclass(frozen=True)
class _Memory:
    examples: list

    @property
    def names(self):
        return tuple(example.name for example in self.examples)

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]


@pytest.mark.parametrize("shape", [(512, 512), (480, 720), (256, 256), (24, 28)])
def test_masks_are_resized_as_pillow_does(shape):
    mask = np.random.default_rng(0).random(shape) < 0.1
    expected = np.asarray(Image.fromarray(mask).resize((256, 256), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(resize_mask(mask, 256), expected)


def test_synthetic(tmp_path, monkeypatch):
    builder = building.builder_class("synthetic")
    monkeypatch.setattr(builder, "COUNTS", {"train": 3, "validation": 2, "test": 2})
    paths = {name: building.build(name, None, tmp_path / "out") for name in ("synthetic", "synthetic/seed4_16bit")}
    assert paths["synthetic"] == tmp_path / "out" / "synthetic" / "seed0" / "1.0.0"
    for name, path in paths.items():
        made = builder.open_splits(None, builder.config_for(name.partition("/")[2]))
        for split, source in made.items():
            prepared = sources.open_source(path, split)
            assert prepared.dtype == (np.uint16 if name.endswith("16bit") else np.uint8)
            assert prepared.names == source.names
            for index in range(len(source)):
                np.testing.assert_array_equal(prepared[index].image, source[index].image)
                np.testing.assert_array_equal(prepared[index].points, source[index].points)
            for record in records(path, split):  # boxes and areas stand in the order of the points
                x, y = np.floor(record["points"] + 0.5).T
                left, top, right, bottom = record["boxes"].T
                assert np.all((left <= x) & (x < right) & (top <= y) & (y < bottom)) and np.all(record["areas"] > 0)
    names = [sources.open_source(path, s).names for path in paths.values() for s in ("train", "val", "test")]
    assert len(set(sum(names, ()))) == sum(map(len, names))
    with pytest.raises(ValueError, match="no configuration 'large'; it has seedN"):
        building.build("synthetic/large", None, tmp_path / "out")
    with pytest.raises(ValueError, match="made from a seed"):
        building.build("synthetic", tmp_path, tmp_path / "out")


def test_command_line(tmp_path, capsys):
    from irjax import cli

    cli.main(["datasets", "list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(building.BUILDERS)
    nudt_sirst(tmp_path / "data")
    with pytest.warns(UserWarning, match="published with 663 images, 4"):
        cli.main(
            ["datasets", "build", "nudt_sirst", "--source", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
        )
    assert "train 3, validation 1, test 4" in capsys.readouterr().out

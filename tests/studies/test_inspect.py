"""Inspection of a folder, with every defect planted."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from irjax.io.images import AS_STORED, Depth
from irjax.labels import label_mask
from irjax.studies import inspect_pictures
from irjax.studies.inspect import inspect_folder, local_contrast
from irjax.studies.inspect_text import as_data, inspection_text, summarise, write_inspection

SHAPE = (40, 56)


def scene(seed, shape=SHAPE):
    """Smooth clutter, so that two scenes do not correlate by chance."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.uniform(20, 120, (6, 6)).astype(np.float32))
    return np.rint(np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC)).clip(0, 200)).astype(np.uint8)


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def sound(tmp_path):
    """Four images of the layout basicirstd without a defect: train a, b; val c; test d."""
    root = tmp_path / "SET"
    for seed, name in enumerate("abcd"):
        image, mask = scene(seed), np.zeros(SHAPE, np.uint8)
        mask[10 : 12 + seed, 20:23] = 255
        image[mask > 0] = 230
        save(root / f"images/{name}.png", image)
        save(root / f"masks/{name}.png", mask)
    lists(root, train="ab", val="c", test="d")
    return root


def lists(root, **names):
    for split, listed in names.items():
        (root / "img_idx").mkdir(exist_ok=True)
        (root / f"img_idx/{split}_{root.name}.txt").write_text("\n".join(listed) + "\n")


def edit(path, change):
    values = np.array(Image.open(path))
    Image.fromarray(change(values)).save(path)


def findings(root, **options):
    return {finding.kind: finding.files for finding in inspect_folder(root, **options).findings}


def test_a_sound_folder(sound):
    found = inspect_folder(sound, near=0.99)
    assert found.layout == "basicirstd" and found.findings == ()
    assert {split: [record.name for record in records] for split, records in found.splits.items()} == {
        "test": ["d"],
        "train": ["a", "b"],
        "val": ["c"],
    }
    numbers = as_data(found)["splits"]["train"]
    assert (numbers["images"], numbers["images_with_targets"], numbers["targets"]) == (2, 2, 2)
    assert numbers["sizes"] == {"56x40": 2} and numbers["bits"] == {"8": 2}
    assert numbers["targets_per_image"] == {1: 2} and numbers["targets_4_connected"] == 2
    area = numbers["area"]
    assert (area["min"], area["max"], area["mean"]) == (6, 9, 7.5)
    assert (area["share_below_10"], area["share_below_81"]) == (1, 1)
    text = inspection_text(found)
    assert "layout basicirstd" in text and "kinds of defects: 0" in text


def test_shares_and_quartiles(sound):
    """Areas 6, 9, 12, 15."""
    area = summarise(inspect_folder(sound).records)["area"]
    assert area["share_below_10"] == 0.5 and area["mean"] == 10.5
    assert area["lower_quartile"] in (6, 9) and area["median"] in (9, 12) and area["upper_quartile"] in (12, 15)


def test_local_contrast():
    image = np.zeros((60, 60), np.uint8)
    image[::2] = 10  # mean 5, deviation 5 in every even number of rows
    mask = np.zeros(image.shape, bool)
    mask[30:32, 30:32] = True
    image[mask] = 45
    contrast, scr = local_contrast(image, mask, label_mask(mask))
    background = image[10:52, 10:52][~mask[10:52, 10:52]].astype(float)
    np.testing.assert_allclose(contrast, [45 - background.mean()])
    np.testing.assert_allclose(scr, [(45 - background.mean()) / background.std()])
    assert 7.9 < scr[0] < 8.1 and abs(contrast[0] - 40) < 0.1
    # Farther than 20 px away nothing counts, and other targets are no background.
    image[:9], image[53:], mask[34, 34] = 255, 255, True
    image[34, 34] = 255
    again, _ = local_contrast(image, mask, label_mask(mask))
    assert abs(again[0] - 40) < 0.1 and again.shape == (2,)
    flat = np.full((9, 9), 7, np.uint8)
    spot = np.zeros((9, 9), bool)
    spot[4, 4] = True
    assert np.isnan(local_contrast(flat, np.ones((9, 9), bool), label_mask(np.ones((9, 9), bool)))[0]).all()
    flat[4, 4] = 3
    contrast, scr = local_contrast(flat, spot, label_mask(spot))
    assert contrast == [-4] and np.isinf(scr).all()


def test_a_mask_of_another_size(sound):
    save(sound / "masks/b.png", np.zeros((30, 56), np.uint8))
    assert findings(sound)["size_mismatch"] == ("masks/b.png: 56x30, images/b.png: 56x40",)
    assert len(inspect_folder(sound).splits["train"]) == 1


def test_gray_masks(sound):
    def change(values):
        values[10, 30] = values[11, 40] = 100
        values[10, 20] = 200
        return values

    edit(sound / "masks/a.png", change)
    (line,) = findings(sound)["gray_mask"]
    assert line == "masks/a.png: 2 px above 0 are no target; 3 targets above 0, 1 above half of 255"
    levels = np.array(Image.open(sound / "masks/a.png"))
    save(sound / "masks/a.png", np.where(levels > 150, 90, levels // 4).astype(np.uint8))
    assert "targets above 0, 0 above half of 255" in findings(sound)["gray_mask"][0]


def test_unreadable_files_do_not_stop_it(sound):
    for name, kind in (("images/a.png", "unreadable_image"), ("masks/c.png", "unreadable_mask")):
        (sound / name).write_bytes((sound / name).read_bytes()[:50])
        (line,) = findings(sound)[kind]
        assert line.startswith(f"{name}: not a readable image")
    found = inspect_folder(sound)
    assert [record.name for record in found.records] == ["d", "b"]


def test_missing_files_and_names(sound):
    (sound / "masks/a.png").unlink()
    lists(sound, train=("a", "b", "b", "z"), val="c", test="d")
    save(sound / "images/extra.png", scene(9))
    found = findings(sound)
    assert found["missing_image"] == ("z, in train",) and found["listed_twice"] == ("b: 2 times in train",)
    assert "images/a.png" in found["missing_mask"][0]
    assert found["unlisted"] == ("images/extra.png",)
    assert "unlisted" not in findings(sound, split="train")


def test_names_in_two_splits(sound):
    lists(sound, train="abc", val="c", test="bd")
    assert findings(sound)["shared_images"] == (
        "images/b.png: in train and test",
        "images/c.png: in train and val",
    )
    # The whole training list holds the validation list by definition.
    lists(sound, train="ab", val="c", test="d", trainval="abc")
    assert findings(sound) == {}
    lists(sound, trainval="abcd")
    assert findings(sound)["shared_images"] == ("images/d.png: in trainval and test",)


def test_exact_duplicates_are_found_by_content(sound):
    Image.open(sound / "images/a.png").save(sound / "images/d.bmp")
    (sound / "images/d.png").unlink()
    save(sound / "images/e.png", np.array(Image.open(sound / "images/b.png")))
    save(sound / "masks/e.png", np.zeros(SHAPE, np.uint8))
    lists(sound, train="abe")
    found = findings(sound, near=0.99)
    assert found["duplicate_between"] == ("images/d.bmp (test) = images/a.png (train)",)
    assert found["duplicate_within"] == ("images/b.png = images/e.png",)
    assert "near_duplicate" not in found


def test_near_duplicates_are_an_option(sound):
    image = np.array(Image.open(sound / "images/a.png"))
    image[2:5, 2:9] += 25
    save(sound / "images/c.png", image)
    assert "near_duplicate" not in findings(sound)
    (line,) = findings(sound, near=0.99)["near_duplicate"]
    assert line.startswith("images/c.png (val) ~ images/a.png (train): 0.99")
    assert "near_duplicate" not in findings(sound, near=0.9999)
    assert "near duplicates were not looked for" in inspection_text(inspect_folder(sound))
    save(sound / "images/c.png", np.full(SHAPE, 7, np.uint8))
    save(sound / "images/a.png", np.full(SHAPE, 9, np.uint8))
    assert "near_duplicate" not in findings(sound, near=0.99)  # flat images correlate with nothing


def test_neighbours_are_counted_for_each_pair_of_splits(sound):
    for name in "cd":
        edit(sound / f"images/{name}.png", lambda _: np.asarray(Image.open(sound / "images/a.png")) // 2)
    found = inspect_folder(sound, near=0.99)
    assert found.neighbours == {("train", "test"): 1, ("train", "val"): 1, ("val", "test"): 0}
    (near,) = [finding for finding in found.findings if finding.kind == "near_duplicate"]
    assert [line.partition(":")[0] for line in near.files] == [
        "images/d.png (test) ~ images/a.png (train)",
        "images/c.png (val) ~ images/a.png (train)",
    ]
    assert "near duplicates: 1 of 1 images of val correlate above 0.99 with one of train" in inspection_text(found)
    assert {"splits": ["train", "val"], "images": 1, "of": 1} in as_data(found)["near_duplicates"]


def test_sequences_on_both_sides(tmp_path):
    """Frames of folders and pages of a file; a sequence of one split alone is none."""
    for name in [*(f"{sequence}/{number:04d}" for sequence in "123" for number in range(1, 5))]:
        save(tmp_path / f"images/{name}.png", scene(int(name[0]), SHAPE))
        save(tmp_path / f"masks/{name}.png", np.eye(40, 56, dtype=np.uint8) * 255)
    lists(tmp_path, train=["1/0001", "1/0002", "1/0003", "2/0001"], val=["1/0004", "3/0001", "3/0002"], test=["3/0003"])
    found = findings(tmp_path)["split_sequence"]
    assert found == ("images/1: 3 frames in train, 1 in val", "images/3: 2 frames in val, 1 in test")
    both = inspection_text(inspect_folder(tmp_path))
    assert "defect: 2 sequences have frames in two splits that should be apart" in both
    pages = tmp_path / "pages"
    for kind in ("images", "masks"):
        (pages / kind).mkdir(parents=True)
        values = [scene(seed) if kind == "images" else np.eye(40, 56, dtype=np.uint8) for seed in range(4)]
        tifffile.imwrite(pages / kind / "clip.tif", np.stack(values), photometric="minisblack")
    lists(pages, train=["clip_0001", "clip_0002"], val=["clip_0004"])
    found = inspect_folder(pages)
    assert [record.digest for record in found.splits["val"]] != [record.digest for record in found.splits["train"][:1]]
    assert [finding.files for finding in found.findings if finding.kind == "split_sequence"] == [
        ("images/clip.tif: 2 frames in train, 1 in val",)
    ]
    assert write_inspection(tmp_path / "out", found) == ("contact_sheet.png", "distributions.png", "inspect.json")


def test_empty_masks_and_connectivity_are_notes(sound):
    save(sound / "masks/a.png", np.zeros(SHAPE, np.uint8))

    def change(values):
        values[13, 23] = 255
        return values

    edit(sound / "masks/b.png", change)
    found = inspect_folder(sound)
    assert {finding.kind: finding.files for finding in found.findings} == {
        "empty_mask": ("masks/a.png",),
        "connectivity": ("masks/b.png: 2 targets 4-connected, 1 8-connected",),
    }
    data = as_data(found)
    assert [finding["level"] for finding in data["findings"]] == ["note", "note"]
    assert data["splits"]["train"]["targets_4_connected"] == 2 and data["splits"]["train"]["targets"] == 1
    assert "kinds of defects: 0" in inspection_text(found)


def test_masks_that_are_mostly_target_are_said_and_not_inverted(sound):
    for name in "abcd":
        edit(sound / f"masks/{name}.png", lambda values: 255 - values)
    found = inspect_folder(sound)
    (line,) = next(one.files for one in found.findings if one.kind == "inverted_masks")
    assert (
        line.startswith("targets cover 8918 of the 8960 pixels of 4 masks (100%)") and "invert the mask files" in line
    )
    assert "  note: 1 data sets have masks that are mostly target" in inspection_text(found)
    assert sum(record.labels.areas.sum() for record in found.records) == 8918


@pytest.mark.parametrize(("bits", "ending"), [(10, "png"), (12, "tif"), (14, "pgm"), (16, "png")])
def test_the_bits_of_a_set_are_found_and_used(sound, bits, ending):
    plain = as_data(inspect_folder(sound))["splits"]["train"]
    white = 2**bits - 1
    for name in "abcd":
        values = np.array(Image.open(sound / f"images/{name}.png")).astype(np.uint16)
        deep = np.rint(values / 230 * white).astype(np.uint16)
        (sound / f"images/{name}.png").unlink()
        Image.fromarray(deep).save(sound / f"images/{name}.{ending}")
    found = inspect_folder(sound)
    assert found.depth == (AS_STORED if bits == 16 else Depth(bits=bits))
    data = as_data(found)
    train = data["splits"]["train"]
    assert train["bits"] == {"16": 2} and not data["findings"]
    said = "white at the full scale of the file's type" if bits == 16 else f"white {white}"
    assert data["depth"] == said and f"depth: {said}" in inspection_text(found)
    for key in ("contrast", "brightness"):
        assert train[key]["median"] == pytest.approx(plain[key]["median"] * 255 / 230, abs=2e-3)
    assert train["scr"]["median"] == pytest.approx(plain["scr"]["median"], rel=1e-2)
    # Loose: what the caller says comes first.
    assert inspect_folder(sound, depth=Depth(bits=16)).depth == Depth(bits=16)


def test_signed_images_are_inspected_by_a_range(sound):
    for name in "abcd":
        values = np.array(Image.open(sound / f"images/{name}.png")).astype(np.int16) - 100
        tifffile.imwrite(sound / f"images/{name}.tif", values)
        (sound / f"images/{name}.png").unlink()
    assert len(findings(sound)["unreadable_image"]) == 4
    found = inspect_folder(sound, depth=Depth(range=(-100, 155)))
    assert not found.findings and len(found.records) == 4


def test_points_and_their_sizes(tmp_path):
    """The layout spire: sizes are stated, a point may be outside, and there are no areas."""
    for name in "ab":
        save(tmp_path / f"images/{name}.png", scene(1))
    listed = [{"id": n, "file_name": f"{name}.png", "height": 40, "width": 50 + 6 * n} for n, name in enumerate("ab")]
    entries = [{"image_id": n, "keypoints": [x, 5, 2]} for n, x in ((0, 3), (1, 60))]
    (tmp_path / "annotations").mkdir()
    content = {"images": listed, "annotations": entries}
    (tmp_path / "annotations/annotations.json").write_text(json.dumps(content))
    found = inspect_folder(tmp_path)
    assert {finding.kind: finding.files for finding in found.findings} == {
        "size_mismatch": ("images/a.png: 56x40, annotated as 50x40",),
        "point_outside": ("images/b.png: 56x40",),
        "duplicate_within": ("images/a.png = images/b.png",),
    }
    numbers = summarise(found.records)
    assert numbers["area"] is None and numbers["scr"] is None and numbers["targets"] == 2
    assert numbers["targets_4_connected"] is None
    assert set(write_inspection(tmp_path / "out", found)) == {"inspect.json", "distributions.png", "contact_sheet.png"}
    assert " - " in inspection_text(found)


def test_the_report(sound, tmp_path):
    save(sound / "masks/a.png", np.zeros(SHAPE, np.uint8))
    save(sound / "images/b.png", np.array(Image.open(sound / "images/b.png")).astype(np.uint16) * 257)
    found = inspect_folder(sound)
    assert write_inspection(tmp_path / "out/new", found) == ("contact_sheet.png", "distributions.png", "inspect.json")
    data = json.loads((tmp_path / "out/new/inspect.json").read_text())
    assert data["splits"]["train"]["bits"] == {"8": 1, "16": 1} and "std(background)" in data["formulas"]["scr"]
    assert data["findings"][0]["files"] == ["masks/a.png"]
    for name, size in (("distributions.png", (1300, 760)), ("contact_sheet.png", (1680, 325))):
        picture = Image.open(tmp_path / "out/new" / name).convert("RGB")
        assert picture.size == size and len(picture.getcolors(1 << 24)) > 50
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        write_inspection(tmp_path / "file/out", found)
    # 16 bits do not change shares of full scale.
    brightness = {record.name: record.brightness for record in found.records}
    assert 0.1 < brightness["b"] < 0.6


def test_a_failure_while_drawing_leaves_nothing(sound, tmp_path, monkeypatch):
    def fail(path, inspection):
        raise OSError("disk full")

    monkeypatch.setattr(inspect_pictures, "draw_contact_sheet", fail)
    with pytest.raises(OSError, match="disk full"):
        write_inspection(tmp_path / "out", inspect_folder(sound))
    assert not (tmp_path / "out").exists()


def test_the_sheet_shows_the_range(sound):
    records = inspect_folder(sound).records
    areas = [int(record.labels.areas[0]) for record in inspect_pictures.choose_images(records)]
    assert areas == [6, 9, 12, 15]
    assert [int(r.labels.areas[0]) for r in inspect_pictures.choose_images(records, 2, 0)] == [6, 15]
    square = np.zeros((3, 4), bool)
    square[1, 2:4] = True
    lines = {tuple(map(tuple, line)) for line in inspect_pictures.mask_outline(square).tolist()}
    assert lines == {
        ((2, 1), (2, 2)), ((4, 1), (4, 2)), ((2, 1), (3, 1)), ((3, 1), (4, 1)), ((2, 2), (3, 2)), ((3, 2), (4, 2)),
    }  # fmt: skip


def test_real_images(shared):
    """Counts that the publication states, and near duplicates that were found before."""
    found = inspect_folder(shared / "data/SIRST-v2", split="val_v1")
    numbers = as_data(found)["splits"]["val_v1"]
    assert (numbers["images"], numbers["targets"], numbers["bits"]) == (61, 71, {"8": 61})
    assert found.findings == ()


def test_wrong_arguments(sound, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        inspect_folder(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="no folder"):
        inspect_folder(tmp_path / "absent", "folder")
    with pytest.raises(ValueError, match="unknown layout 'coco'"):
        inspect_folder(sound, "coco")
    with pytest.raises(ValueError, match="no published split 'all'; there are test, train, val"):
        inspect_folder(sound, split="all")
    with pytest.raises(ValueError, match="between 0 and 1, got 99"):
        inspect_folder(sound, near=99)

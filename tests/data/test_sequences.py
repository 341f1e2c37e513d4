"""Data sets of sequences: folders of frames, files with several images, NUDT-MIRSDT; drawn whole."""

import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image

from irjax.data import layouts, open_source
from irjax.data.sources import DRAWN
from irjax.data.splits import DataConfig, open_splits
from irjax.errors import Note, UserError
from irjax.io.video import available, video_writer

SIZE = (20, 24)


def frame(number):
    """A background that is the same in all frames of a sequence, and a target that moves."""
    image = np.full(SIZE, 40, np.uint8)
    image[5, 3 + number] = 250
    return image


def target(number):
    mask = np.zeros(SIZE, np.uint8)
    mask[5, 3 + number] = 255
    return mask


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mat":
        scipy.io.savemat(path, {"Mix": values})
    elif values.ndim == 3:
        tifffile.imwrite(path, values, photometric="minisblack")
    else:
        Image.fromarray(values).save(path)


def mirsdt(root, sequences=range(1, 6), frames=4, kinds=("images", "Mix"), lists=()):
    """Makes a folder as NUDT-MIRSDT is published: of Mix, each file holds a frame after those before it."""
    for sequence in sequences:
        for number in range(1, frames + 1):
            folder, name = root / f"Sequence{sequence}", f"{number:05d}"
            if "images" in kinds:
                save(folder / f"images/{name}.png", frame(number))
            if "Mix" in kinds:
                before = [frame(max(number - back, 0)) for back in (4, 3, 2, 1, 0)]
                save(folder / f"Mix/{name}.mat", np.stack(before))
            save(folder / f"masks/{name}.png", target(number))
            save(folder / f"masks_centroid/{name}.png", target(number))
    for split, own in dict(lists).items():
        lines = [f"Sequence{sequence}/Mix/{number:05d}.mat" for sequence in own for number in range(1, frames + 1)]
        (root / f"{split}.txt").write_text("\n".join(lines))
    return root


@pytest.mark.parametrize("kinds", [("images", "Mix"), ("Mix",), ("images",)])
def test_nudt_mirsdt(tmp_path, kinds):
    root = mirsdt(tmp_path, kinds=kinds, lists={"train": (1, 2, 3, 5), "test": (4,)})
    assert layouts.detect_layout(root) == "sequences"
    assert layouts.list_splits(root) == ("test", "train", "trainval", "val")
    test = open_source(root, "test")
    assert test.names == tuple(f"Sequence4/{number:05d}" for number in range(1, 5))
    for number, example in enumerate(test, 1):
        np.testing.assert_array_equal(example.image, frame(number))
        np.testing.assert_array_equal(example.points, [[3 + number, 5]])
    train, val = (open_source(root, split) for split in ("train", "val"))
    assert len(train) == 12 and len(val) == 4 and len({name.partition("/")[0] for name in val.names}) == 1
    assert len(set(train.sequences.values())) == 3 and not set(train.sequences.values()) & set(val.sequences.values())


def test_without_lists_and_at_depth(tmp_path):
    for day in ("day1", "day2"):
        mirsdt(tmp_path / day, (1, 2), kinds=("images",))
    assert layouts.detect_layout(tmp_path) == "sequences"
    source = open_source(tmp_path, "all")
    assert len(source) == 16 and source.names[4] == "day1/Sequence2/00001"
    assert len(set(source.sequences.values())) == 4
    parts = [open_source(tmp_path, name) for name in ("train", "val")]
    assert [len(part) for part in parts] == [12, 4]


def test_lists_of_sequences(tmp_path):
    root = mirsdt(tmp_path, kinds=("images",))
    (root / "train.txt").write_text("Sequence1\nSequence3\n")
    (root / "val.txt").write_text("Sequence2/images\n")
    assert {name.partition("/")[0] for name in open_source(root, "train").names} == {"Sequence1", "Sequence3"}
    with pytest.raises(UserError, match=r"val\.txt, line 1: no image is called Sequence2/images"):
        open_source(root, "val")
    (root / "val.txt").write_text("Sequence2\n")
    train, val, about = open_splits(DataConfig(root=(str(root),)))
    assert len(train) == 8 and len(val) == 4 and about["train"]["sequences"] == 2


def nested(root, sequences=("1", "2", "3", "4", "5"), frames=4, form="{}({}).png"):
    for sequence in sequences:
        for number in range(1, frames + 1):
            for kind, values in (("images", frame(number)), ("masks", target(number))):
                save(root / kind / sequence / form.format(number, frames), values)
    return root


def test_folders_of_frames_below_images_are_drawn_whole(tmp_path):
    """As IRDST and IRSatVideo-LEO are laid out."""
    root = nested(tmp_path)
    (root / "img_idx").mkdir()
    lines = [f"/{sequence}/{number}(4)\n" for sequence in "1234" for number in range(1, 5)]
    (root / "img_idx/train_SET.txt").write_text("".join(lines))
    (root / "img_idx/test_SET.txt").write_text("5/1(4)\n")
    assert layouts.detect_layout(root) == "basicirstd"
    parts = {split: open_source(root, split) for split in ("train", "val", *DRAWN[:1])}
    assert [len(parts[split]) for split in ("train", "val")] == [12, 4]
    assert len({name.partition("/")[0] for name in parts["val"].names}) == 1
    for split in DRAWN:
        names = open_source(root, split).names
        own = {name.partition("/")[0] for name in names}
        assert not any({name.partition("/")[0] for name in open_source(root, other).names} & own
                       for other in DRAWN if other != split)  # fmt: skip


def test_video_idx_lists_sequences(tmp_path):
    root = nested(tmp_path, form="{:04d}.png")
    for folder, lists in {"video_idx": {"train_SET": "1\n2\n", "test_SET": "5\n"}, "img_idx": {"1": "0001\n"}}.items():
        (root / folder).mkdir()
        for name, text in lists.items():
            (root / folder / f"{name}.txt").write_text(text)
    assert open_source(root, "test").names == tuple(f"5/{number:04d}" for number in range(1, 5))
    assert [len(open_source(root, split)) for split in ("train", "val")] == [4, 4]


def test_classes_of_one_set_are_drawn_image_by_image(tmp_path):
    names = [f"sky/Misc_{number}" for number in range(0, 20, 2)] + [f"sea/Misc_{number}" for number in range(1, 20, 2)]
    for name in names:
        save(tmp_path / f"images/{name}.png", frame(1))
        save(tmp_path / f"masks/{name}.png", target(1))
    assert set(open_source(tmp_path, "val").names) == {"sky/Misc_8", "sea/Misc_3", "sea/Misc_13", "sea/Misc_17"}
    assert set(open_source(tmp_path, "draw_test").names) == {"sea/Misc_1", "sea/Misc_3", "sky/Misc_2", "sky/Misc_6"}
    assert open_source(tmp_path, "all").sequences == {}
    framed = open_source(tmp_path, "val", "sequences")  # said, it is so
    assert len({name.partition("/")[0] for name in framed.names}) == 1 and len(framed) == 10


def test_pages_are_examples_and_stay_together(tmp_path):
    for clip in "abc":
        save(tmp_path / f"images/{clip}.tif", np.stack([frame(number) for number in range(3)]))
    save(tmp_path / "masks/a.tif", np.stack([target(number) for number in range(3)]))
    save(tmp_path / "masks/b_mask.tif", np.stack([target(number) for number in range(3)]))
    for number in range(3):
        save(tmp_path / f"masks/c_{number + 1:04d}.png", target(number))
    source = open_source(tmp_path, "all")
    assert source.names == tuple(f"{clip}_{page:04d}" for clip in "abc" for page in (1, 2, 3))
    for index, example in enumerate(source):
        np.testing.assert_array_equal(example.image, frame(index % 3))
        np.testing.assert_array_equal(example.points, [[3 + index % 3, 5]])
    assert len({name[0] for name in open_source(tmp_path, "val").names}) == 1
    assert {name[0] for name in open_source(tmp_path, "draw_test").names} != set("abc")
    (tmp_path / "masks/c_0002.png").unlink()
    with pytest.raises(UserError, match=r"no mask for .*c\.tif, page 2"):
        open_source(tmp_path, "all")


def test_one_sequence_alone_is_not_cut(tmp_path):
    save(tmp_path / "images/a.tif", np.stack([frame(number) for number in range(6)]))
    save(tmp_path / "masks/a.tif", np.stack([target(number) for number in range(6)]))
    assert layouts.list_splits(tmp_path) == ("all",)
    with pytest.raises(UserError, match="no split 'val'; available: all; all is one sequence, of which no validation"):
        open_source(tmp_path, "val")


@pytest.mark.skipif(not available(), reason="needs imageio and imageio-ffmpeg, of the extra video")
def test_videos_with_masks_in_folders(tmp_path):
    for clip in "ab":
        (tmp_path / "images").mkdir(exist_ok=True)
        with video_writer(tmp_path / f"images/{clip}.mp4", 10) as write:
            for number in range(5):
                image = np.full((64, 64, 3), 60, np.uint8)
                image[20:24, 10 * number : 10 * number + 4] = 220
                write(image)
        for number in range(5):
            mask = np.zeros((64, 64), np.uint8)
            mask[20:24, 10 * number : 10 * number + 4] = 255
            save(tmp_path / f"masks/{clip}/{number + 1:05d}.png", mask)
    source = open_source(tmp_path, "all")
    assert source.names == tuple(f"{clip}_{page:04d}" for clip in "ab" for page in range(1, 6))
    for example in source:
        column, row = example.points[0].round().astype(int)
        assert example.image[row, column] > 180 and example.image.mean() < 90
    assert {name[0] for name in open_source(tmp_path, "val").names} in ({"a"}, {"b"})


def test_masks_without_a_frame_are_counted(tmp_path):
    root = mirsdt(tmp_path, (1, 2), kinds=("images",))
    (root / "Sequence2/images/00003.png").unlink()
    with pytest.warns(Note, match="1 masks have no image, such as 00003.png"):
        assert len(open_source(root, "all")) == 7


def test_a_folder_of_data_sets_is_no_data_set_of_sequences(tmp_path):
    for name in ("one", "two"):
        nested(tmp_path / name, ("",), form="{:04d}_{}.png")
        (tmp_path / name / "train.txt").write_text("0001_4\n")
    with pytest.raises(UserError, match="is in no known layout"):
        layouts.detect_layout(tmp_path)
    for name in ("three", "four"):
        for word in ("cloud", "sea"):
            save(tmp_path / f"b/{name}/images/{word}.png", frame(1))
            save(tmp_path / f"b/{name}/masks/{word}.png", target(1))
    with pytest.raises(UserError, match="is in no known layout"):
        layouts.detect_layout(tmp_path / "b")
    assert len(open_source(tmp_path / "b", "all", "sequences")) == 4

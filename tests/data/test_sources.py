import dataclasses
import pickle

import numpy as np
import pytest
from PIL import Image

from irjax import types
from irjax.data import sources
from irjax.data.splits import in_memory
from irjax.io import images


@dataclasses.dataclass(frozen=True)
class Memory:
    """Noise images in memory; `salt` tells data sets apart."""

    names: tuple[str, ...]
    salt: int = 0
    bits: int = 8

    @property
    def dtype(self):
        return np.dtype(np.uint8 if self.bits == 8 else np.uint16)

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        rng = np.random.default_rng([self.salt, index % len(self)])
        image = rng.integers(0, 2**self.bits, (16, 18)).astype(self.dtype)
        return types.Example(self.names[index], image, np.array([[2, 3]], np.float32))


def folder(root, names, salt):
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for index, name in enumerate(names):
        values = np.random.default_rng([salt, index]).integers(0, 255, (16, 18), dtype=np.uint8)
        Image.fromarray(values).save(root / "images" / f"{name}.png")
        Image.fromarray(np.zeros((16, 18), np.uint8)).save(root / "masks" / f"{name}.png")
    return sources.open_source(root, "all")


def test_concatenation(tmp_path):
    first, second, third = Memory(("a", "b")), Memory(("a",), salt=1, bits=16), folder(tmp_path, "xyz", 2)
    joined = sources.concatenate([first, second, third])
    assert isinstance(joined, types.Source)
    assert joined.names == ("a", "b", "a", "x", "y", "z") and len(joined) == 6
    assert [joined[i].name for i in range(-6, 6)] == list(joined.names) * 2
    np.testing.assert_array_equal(joined[2].image, second[0].image)
    assert joined.dtype == np.uint16
    copy = pickle.loads(pickle.dumps(joined))
    assert copy[5].name == "z" and copy == joined
    with pytest.raises(IndexError):
        joined[6]
    assert sources.concatenate([first]) is first
    with pytest.raises(ValueError, match="no source"):
        sources.concatenate([])
    with pytest.raises(ValueError, match="source 1 has the name b twice"):
        sources.concatenate([first, Memory(("b", "b"))])


@pytest.mark.parametrize("with_masks", [True, False])
def test_in_memory_every_example_is_read_once(with_masks):
    reads = []

    class Counted(Memory):
        def __getitem__(self, index):
            reads.append(index)
            example = super().__getitem__(index)
            return dataclasses.replace(example, mask=example.image > 100)

    kept = in_memory(Counted(("a", "b")), with_masks)
    assert isinstance(kept, types.Source) and kept.names == ("a", "b") and kept.dtype == np.uint8 and len(kept) == 2
    assert [kept[i].name for i in (0, 1, 0)] == ["a", "b", "a"] and sorted(reads) == [0, 1]
    assert (kept[0].mask is not None) == with_masks
    with pytest.raises(IndexError):
        kept[2]


def test_check_disjoint_by_name_and_content(tmp_path):
    sources.check_disjoint(Memory(("a", "b")), Memory(("c",), salt=1), by_content=True)
    with pytest.raises(ValueError, match="share 1 examples: b"):
        sources.check_disjoint(Memory(("a", "b")), Memory(("b", "c"), salt=1))
    # Two data sets may number their images alike; a copy of one is found by its pixels.
    one, other = folder(tmp_path / "one", "123", 1), folder(tmp_path / "other", "34", 2)
    sources.check_disjoint(one, other, by_content=True)
    copy = folder(tmp_path / "copy", "12", 1)
    with pytest.raises(ValueError, match="share 2 examples: 1, 2"):
        sources.check_disjoint(sources.concatenate([other, one]), copy)
    renamed = folder(tmp_path / "renamed", "AB", 1)
    sources.check_disjoint(one, renamed)
    with pytest.raises(ValueError, match="1 = A, 2 = B"):
        sources.check_disjoint(one, renamed, by_content=True)


def test_split_hash_depends_on_names_and_order():
    assert sources.split_hash(Memory(("a", "b"))) == sources.split_hash(Memory(("a", "b"), salt=9))
    hashes = {sources.split_hash(Memory(names)) for names in (("a", "b"), ("b", "a"), ("ab",), ("a", "b", "c"))}
    assert len(hashes) == 4


def test_open_source_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        sources.open_source(tmp_path / "absent", "train")
    with pytest.raises(ValueError, match="no prepared TFDS data set"):
        sources.open_source(tmp_path, "train", "tfds")


def test_drawn_splits_are_all_images_each_once(tmp_path):
    names = [f"{i:03d}" for i in range(40)]
    folder(tmp_path, names, 0)
    (tmp_path / "img_idx").mkdir()
    for split, part in (("train", names[:17]), ("test", names[20:])):  # three are in no list
        (tmp_path / "img_idx" / f"{split}_a.txt").write_text("\n".join(part))
    parts = [sources.open_source(tmp_path, split) for split in sources.DRAWN]
    assert [len(part) for part in parts] == [18, 12, 7] and all(isinstance(part, types.Source) for part in parts)
    drawn = [name for part in parts for name in part.names]
    assert sorted(drawn) == names[:17] + names[20:] and drawn != sorted(drawn)
    for part in parts:
        assert part.names == tuple(sorted(part.names)) and part[-1].name == part.names[-1] and part.dtype == np.uint8
        np.testing.assert_array_equal(part[0].image, images.read_image(tmp_path / "images" / f"{part.names[0]}.png"))
    sources.check_disjoint(*parts[:2])
    with pytest.raises(ValueError, match="share 18 examples"):
        sources.check_disjoint(parts[0], sources.open_source(tmp_path, "draw_train"))
    assert sources.open_source(tmp_path, "draw_test", seed=1).names != parts[2].names
    assert len(sources.open_source(tmp_path, "draw_test", shares=(1, 1, 2))) == 37 - 18
    with pytest.raises(ValueError, match="positive shares"):
        sources.open_source(tmp_path, "draw_val", shares=(50, 0, 50))
    with pytest.raises(ValueError, match="one would be empty"):
        sources.open_source(tmp_path, "draw_val", shares=(1000, 1, 1))


def test_drawn_splits_of_folders_that_number_their_images_alike(tmp_path):
    for split, salt in (("train", 1), ("test", 2)):
        folder(tmp_path / split, "0123456789", salt)
    drawn = [sources.open_source(tmp_path, split) for split in sources.DRAWN]
    names = sorted(name for part in drawn for name in part.names)
    assert names == sorted(f"{split}_images_{i}" for split in ("train", "test") for i in range(10))
    for part in drawn:
        for index, name in enumerate(part.names):
            split, _, number = name.split("_")
            file = tmp_path / split / "images" / f"{number}.png"
            np.testing.assert_array_equal(part[index].image, images.read_image(file))


def test_the_draw_of_nudt_sirst(shared):
    parts = [sources.open_source(shared / "data" / "NUDT-SIRST", split) for split in sources.DRAWN]
    assert [len(part) for part in parts] == [332, 198, 133]
    assert len({name for part in parts for name in part.names}) == 663


def test_published_splits_share_nothing_but_the_known_overlap(shared):
    root = shared / "data" / "SIRST-v2"
    train, val = (sources.open_source(root, split) for split in ("train_full", "val_full"))
    sources.check_disjoint(train, val)
    sources.check_disjoint(train, sources.open_source(root, "val_v1"))
    with pytest.raises(ValueError, match="share 54 examples"):
        sources.check_disjoint(sources.open_source(root, "train_v1"), val)


def test_data_sets_with_equal_names_are_told_apart(tmp_path):
    roots = [tmp_path / "one" / "set", tmp_path / "two" / "set", tmp_path / "other"]
    parts = []
    for number, root in enumerate(roots):
        for folder, value in (("images", 40 + number), ("masks", 255)):
            (root / folder).mkdir(parents=True)
            values = np.zeros((20, 24), np.uint8)
            values[3:5, 4:6] = value
            Image.fromarray(values).save(root / folder / "1.png")
        parts.append(sources.open_source(root, "all"))
    both = sources.concatenate(parts)
    assert both.names == ("1", "1", "1")
    apart = sources.told_apart(both)
    assert apart.names == ("set-1/1", "set-2/1", "other/1")
    assert [apart[index].image.max() for index in range(3)] == [40, 41, 42] and apart[2].name == "other/1"
    assert sources.told_apart(parts[0]) is parts[0]

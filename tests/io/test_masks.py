"""One rule for a set of masks, whatever levels their authors wrote."""

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from irjax.errors import UserError
from irjax.io.masks import MaskSet, levels_of, mask_rule, read_levels, read_mask
from irjax.ops.regions import find_regions

TARGETS = np.zeros((64, 64), bool)
TARGETS[29:32, 19:22] = TARGETS[11:14, 44:47] = True


@pytest.mark.parametrize(
    ("levels", "name", "targets"),
    [
        ([0, 1], "two levels, 0 and 1", [1]),
        ([0, 127], "two levels, 0 and 127", [127]),
        ([40, 90], "two levels, 40 and 90", [90]),
        ([0, 1, 2, 3], "instances 1 to 3", [1, 2, 3]),
        ([0, 1, 3], "above half of 3", [3]),
        ([0, 1, 127, 128, 255], "above half of 255", [128, 255]),
        ([0, 32767, 32768, 65535], "above half of 65535", [32768, 65535]),
        ([0, 0.25, 0.5, 0.75, 1], "above half of 1", [0.75, 1]),
        ([3, 4, 5], "above the middle of 3 and 5", [5]),
        ([0], "all 0: no targets", []),
    ],
)
def test_rules(levels, name, targets):
    rule = mask_rule(levels, "masks")
    assert rule.name == name
    assert [level for level in levels if rule.apply(np.array([level]))[0]] == targets


def test_one_level_is_no_mask():
    with pytest.raises(UserError, match="masks: every pixel of the masks is 255; background and target must be two"):
        mask_rule([255], "masks")


@given(st.sets(st.integers(0, 255), min_size=2))
def test_every_rule_has_targets_and_background_and_keeps_the_order(levels):
    found = mask_rule(levels, "masks").apply(np.array(sorted(levels)))
    assert not found[0] and found[-1] and (np.diff(found.astype(int)) >= 0).all()


def palette(colour):
    image = Image.fromarray(TARGETS.astype(np.uint8), mode="P")
    image.putpalette([0, 0, 0, *colour])
    return image


FORMS = {
    **{f"upper {value}": Image.fromarray(TARGETS.astype(np.uint8) * value) for value in (1, 100, 127, 255)},
    **{f"16 bits, {value}": Image.fromarray(TARGETS.astype(np.uint16) * value) for value in (1, 255, 65535)},
    "instances": Image.fromarray(TARGETS * (1 + (np.arange(64)[:, None] < 20)).astype(np.uint8)),
    "1 bit": Image.fromarray(TARGETS),
    "dark palette": palette((30, 0, 0)),
    "red palette": palette((128, 0, 0)),
    "red": Image.fromarray(TARGETS[..., None] * np.uint8([128, 0, 0])),
    "alpha ignored": Image.fromarray(np.dstack([TARGETS * np.uint8(255)] * 3 + [np.full((64, 64), 9, np.uint8)])),
    "alpha alone": Image.fromarray(np.dstack([*np.full((3, 64, 64), 255, np.uint8), TARGETS * np.uint8(255)])),
}


@pytest.mark.parametrize("form", sorted(FORMS))
def test_two_targets_in_every_form(tmp_path, form):
    FORMS[form].save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png")[0], TARGETS)


def test_a_mask_of_booleans_as_tifffile_writes_it(tmp_path):
    tifffile.imwrite(tmp_path / "mask.tif", TARGETS)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.tif")[0], TARGETS)


def test_a_white_palette_counts_by_its_gray_whatever_its_order(tmp_path):
    image = Image.fromarray((~TARGETS).astype(np.uint8), mode="P")
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png")[0], TARGETS)


def test_the_rule_is_that_of_the_set(tmp_path):
    """Two levels are clear; of more, whether one is a target or a border depends on what the other masks hold."""
    gray = np.where(TARGETS, 255, 0).astype(np.uint8)
    gray[28, 19:22] = 90
    Image.fromarray(gray).save(tmp_path / "a.png")
    Image.fromarray(np.where(TARGETS, 90, gray // 90).astype(np.uint8)).save(tmp_path / "b.png")
    Image.fromarray(np.where(TARGETS, 90, 0).astype(np.uint8)).save(tmp_path / "two.png")
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "c.png")
    both = MaskSet(tuple(str(tmp_path / name) for name in ("a.png", "b.png", "c.png", "two.png")))
    found = {name: both.read(tmp_path / name)[0] for name in ("a.png", "b.png", "c.png", "two.png")}
    np.testing.assert_array_equal(found["a.png"], TARGETS)
    np.testing.assert_array_equal(found["two.png"], TARGETS)
    assert not found["b.png"].any() and not found["c.png"].any() and both.rule.gray
    alone = MaskSet(tuple(str(tmp_path / name) for name in ("b.png", "c.png")))
    np.testing.assert_array_equal(alone.read(tmp_path / "b.png")[0], TARGETS)
    (tmp_path / "d.png").write_bytes(b"damaged")
    with_damage = MaskSet((*both.paths, str(tmp_path / "d.png")))
    assert not with_damage.read(tmp_path / "b.png")[0].any()
    with pytest.raises(UserError, match="d.png: not a readable image"):
        with_damage.read(tmp_path / "d.png")


def test_black_and_white_masks_need_no_other_file(tmp_path):
    Image.fromarray(TARGETS.astype(np.uint8) * 255).save(tmp_path / "a.png")
    assert MaskSet((str(tmp_path / "absent.png"),)).read(tmp_path / "a.png")[1].name == "two levels, 0 and 255"


def test_two_levels_of_a_lossy_file_may_be_noise(tmp_path):
    faint = np.zeros((64, 64), np.uint8)
    faint[10:20, 10:20] = 2
    Image.fromarray(faint).save(tmp_path / "a.jpg", quality=100)
    Image.fromarray(np.where(TARGETS, 255, 0).astype(np.uint8)).save(tmp_path / "b.jpg")
    both = MaskSet((str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")))
    assert not both.read(tmp_path / "a.jpg")[0].any() and both.read(tmp_path / "b.jpg")[0].any()


def test_colours_are_their_brightest_channel():
    assert levels_of(np.uint8([[[0, 76, 3]]])) == 76 and levels_of(np.uint8([[[5, 200]], [[7, 0]]]))[0] == 5


CASES = (
    "inst jpeg labelme_red128 onebit palette_dark palette_red128 palette_white rgba rgba_alpha_only tif8 tifbool "
    "tiff32f v1 v100 v127 v16_1 v16_255 v16_65535 v255"
)


@pytest.mark.parametrize("case", CASES.split())
def test_the_cases_of_users(shared, case):
    (path,) = (shared / "cases/mask_forms" / case / "masks").iterdir()
    centroids = find_regions(read_mask(path)[0]).centroids
    np.testing.assert_allclose(sorted(centroids.tolist()), [[20, 30], [45, 12]], atol=0.6)
    assert read_levels(path).shape == (64, 64)

"""What users bring, at random, against slow references: no wrong pairing, no undocumented error.

200 examples of each by default, 10,000 by ``pytest -m slow -k fuzz``.
"""

import contextlib
import fractions
import io
import math
import os
import re
import unittest.mock
import warnings

import hypothesis
import numpy as np
import pytest
import tifffile
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from irjax.errors import UserError
from irjax.io import images, masks, names
from irjax.io.images import Depth
from irjax.io.lists import Resolver, read_list

ROUNDS = [pytest.param(200, id="quick"), pytest.param(10_000, id="full", marks=pytest.mark.slow)]


@pytest.fixture(params=ROUNDS)
def fuzz(request):
    """``fuzz(check, NAME=STRATEGY, ...)`` calls the check with as many examples as the round has."""

    def run(check, **strategies):
        settings = hypothesis.settings(
            max_examples=request.param, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
        )
        settings(hypothesis.given(**strategies)(check))()

    return run


# --- names ------------------------------------------------------------------------------------------------------------

# Letters of all scripts, what is special to some system or program, and bytes that are no UTF-8 (surrogates).
SPECIAL = [
    "%",
    "%41",
    ".",
    "..",
    " ",
    "_",
    "_mask",
    "_gt",
    "_pred",
    "_pixels0",
    ".png",
    ".PNG",
    ".tar.gz",
    ":",
    "\\",
    "?",
]
LETTER = st.one_of(
    st.characters(exclude_characters="/\0", exclude_categories=("Cs",)),
    st.sampled_from([*SPECIAL, *"aAbB01()[]#&'\"*|<>~", "\udc80", "\udcff", "é", "e\u0301"]),
)
PART = st.lists(LETTER, min_size=1, max_size=5).map("".join)
PATH = st.lists(PART, min_size=1, max_size=3).map("/".join)


def is_name(text):
    """Whether a path is one that a folder of images can give: no other way to write the same place."""
    whole = os.fsdecode(os.fsencode(text)) == text  # bytes that are UTF-8 are shown as such
    return whole and text == names.posix(text) and not {"", ".", ".."} & set(text.split("/"))


NAME = PATH.filter(is_name)
ENDING = st.sampled_from([".png", ".bmp", ".tif", ".JPG", ".npy", ".pgm"])


def test_fuzz_what_is_written_is_read_and_matched(fuzz):
    def check(files):
        own = names.image_names(files)
        assert len(set(own)) == len(files)
        written = [names.file_of(name) for name in own]
        assert len(set(written)) == len(files)
        for name, file in zip(own, written, strict=True):
            assert names.name_of(file) == name
            assert not re.search(r'[<>:"|?*\\\x00-\x1f\ud800-\udfff]|[. ](/|$)', file) and is_name(file)
        # As maps, as file names of points, and as either without ending.
        for forms in ([f"{file}.png" for file in written], files, own):
            assert dict(names.match_names(forms, own).prediction_of) == dict(zip(own, forms, strict=True))

    file = st.tuples(NAME, ENDING).map("".join)
    fuzz(check, files=st.lists(file, min_size=1, max_size=5, unique=True))


def test_fuzz_names_of_other_programs_are_matched_once_or_refused(fuzz):
    """Folders joined or left out, suffixes, other cases: a pair agrees in its core, and is never given twice."""
    change = st.sampled_from(
        [
            lambda name: name.replace("/", "_"),
            lambda name: name.rpartition("/")[2],
            lambda name: name + "_Pred",
            str.upper,
            lambda name: "D:\\out\\" + name.replace("/", "\\"),
            lambda name: "x/" + name,
        ]
    )

    def check(own, others, changes):
        forms = [change(name) + ".png" for name, change in zip([*own, *others], changes, strict=False)]
        forms = list(dict.fromkeys(forms))
        with contextlib.suppress(UserError):
            found = names.match_names(forms, own)
            assert set(found.prediction_of) <= set(own)
            assert len(set(found.prediction_of.values())) == len(found.prediction_of)
            assert {*found.prediction_of.values(), *found.unknown} == set(forms)
            assert {*found.prediction_of, *found.without_prediction} == set(own)
            for name, form in found.prediction_of.items():
                whole = names.posix(form).casefold()
                joined = names.without_ending(name).replace("/", "_").casefold()
                assert names.core(name).casefold() in whole or joined in whole or names.name_of(whole) != whole

    fuzz(
        check,
        own=st.lists(NAME, min_size=1, max_size=4, unique=True),
        others=st.lists(NAME, max_size=2),
        changes=st.lists(change, min_size=6, max_size=6),
    )


# --- lines of lists ---------------------------------------------------------------------------------------------------

LINE_LETTER = st.one_of(
    st.characters(codec="utf-8", exclude_characters="/\\:", exclude_categories=("Cs", "Cc", "Zl", "Zp")),
    st.sampled_from([*"aAbB01_#-,; ", ".png", ".txt", "_mask", "a.", "images"]),
)
LINE_PART = st.lists(LINE_LETTER, min_size=1, max_size=4).map("".join)
LINE_NAME = (
    st.lists(LINE_PART.filter(lambda part: part.strip() == part and part.strip(". ")), min_size=1, max_size=3)
    .map("/".join)
    .filter(is_name)
)
BEFORE = st.sampled_from(["", "./", "images/", "D:/set/", "/", "../x/"])


@st.composite
def listings(draw):
    """Names of images, and lines, each with the images that its author means (and perhaps their masks)."""
    known = draw(st.lists(LINE_NAME, min_size=1, max_size=5, unique=True))
    lines = []
    for _ in range(draw(st.integers(1, 4))):
        chosen = draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
        form = draw(st.sampled_from(["name", "file", "pair", "several"]))
        chosen = chosen if form == "several" else chosen[:1]
        ending = draw(st.sampled_from([".png", ".PNG", ".bmp", ".npy"]))
        texts = [draw(BEFORE) + name + ending * (form != "name") for name in chosen]
        if form == "pair":
            texts.append(f"masks/{chosen[0]}{draw(st.sampled_from(['.png', '_mask.png', '.mat']))}")
        if form == "several":
            texts = [name + ending for name in chosen]
        line = draw(st.sampled_from([" ", ",", ", ", ";", "\t"])).join(texts)
        lines.append((line.replace("/", "\\") if draw(st.booleans()) else line, tuple(chosen)))
    return known, lines, draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]))


def test_fuzz_no_line_of_a_list_is_paired_wrongly(fuzz, tmp_path):
    """A line means what its author means, or is a problem with its number, or a comment."""
    path = tmp_path / "list.txt"

    def check(listing):
        known, lines, encoding = listing
        suffixed = {name + suffix: name for name in known for suffix in ("", "_mask")}
        hypothesis.assume(len(suffixed) == 2 * len(known))
        for number, (line, meant) in enumerate(lines, 1):
            path.write_bytes(("\n" * (number - 1) + line + "\n").encode(encoding))
            try:
                found = read_list(path, Resolver(known), Resolver(suffixed))
            except UserError as error:
                assert str(error).startswith(f"{path}: not a text file")  # UTF-16 without its mark, and not ASCII
                continue
            if found.problems:
                assert len(found.names) == 1 and f"{path}, line {number}: " in found.problems[found.names[0]]
            elif found.names or not line.startswith("#"):
                assert found.names == meant
                assert {image: suffixed[mask] for image, mask in found.masks.items()}.items() <= {
                    (name, name) for name in meant
                }

    fuzz(check, listing=listings())


# --- depths -----------------------------------------------------------------------------------------------------------

KINDS = [np.bool_, *(np.dtype(kind) for kind in "u1 u2 u4 i1 i2 i4 i8 f2 f4 f8".split())]


SIDE = st.integers(1, 4)


def stored(kind, side=SIDE):
    """Arrays of one type, of a few values: any, or such as cameras give."""
    kind = np.dtype(kind)
    if kind.kind == "f":
        numbers = st.floats(allow_nan=False, allow_infinity=False, width=8 * kind.itemsize)
        few = st.floats(-10, 300, width=8 * kind.itemsize)
    elif kind.kind == "b":
        numbers = few = st.booleans()
    else:
        low, high = int(np.iinfo(kind).min), int(np.iinfo(kind).max)
        numbers, few = st.integers(low, high), st.integers(max(low, -300), min(high, 5000))
    values = st.lists(st.one_of(few, numbers), min_size=1, max_size=6)
    return st.builds(lambda values, *shape: np.resize(np.array(values, kind), shape), values, side, side)


LIMIT = st.floats(-1e6, 1e6, allow_nan=False)
DEPTH = st.one_of(
    st.just(Depth()),
    st.integers(1, 16).map(lambda bits: Depth(bits=bits)),
    st.tuples(LIMIT, LIMIT).filter(lambda ends: ends[0] < ends[1]).map(lambda ends: Depth(range=ends)),
    st.sampled_from([Depth(stretch="minmax"), Depth(stretch="percentile")]),
)


def percentile(values, share):
    """By the definition: linear between the two values beside the place, exactly."""
    values = sorted(map(fractions.Fraction, values))
    place = fractions.Fraction(share) / 100 * (len(values) - 1)
    first = math.floor(place)
    second = min(first + 1, len(values) - 1)
    return values[first] + (values[second] - values[first]) * (place - first)


def exact_depth(depth, values):
    """Returns the type and the exact level of each stored value, by docs/formats.md; None where it is refused."""
    kind, flat = values.dtype, values.reshape(-1).tolist()
    if kind == np.bool_:
        return np.uint8, [255 * value for value in flat]
    fits = kind == np.int32 and min(flat) >= 0 and max(flat) <= 65535
    plain = kind in (np.uint8, np.uint16) or fits
    if not (depth.range or depth.stretch):
        if not plain:
            return None
        if kind == np.uint8:
            return np.uint8, flat
        if depth.bits in (0, 16):
            return np.uint16, flat
    if depth.range:
        low, high = map(fractions.Fraction, depth.range)
    elif depth.stretch == "percentile":
        low, high = percentile(flat, 0.1), percentile(flat, 99.99)
    elif depth.stretch:
        low, high = fractions.Fraction(min(flat)), fractions.Fraction(max(flat))
    else:
        low, high = fractions.Fraction(0), fractions.Fraction(2**depth.bits - 1)
        if max(flat) > high:
            return None
    if low == high:
        return np.uint16, [0] * len(flat)
    return np.uint16, [min(max((fractions.Fraction(v) - low) / (high - low), 0), 1) * 65535 for v in flat]


def test_fuzz_depths_are_what_the_documentation_says(fuzz):
    def check(values, depth):
        wanted = exact_depth(depth, values)
        if wanted is None:
            with pytest.raises(UserError, match=r"^where: "):
                depth.apply(values, "where")
            return
        found = depth.apply(values, "where")
        assert found.dtype == wanted[0] and found.shape == values.shape
        spread = np.ptp(values.astype(np.float64)) if values.dtype.kind == "f" else 1
        for level, exact in zip(found.reshape(-1).tolist(), wanted[1], strict=True):
            # Doubles hold the limits and their difference to 16 digits, which may be few of a small difference.
            slack = 65535 * 1e-15 * float(max(map(abs, values.reshape(-1).tolist()), default=0)) / (spread or 1)
            assert abs(level - exact) <= 0.5 + 1e-6 + (slack if depth.stretch else 65535 * 1e-9)

    fuzz(check, values=st.sampled_from(KINDS).flatmap(stored), depth=DEPTH)


def encoded(values, form):
    data = io.BytesIO()
    if form == "npy":
        np.save(data, values)
    elif form == "tif":
        tifffile.imwrite(data, values, photometric="minisblack")
    else:
        Image.fromarray(values).save(data, format={"pgm": "PPM"}.get(form, form))
    return data.getvalue()


FORMS = {
    "png": "u1 u2",
    "pgm": "u1 u2",
    "bmp": "u1",
    "tif": "u1 u2 u4 i1 i2 i4 f2 f4 f8",
    "npy": "u1 u2 u4 i2 i8 f4 f8",
}
FILES = st.sampled_from([(form, kind) for form, kinds in FORMS.items() for kind in kinds.split()]).flatmap(
    lambda one: st.tuples(st.just(one[0]), stored(one[1], st.integers(16, 18)))
)


def test_fuzz_files_of_every_type_are_read_at_their_depth(fuzz):
    def check(file, depth):
        form, values = file
        data = encoded(values, form)
        np.testing.assert_array_equal(images.decode(data, "where"), values)
        try:
            found = images.decode_image(data, "where", depth)
        except UserError as error:
            assert str(error).startswith("where: ")
            with pytest.raises(UserError):
                depth.apply(values, "where")
        else:
            np.testing.assert_array_equal(found, depth.apply(values, "where"))

    fuzz(check, file=FILES, depth=DEPTH)


# --- masks ------------------------------------------------------------------------------------------------------------

LEVELS = st.one_of(
    st.sampled_from([(0, 255), (0, 1), (0, 127), (0, 1, 2, 3), (0, 100, 255), (7,), (0,), (5, 6, 7), (254, 255)]),
    st.lists(st.integers(0, 255), min_size=1, max_size=4).map(tuple),
)
MASK_KINDS = st.sampled_from([np.uint8, np.uint16, np.int16, np.float32, np.bool_])


@st.composite
def mask_sets(draw):
    """{file: levels [H, W]}; files of lossy formats among them, and some that cannot be read (None)."""
    found = {}
    for number in range(draw(st.integers(1, 4))):
        kind, levels = draw(MASK_KINDS), draw(LEVELS)
        if kind in (np.uint16, np.int16) and draw(st.booleans()):
            levels = tuple(100 * level for level in levels)
        if kind == np.float32:
            levels = (
                *(level / 255 for level in levels),
                *draw(st.lists(st.sampled_from([np.nan, np.inf]), max_size=1)),
            )
        shape = draw(arrays.array_shapes(min_dims=2, max_dims=2, max_side=3))
        values = draw(arrays.arrays(object, shape, elements=st.sampled_from(levels), fill=st.nothing()))
        name = f"{number}{draw(st.sampled_from(['.png', '.JPG', '.webp'] if kind == np.uint8 else ['.tif']))}"
        found[name] = None if draw(st.integers(0, 9)) == 0 else values.astype(kind)
    return found


def said_rule(path, files):
    """Returns the target pixels of one file by the table of docs/formats.md, pixel by pixel; None if it is refused."""
    values = files[path].astype(float)
    own = sorted({value for value in values.reshape(-1).tolist() if math.isfinite(value)})
    every = {float(value) for one in files.values() if one is not None for value in one.reshape(-1)}
    every = sorted(value for value in every if math.isfinite(value))
    if not own:
        return None
    lossy = path.lower().endswith((".jpg", ".webp"))
    if files[path].dtype == np.bool_ or (not lossy and own == [0]):
        return (values > 0.5) & np.isfinite(values)
    if not lossy and len(own) == 2:
        return values == own[1]
    if every == [0]:
        return np.zeros(values.shape, bool)
    if len(every) < 2:
        return None
    if len(every) == 2:
        return values == every[1]
    if every == list(range(len(every))):
        limit = 0
    else:
        limit = max(every) / 2 if 2 * min(every) <= max(every) else (min(every) + max(every)) / 2
    return np.array([[math.isfinite(value) and value > limit for value in row] for row in values.tolist()])


@pytest.mark.filterwarnings("ignore:.*pixels of masks without data are background")
def test_fuzz_masks_follow_the_table_of_the_documentation(fuzz):
    def check(files):
        def read(path):
            if files[str(path)] is None:
                raise UserError(f"{path}: not a readable image file")
            return masks.levels_of(files[str(path)], path)

        found = masks.MaskSet(tuple(files))
        with unittest.mock.patch.object(masks, "read_levels", read):
            for path, levels in files.items():
                wanted = None if levels is None else said_rule(path, files)
                if wanted is None:
                    with pytest.raises(UserError):
                        found.read(path)
                    continue
                mask, rule = found.read(path)
                np.testing.assert_array_equal(mask, wanted)
                assert mask.dtype == bool and rule.name

    fuzz(check, files=mask_sets())


def test_fuzz_two_targets_are_found_in_every_form_of_a_file(fuzz):
    """One mask as files of any two levels, palettes, alpha and colours: its target is the upper level."""

    def check(target, low, high, form):
        low, high = sorted((low, high))
        hypothesis.assume(low < high and target.any() and not target.all())
        levels = np.where(target, high, low).astype(np.uint8)
        if form == "palette":
            image = Image.fromarray(target.astype(np.uint8), mode="P")
            image.putpalette([low, low // 2, 0, high, high // 3, 0])
        elif form == "alpha":
            image = Image.fromarray(np.dstack([np.full((*levels.shape, 3), 40, np.uint8), levels]))
        elif form == "colour":
            image = Image.fromarray(np.dstack([levels, levels // 2, levels // 3]))
        else:
            image = Image.fromarray(levels.astype(np.uint16) * 257 if form == "16 bits" else levels)
        data = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            image.save(data, format="PNG")
        np.testing.assert_array_equal(masks.decode_mask(data.getvalue(), "where")[0], target)

    fuzz(
        check,
        target=arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=5)),
        low=st.integers(0, 255),
        high=st.integers(0, 255),
        form=st.sampled_from(["gray", "16 bits", "palette", "alpha", "colour"]),
    )

"""Draws: of single images as they have always been, to the name; of sequences whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irjax.data.draws import carve_validation, draw_splits, units
from irjax.errors import UserError

NAMES = [f"n{number}" for number in range(30)]
CLASSES = [f"sky/Misc_{number}" for number in range(0, 20, 2)] + [f"sea/Misc_{number}" for number in range(1, 20, 2)]


def test_draws_of_single_images_are_those_that_were_published():
    assert carve_validation(NAMES, 0.2, 3)[1] == ("n2", "n3", "n6", "n7", "n11", "n27")
    assert carve_validation(CLASSES, 0.2, 0)[1] == ("sky/Misc_8", "sea/Misc_3", "sea/Misc_13", "sea/Misc_17")
    assert carve_validation(CLASSES, 0.2, 5, {})[1] == ("sky/Misc_6", "sea/Misc_5", "sea/Misc_9", "sea/Misc_15")
    assert draw_splits(NAMES, (50, 30, 20), 1)[2] == ("n19", "n20", "n29", "n3", "n5", "n9")
    assert draw_splits(CLASSES, (50, 30, 20), 0, {})[2] == ("sea/Misc_1", "sea/Misc_3", "sky/Misc_2", "sky/Misc_6")


@given(st.lists(st.integers(1, 9), min_size=3, max_size=12), st.integers(0, 5), st.integers(0, 99))
def test_a_sequence_is_on_one_side(lengths, stills, seed):
    sequences = {f"s{number}/{frame}": f"s{number}" for number, length in enumerate(lengths) for frame in range(length)}
    names = [*sequences, *(f"still{number}" for number in range(stills))]
    for parts in (
        carve_validation(names, 0.3, seed, sequences),
        draw_splits(names, (50, 50), seed, sequences) if len(set(lengths)) == 1 else (names,),
    ):
        assert sorted(name for part in parts for name in part) == sorted(names)
        sides = [{sequences.get(name, name) for name in part} for part in parts]
        assert sum(map(len, sides)) == len(units(names, sequences))
    train, val = carve_validation(names[::-1], 0.3, seed, sequences)
    assert set(val) == set(carve_validation(names, 0.3, seed, sequences)[1]) and train and val
    # No other number of the drawn sequences would have come closer, by more than the longest of them.
    assert abs(len(val) - 0.3 * len(names)) <= max(lengths)


def test_what_cannot_be_drawn():
    one = {name: "s" for name in NAMES}
    with pytest.raises(UserError, match="no validation split can be carved from the 30 frames of one sequence"):
        carve_validation(NAMES, sequences=one)
    two = {name: name[-1] > "4" for name in NAMES}
    with pytest.raises(UserError, match=r"30 images in 2 sequences cannot be split into parts of \(50, 30, 20\)"):
        draw_splits(NAMES, (50, 30, 20), 0, two)
    assert np.array_equal(sorted(map(len, units(NAMES, two))), [15, 15])

import pytest

from irjax.io.names import match_names


def test_names_with_and_without_folder_ending_and_suffix():
    images = ("Misc_1", "Misc_11", "XDU0", "000001", "v1.5_scene")
    given = [
        "out/Misc_1.png",
        "Misc_11_pixels0.png",
        "XDU0_mask.TIFF",
        "v1.5_scene.npy",
        "C:\\x\\000001.bmp",
        "other.png",
    ]
    matched = match_names(given, images)
    assert dict(matched.prediction_of) == dict(zip(
        ("Misc_1", "Misc_11", "XDU0", "v1.5_scene", "000001"), given[:5], strict=True))  # fmt: skip
    assert matched.unknown == ("other.png",) and matched.without_prediction == ()


def test_the_whole_name_comes_first():
    matched = match_names(["a/1.png", "b/1.png"], ("a/1.png", "b/1.png", "c"))
    assert dict(matched.prediction_of) == {"a/1.png": "a/1.png", "b/1.png": "b/1.png"}
    assert matched.without_prediction == ("c",)


def test_ambiguity_is_refused():
    with pytest.raises(ValueError, match="'1.png' could belong to several images: a/1.png, b/1.png"):
        match_names(["1.png"], ("a/1.png", "b/1.png"))
    with pytest.raises(ValueError, match="image '1' has two predictions: '1.png' and '1.bmp'"):
        match_names(["1.png", "1.bmp"], ("1",))

"""SIRST-Aug: SIRST-v1, cropped and augmented."""

from irjax.datasets import base


class Builder(base.IrstdBuilder):
    """SIRST-Aug, 9,070 augmented crops of SIRST-v1 of 256x256.

    The folders are those that utils/data.py of github.com/Tianfang-Zhang/AGPCNet reads. Training and test images use
    the same numbers, so names are unique only within a split.
    """

    LAYOUTS = ("split_folders",)
    INSIDE = ("sirst_aug",)
    HOMEPAGE = "https://github.com/Tianfang-Zhang/AGPCNet"
    FOLDER = "trainval/images/NAME.png, trainval/masks/NAME.png, test/images/NAME.png and test/masks/NAME.png"
    PUBLISHED = {"": {"train+validation": 8525, "test": 545}}

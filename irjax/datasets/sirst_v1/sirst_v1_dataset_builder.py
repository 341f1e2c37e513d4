"""SIRST-v1, also called NUAA-SIRST: real infrared frames with small targets."""

from irjax.datasets import base


class Builder(base.IrstdBuilder):
    """SIRST-v1 (NUAA-SIRST), 427 real frames.

    The lists in idx_427 and the mask names are those of github.com/YimianDai/sirst (256, 85 and 86 names there); the
    lists of 213 and 214 names are in img_idx of XinyiYing/BasicIRSTD's archive and in 50_50 of
    YeRen123455/Infrared-Small-Target-Detection.
    """

    BUILDER_CONFIGS = [
        base.IrstdConfig(name="own", description="256/85/86: the publication's own lists.", layouts=("lists",)),
        base.IrstdConfig(
            name="basicirstd",
            description="213/214: the lists of DNANet and BasicIRSTD.",
            lists=("", "_50_50"),
            layouts=("basicirstd", "lists"),
        ),
    ]
    HOMEPAGE = "https://github.com/YimianDai/sirst"
    FOLDER = (
        "images/NAME.png and masks/NAME_pixels0.png with idx_427/{train,val,test}.txt or, for the configuration "
        "basicirstd, images and masks with img_idx/{train,test}_NUAA-SIRST.txt or 50_50/{train,test}.txt"
    )
    PUBLISHED = {
        "own": {"train": 256, "validation": 85, "test": 86},
        "basicirstd": {"train+validation": 213, "test": 214},
    }

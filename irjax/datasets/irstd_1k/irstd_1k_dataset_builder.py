"""IRSTD-1K: real infrared frames with targets of many shapes."""

from irjax.datasets import base


class Builder(base.IrstdBuilder):
    """IRSTD-1K, 1,001 real frames of 512x512.

    The folder names are those of utils1/dataset_IRSTD1K.py in ISNet's code, as kept by XinyiYing/BasicIRSTD; the list
    of 800 names is IRSTD-1k/trainval.txt of github.com/RuiZhang97/ISNet. No repository was found that publishes a 50:50
    split of this set itself; the folder 50_50 is DNANet's convention, in which others redistribute it.
    """

    BUILDER_CONFIGS = [
        base.IrstdConfig(
            name="80_20",
            description="800/201: the publication's own lists.",
            lists=("", "_80_20"),
            layouts=("basicirstd", "lists"),
        ),
        base.IrstdConfig(
            name="50_50", description="Half and half, from the folder 50_50.", lists=("_50_50",), layouts=("lists",)
        ),
    ]
    HOMEPAGE = "https://github.com/RuiZhang97/ISNet"
    FOLDER = (
        "IRSTD1k_Img/XDU0.png and IRSTD1k_Label/XDU0.png (or images and masks) with trainval.txt and test.txt beside "
        "them, in 80_20 or in 50_50, or with img_idx/{train,test}_IRSTD-1K.txt"
    )
    PUBLISHED = {"80_20": {"train+validation": 800, "test": 201}, "50_50": {"train+validation+test": 1001}}

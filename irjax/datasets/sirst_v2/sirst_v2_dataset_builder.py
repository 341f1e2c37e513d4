"""SIRST-v2: real infrared images with small targets, and backgrounds without."""

from irjax.datasets import base


class Builder(base.IrstdBuilder):
    """SIRST-v2, 1,024 real frames, backgrounds without targets included.

    The configuration selects the published lists that define the splits. Layout and lists are those of
    github.com/YimianDai/open-sirst-v2.
    """

    BUILDER_CONFIGS = [
        base.IrstdConfig(
            name="full", description="All of SIRST-v2, backgrounds without targets included.", lists=("_full",)
        ),
        base.IrstdConfig(
            name="v1", description="The part that was published before as SIRST or NUAA-SIRST.", lists=("_v1",)
        ),
    ]
    LAYOUTS = ("sirst_v2",)
    HOMEPAGE = "https://github.com/YimianDai/open-sirst-v2"
    FOLDER = (
        "images/targets/NAME.png, images/backgrounds/NAME.png, annotations/masks/NAME_pixels0.png and "
        "splits/{train,val,test}_full.txt"
    )
    PUBLISHED = {"full": {"train+validation+test": 1024}, "v1": {"train+validation+test": 427}}

"""The data of MDvsFA cGAN, also called NUST-SIRST or MFIRST: composed scenes for training, real frames for the test."""

from irjax.datasets import base


class Builder(base.IrstdBuilder):
    """The data of MDvsFA cGAN (NUST-SIRST), 10,000 training patches of 128x128 and 100 test frames.

    The folders are named as in the README of github.com/wanghuanphd/MDvsFA_cGAN, the files and the 128 pixels as in
    its demo_MDvsFA_pytorch.py: 000000_1.png is a training image, 000000_2.png its mask.

    Note:
      The masks are said to be drawn by two annotators. The published code reads one mask per image, and no file name of
      a second one was found, so there is one mask per image here.
    """

    LAYOUTS = ("mdfa",)
    INSIDE = ("data",)
    HOMEPAGE = "https://github.com/wanghuanphd/MDvsFA_cGAN"
    FOLDER = "training/000000_1.png (image), training/000000_2.png (mask), test_org/00000.png and test_gt/00000.png"
    PUBLISHED = {"": {"train+validation": 10000, "test": 100}}

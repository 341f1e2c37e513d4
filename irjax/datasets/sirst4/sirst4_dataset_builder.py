"""SIRST4: SIRST-v2, NUDT-SIRST and IRSTD-1K as one set, as SPIRE uses it."""

from irjax.datasets import base


class Builder(base.IrstdBuilder):
    """SIRST4, 3,352 images: SIRST-v2, which contains SIRST-v1, with NUDT-SIRST and IRSTD-1K.

    The counts are those of arXiv 2604.05363. Its code reads images, annotations/annotations.json and
    img_idx/{train,test}.txt; a prepared data set has masks as well, so a folder masks is also required.
    """

    LAYOUTS = ("basicirstd", "lists")
    HOMEPAGE = "https://arxiv.org/abs/2604.05363"
    FOLDER = "the images of the three publications in images, their masks in masks, and img_idx/{train,test}.txt"
    PUBLISHED = {"": {"train+validation": 2285, "test": 1067}}

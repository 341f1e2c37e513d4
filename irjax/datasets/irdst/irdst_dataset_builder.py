"""IRDST, the real part: frames of infrared sequences with one or more moving targets."""

from irjax.datasets import base


class Builder(base.IrstdBuilder):
    """IRDST, its 40,650 real frames; the simulated part is left out.

    Published with github.com/sun11999/RDIAN. Public converters of the download read the folders images, boxes and
    masks, each with train and test; img_idx/{train,test}_IRDST-real.txt, with names such as /41/1(297), is the split of
    github.com/XinyiYing/BasicIRSTD.
    """

    LAYOUTS = ("split_folders", "basicirstd")
    INSIDE = ("IRDST_real",)
    HOMEPAGE = "http://xzbai.buaa.edu.cn/datasets.html"
    FOLDER = (
        "IRDST_real/images/{train,test}/NAME.png and IRDST_real/masks/{train,test}/NAME.png, or images/41/1(297).*, "
        "masks/41/1(297).* and img_idx/{train,test}_IRDST-real.txt"
    )
    PUBLISHED = {"": {"train+validation+test": 40650}}

"""NUDT-SIRST: simulated targets on real infrared backgrounds."""

from irjax.datasets import base


class Builder(base.IrstdBuilder):
    """NUDT-SIRST, 1,327 images with simulated targets.

    If there is no validation list, one is carved from the train list. Lists in 50_50 are those of
    github.com/YeRen123455/Infrared-Small-Target-Detection, lists in img_idx those of XinyiYing/BasicIRSTD.
    """

    LAYOUTS = ("basicirstd", "lists")
    LISTS = ("", "_50_50")
    HOMEPAGE = "https://github.com/YeRen123455/Infrared-Small-Target-Detection"
    FOLDER = "images/NAME.png, masks/NAME.png and img_idx/{train,test}_NUDT-SIRST.txt or 50_50/{train,test}.txt"
    PUBLISHED = {"": {"train+validation": 663, "test": 664}}

"""NUDT-SIRST: simulated targets on real infrared backgrounds."""

from irjax.datasets import base


class Builder(base.IrstdBuilder):
    """Builder of NUDT-SIRST; where the publication has no validation list, one is carved from its train list."""

    LAYOUT = "basicirstd"
    HOMEPAGE = "https://github.com/YeRen123455/Infrared-Small-Target-Detection"
    PUBLISHED = {"": {"train+validation": 663, "test": 664}}

"""SIRST-UAVB: real infrared frames of drones and birds."""

from irjax.datasets import base


class Builder(base.IrstdBuilder):
    """SIRST-UAVB, 3,000 real frames with drones and birds; masks are JPEG files.

    Published by github.com/JN-Yang/PConv-SDloss-Data. That repository does not show its folders; those given here are
    read by a public script that converts the download to PNG. SPIRE's code trains on a version with drones only and
    with points in annotations/annotations.json, which the layout `spire` reads; with masks, it can be built here too.
    """

    LAYOUTS = ("sirst_uavb", "basicirstd", "lists")
    INSIDE = ("SIRST-UAVB",)
    HOMEPAGE = "https://github.com/JN-Yang/PConv-SDloss-Data"
    FOLDER = (
        "images/all/ID.jpg, masks/ID.jpg, train.txt and val.txt (the 600 images that papers test on), or "
        "images/ID.png, masks/ID_mask.png and img_idx/{train,test}.txt"
    )
    PUBLISHED = {"": {"train+validation": 2400, "test": 600}}

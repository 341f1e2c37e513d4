"""SIRST-UAVB: real infrared frames of drones and birds."""

from irjax.datasets import base


class Builder(base.IrstdBuilder):
    """SIRST-UAVB, 3,000 real frames with drones and birds; masks are JPEG files.

    Published by github.com/JN-Yang/PConv-SDloss-Data. That repository does not show its folders; they are stated as a
    public script reads them that converts the download to PNG. SPIRE's code trains on a form of it with drones alone,
    with points in annotations/annotations.json, which the layout `spire` reads; with masks it builds here too.
    """

    LAYOUTS = ("sirst_uavb", "basicirstd", "lists")
    INSIDE = ("SIRST-UAVB",)
    HOMEPAGE = "https://github.com/JN-Yang/PConv-SDloss-Data"
    FOLDER = (
        "images/all/ID.jpg, masks/ID.jpg, train.txt and val.txt (the 600 images that papers test on), or "
        "images/ID.png, masks/ID_mask.png and img_idx/{train,test}.txt"
    )
    PUBLISHED = {"": {"train+validation": 2400, "test": 600}}

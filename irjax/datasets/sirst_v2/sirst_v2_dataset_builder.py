"""SIRST-v2: real infrared images with small targets, and backgrounds without."""

import tensorflow_datasets as tfds

from irjax.datasets import base


class Builder(base.IrstdBuilder):
    """Builder of SIRST-v2; the configuration chooses which published lists are the splits."""

    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="full", description="All of SIRST-v2, backgrounds without targets included."),
        tfds.core.BuilderConfig(name="v1", description="The part that was published before as SIRST or NUAA-SIRST."),
    ]
    LAYOUT = "sirst_v2"
    HOMEPAGE = "https://github.com/YimianDai/open-sirst-v2"
    SPLITS = {"train": "train_{config}", "validation": "val_{config}", "test": "test_{config}"}
    PUBLISHED = {"full": {"train+validation+test": 1024}, "v1": {"train+validation+test": 427}}

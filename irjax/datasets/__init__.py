"""TFDS builders of published data sets, one folder each by TFDS's convention; `build.build` prepares them."""

"""TFDS builders of published data sets, one folder each in TFDS's own convention; `build.build` prepares them."""

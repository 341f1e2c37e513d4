"""Studies of methods and data, as opposed to measurements of detectors."""

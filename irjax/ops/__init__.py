"""Functions of arrays: letterboxing, normalisation, peaks, regions."""

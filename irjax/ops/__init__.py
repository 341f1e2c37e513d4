"""Arrays in, arrays out: letterboxing, normalisation, peaks, regions."""

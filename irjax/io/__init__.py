"""Reads and writes files: images, maps, coordinates and labels. Each format has one reader and one writer."""

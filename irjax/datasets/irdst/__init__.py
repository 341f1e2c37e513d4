"""IRDST, the real part."""

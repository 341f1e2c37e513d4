"""SIRST4."""

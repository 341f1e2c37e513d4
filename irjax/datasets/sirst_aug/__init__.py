"""SIRST-Aug."""

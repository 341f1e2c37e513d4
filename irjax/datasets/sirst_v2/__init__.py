"""SIRST-v2, with SIRST-v1 (NUAA-SIRST) inside it."""

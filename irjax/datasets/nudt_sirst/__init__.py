"""NUDT-SIRST."""

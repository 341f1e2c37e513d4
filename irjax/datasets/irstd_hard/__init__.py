"""IRSTD-Hard."""

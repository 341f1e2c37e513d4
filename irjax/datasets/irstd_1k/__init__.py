"""IRSTD-1K."""

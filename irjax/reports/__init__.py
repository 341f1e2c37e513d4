"""Output for people: tables, curves, overlays and HTML pages."""

"""What people look at: tables, curves, overlays, and prediction files."""

"""The app of `irjax app`: detection, looked at and corrected in a browser."""

"""Measurements for `irjax benchmark`: multiply-add counts, and times of candidates in turns within one process."""

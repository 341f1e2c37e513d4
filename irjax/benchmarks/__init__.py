"""What `irjax benchmark` measures: counts of multiply-adds, and times of candidates in turns within one process."""

"""Reads predictions of any program, pairs them with the truth, scores them and compares them."""

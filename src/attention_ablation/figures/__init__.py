"""Figures, one kind a file: see study/figure.py. What kinds share is in `parts`."""

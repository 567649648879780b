"""Measured figures: benchmarks/README.md."""

"""A run's folder: written, locked, read back and verified."""

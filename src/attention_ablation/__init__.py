"""Regenerate a deep-learning paper's tables with one command."""

__version__ = "0.1.0"

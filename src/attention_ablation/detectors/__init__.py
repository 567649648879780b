"""Detectors: Faster R-CNN, SSD and StairNet."""

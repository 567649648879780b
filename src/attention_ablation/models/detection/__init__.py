"""Detectors: torchvision's machinery around our backbones and gates."""

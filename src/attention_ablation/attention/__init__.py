"""Attention gates: channel, spatial, and their arrangements."""

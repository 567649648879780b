"""Figures that judge detections, for trainings and for the analysis alike; numpy only."""

"""Attention gates, one a file, and the record by which a study names them."""

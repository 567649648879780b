"""Networks with an attention gate in every block."""

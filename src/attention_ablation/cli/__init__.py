"""The command `attention-ablation`."""

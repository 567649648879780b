"""What several data sets read with; it may import torch, which their records may not."""

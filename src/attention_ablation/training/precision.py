"""The precision that a recipe computes in: fp32, TF32 or autocast."""

import torch

from attention_ablation.spec.recipes import Recipe

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, recipe: Recipe) -> torch.autocast:
    """Compute in the recipe's precision, in a `with` block."""
    dtype = AUTOCAST.get(recipe.precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def set_tf32(recipe: Recipe) -> None:
    """Let a GPU round what it multiplies to TF32, or not, whatever torch's own default is."""
    allowed = recipe.precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed

"""torch's SGD, without importing torch._dynamo, which takes a second at the start of every run."""

from inspect import unwrap
from typing import Any

import torch
from torch import nn

from attention_ablation.spec.recipes import Recipe


class SGD(torch.optim.SGD):
    """`torch.optim.SGD`: the same arguments, state and numbers.

    torch wraps these methods so that torch.compile leaves them out of what it compiles, and
    imports torch._dynamo at the first call of each. Here no step of the optimiser is compiled, and
    what is, such as a gate, finds torch._dynamo as ever.
    """

    add_param_group = unwrap(torch.optim.SGD.add_param_group)
    zero_grad = unwrap(torch.optim.SGD.zero_grad)
    state_dict = unwrap(torch.optim.SGD.state_dict)
    load_state_dict = unwrap(torch.optim.SGD.load_state_dict)
    step = torch.no_grad()(unwrap(torch.optim.SGD.step))


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the optimiser's groups of parameters: two where norms or biases do not decay.

    What is kept as it is, such as a front-end, is in none.
    """
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    norms = {n for n, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    for path, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        module, _, name = path.rpartition(".")
        if module in norms:
            decays = recipe.decay_norms is not False
        else:
            decays = name != "bias" or recipe.decay_biases is not False
        (decayed if decays else others).append(parameter)
    kept = [{"params": others, "weight_decay": 0.0}] if others else []
    return [{"params": decayed}, *kept]

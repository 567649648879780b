"""torch's SGD, without importing torch._dynamo, which takes a second at the start of every run."""

from inspect import unwrap

import torch


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

"""DREAL (Li and Chen 2020, arXiv:2007.06156): a critic scores each gate's attention in training.

A reconstruction, not the authors' method: no code is published, and this follows what the paper's
abstract says. A recurrent critic judges each gate (its actor), the reward is discrete and says
whether the gate's attention helps, critic and network are trained in turns, and the critic is
dropped at the end. All numbers here, and what follows, are ours:

- State s_l: the mean over H, W of the map that channel attention l gets. Action a_l: its weights,
  the sigmoid of what it returns, before a gate's gain.
- Reward R_l of an image: +1 where the probability of its true class falls when a_l is replaced by
  its mean over the channels, else -1. Each step tries one l, drawn at random, which takes another
  forward pass; its BatchNorm normalises by the batch, as in training, and keeps no statistics.
- Critic: (s_l, a_l) -> Linear to 128 -> LSTM over l -> Linear to Q_l. Its loss: (Q_l - R_l)^2 of
  the l that was tried. It takes its step first, and the network's term is of the new critic.
- The network's loss: cross-entropy - 0.1 x the mean of Q over images and gates. Its gradient comes
  by way of the actions; states are constants, or features could learn to please the critic.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from attention_ablation.gates.cbam import ChannelAttention
from attention_ablation.networks.build import stream
from attention_ablation.training.processes import Processes

HIDDEN = 128
VALUE_WEIGHT = 0.1  # of the mean of Q in the network's loss
CRITIC_LEARNING_RATE = 0.001  # Adam's, constant


class Critic(nn.Module):
    """The value of each gate's action in its state: L tensors (N, C_l) each, twice -> (L, N)."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Linear(2 * c, HIDDEN) for c in channels)
        self.lstm = nn.LSTM(HIDDEN, HIDDEN)
        self.value = nn.Linear(HIDDEN, 1)

    def forward(self, states: Sequence[Tensor], actions: Sequence[Tensor]) -> Tensor:
        pairs = map(torch.cat, zip(states, actions, strict=True), [1] * len(states))
        embedded = [embed(pair) for embed, pair in zip(self.embed, pairs, strict=True)]
        values: Tensor = self.value(self.lstm(torch.stack(embedded))[0])
        return values.squeeze(2)


class Dreal:
    """The critic of a network, which sees and replaces its gates' actions through forward hooks."""

    def __init__(self, model: nn.Module, seed: int, processes: Processes) -> None:
        self.model = model
        self.seed = seed
        self.processes = processes
        self.step = 0
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}  # by gate, of the step: state, action
        self.tried: int | None = None  # the gate whose action is replaced
        gates = [part for part in model.modules() if isinstance(part, ChannelAttention)]
        for number, gate in enumerate(gates):
            gate.register_forward_hook(self._hook(number))
        self.device = next(model.parameters()).device
        with torch.random.fork_rng(devices=[]):  # the training's own stream stays where it was
            torch.default_generator.manual_seed(stream(seed, "dreal").initial_seed())
            self.critic = Critic([gate.channels for gate in gates]).to(self.device)
        self.optimizer = torch.optim.Adam(self.critic.parameters(), lr=CRITIC_LEARNING_RATE)

    def term(self, images: Tensor, labels: Tensor, logits: Tensor) -> Tensor:
        """Train the critic on a step's batch; return what to add to the network's loss.

        logits: the network's, in training, of these images; its gates have just been seen.
        """
        states, actions = zip(*(self.seen.pop(n) for n in sorted(self.seen)), strict=True)
        gate = self.draw()
        reward = self.reward(images, labels, logits, gate)
        self.step += 1
        with torch.autocast(self.device.type, enabled=False):  # it is small, and all else is not
            self.learn(states, [action.detach() for action in actions], gate, reward)
            self.critic.requires_grad_(False)
            value: Tensor = self.critic(states, actions).mean()
            self.critic.requires_grad_(True)
        return -VALUE_WEIGHT * value

    def draw(self) -> int:
        """Return the gate to try in this step, the same in all processes and after a restart."""
        generator = stream(self.seed, f"dreal/{self.step}")
        return int(torch.randint(len(self.critic.embed), (), generator=generator))

    @torch.no_grad()
    def reward(self, images: Tensor, labels: Tensor, logits: Tensor, gate: int) -> Tensor:
        """Return a gate's reward for each image: (N,) of +1 or -1."""
        self.tried = gate
        try:
            with without_statistics(self.model):
                without = self.model(images)
        finally:
            self.tried = None
        # The loss of an image is -log of its true class's probability, and resolves more of it.
        losses = [cross_entropy(each, labels, reduction="none") for each in (without, logits)]
        return torch.where(losses[0] > losses[1], 1.0, -1.0)

    def learn(
        self, states: Sequence[Tensor], actions: Sequence[Tensor], gate: int, reward: Tensor
    ) -> Tensor:
        """Take a step of the critic towards a gate's reward; return its loss before."""
        loss: Tensor = (self.critic(states, actions)[gate] - reward).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        for parameter in self.critic.parameters():
            if parameter.grad is not None:  # those of gates that follow have none
                parameter.grad = self.processes.mean(parameter.grad)
        self.optimizer.step()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """Return what the next step depends on beside the network."""
        parts = {"critic": self.critic.state_dict(), "optimizer": self.optimizer.state_dict()}
        return {**parts, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.critic.load_state_dict(state["critic"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def _hook(self, number: int) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor], raw: Tensor) -> Tensor | None:
            if not module.training:
                return None
            action = raw.float().sigmoid()  # (N, C, 1, 1)
            if self.tried is None:
                state = inputs[0].detach().mean(dim=(2, 3)).float()
                self.seen[number] = state, action.flatten(1)
            elif self.tried == number:
                return action.mean(dim=1, keepdim=True).logit().to(raw.dtype).expand_as(raw)
            return None

        return hook


@contextmanager
def without_statistics(model: nn.Module) -> Iterator[None]:
    """Let BatchNorm normalise by the batch and leave its running statistics as they are."""
    norms = [part for part in model.modules() if isinstance(part, _BatchNorm)]
    before = [norm.track_running_stats for norm in norms]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm, tracks in zip(norms, before, strict=True):
            norm.track_running_stats = tracks

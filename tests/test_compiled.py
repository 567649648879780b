"""Compiled gates give what eager ones give, keep less, and fall back where they cannot be made."""

import copy
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from attention_ablation.base.errors import UserError
from attention_ablation.gates.build import build_gate, gates_of
from attention_ablation.gates.record import Attention
from attention_ablation.networks.build import build, initialise
from attention_ablation.networks.record import Backbone
from attention_ablation.spec.spec import Run
from attention_ablation.study.expand import Plan
from attention_ablation.training.compiled import Compiled
from attention_ablation.training.evaluate import evaluate
from attention_ablation.training.loop import Loop
from attention_ablation.training.precision import set_tf32
from attention_ablation.training.run import train
from tests.machines import ONE_CPU, in_one
from tests.small_detection import alone, detection_plan, task
from tests.test_training import classification, small_run

CBAM = Attention(pooling="avg&max", descriptor="pool", reduction=4)
ALL = [
    CBAM,
    CBAM.model_copy(update={"start": "identity"}),
    Attention(pooling="avg", reduction=4),
    Attention(pooling="avg&max", descriptor="conv1x1", reduction=4, arrangement="spatial-first"),
    Attention(pooling="avg&max", descriptor="pool", reduction=4, arrangement="parallel"),
    Attention(gate="scale", options={"factor": 0.25}),
]


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Traced and differentiated as always, but no code is made, which takes many seconds."""
    backend = "aot_eager"
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    yield
    torch.compiler.reset()


def gate_of(
    attention: Attention, channels: int = 8, dtype: torch.dtype = torch.float32
) -> nn.Module:
    gate = build_gate(attention, channels)
    initialise(gate, 0)
    for norm in (m for m in gate.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.ones_(norm.weight)  # or spatial attention would be constant
    return gate.to(dtype).to(memory_format=torch.channels_last)


def step(gate: nn.Module, x: Tensor, towards: Tensor) -> list[Tensor]:
    """The output, and the gradients of the input and of every parameter."""
    x = x.detach().clone().requires_grad_()
    out = gate(x)
    out.backward(towards)
    assert x.grad is not None
    return [out.detach(), x.grad, *(p.grad for p in gate.parameters() if p.grad is not None)]


def compare(
    attention: Attention, dtype: torch.dtype, rtol: float, modes: tuple[bool, ...] = (True, False)
) -> None:
    torch.manual_seed(0)
    x, towards = torch.randn(2, 3, 8, 6, 5, dtype=dtype)[:2].unbind()
    x = x.contiguous(memory_format=torch.channels_last)
    eager = gate_of(attention, dtype=dtype)
    fast = copy.deepcopy(eager)
    compiled = Compiled(nn.Sequential(fast, nn.Linear(1, 1)), "gates")
    for mode in modes:
        eager.train(mode)
        fast.train(mode)
        for mine, theirs in zip(step(fast, x, towards), step(eager, x, towards), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=rtol, atol=rtol)
        eager.zero_grad()
        fast.zero_grad()
    for mine, theirs in zip(fast.buffers(), eager.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=rtol, atol=rtol)
    assert compiled.works


@pytest.mark.parametrize("attention", ALL, ids=lambda gate: gate.slug)
def test_outputs_and_gradients_are_those_of_the_eager_gate(
    quickly: None, attention: Attention
) -> None:
    compare(attention, torch.float64, 1e-12)


def test_made_code_agrees_to_rounding_and_keeps_one_map_instead_of_two() -> None:
    compare(CBAM, torch.float32, 1e-5, modes=(True,))  # code of one shape: it takes ten seconds
    x = torch.randn(3, 8, 6, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    kept: list[int] = []
    for fast in (False, True):
        gate = gate_of(CBAM)
        if fast:
            Compiled(gate, "gates")
        sizes: dict[int, int] = {}

        def note(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            gate(x)
        kept.append(sum(size >= x.nbytes for size in sizes.values()))
    assert kept == [2, 1]


def test_of_equal_maxima_the_first_gets_the_gradient_and_all_a_share_when_compiled(
    quickly: None,
) -> None:
    class Largest(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            from attention_ablation.gates.parts import largest

            return largest(x, 1)

    found = []
    for module in (Largest(), torch.compile(Largest())):
        x = torch.tensor([[1.0, 2.0, 2.0]], requires_grad=True)
        module(x).sum().backward()
        assert x.grad is not None
        found.append(x.grad.tolist())
    assert found == [[[0, 1, 0]], [[0, 0.5, 0.5]]]


UNTRACEABLE = """
from torch import nn

class Mine(nn.Module):
    def __init__(self, channels):
        super().__init__()

    def forward(self, x):
        return x * float(x.detach().numpy().mean() > 0)
"""


def test_a_gate_that_cannot_be_compiled_is_named_once_and_runs_as_it_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    quickly: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(UNTRACEABLE)
    mine = Attention(module="mine.py:Mine")
    model = build(Backbone(name="resnet18", width=0.25), mine, 10)
    expected = model(x := torch.randn(2, 3, 32, 32))
    compiled = Compiled(model, "gates")
    assert torch.equal(model(x), expected)
    assert not compiled.works
    warning = capsys.readouterr().out
    assert warning.count("warning: mine.py:Mine cannot be compiled and runs as it is: ") == 1


def test_a_gate_with_a_mistake_still_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quickly: None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.py").write_text(UNTRACEABLE.replace("return x *", "return x[:1] *"))
    model = build(Backbone(name="resnet18", width=0.25), Attention(module="wrong.py:Mine"), 10)
    Compiled(model, "gates")
    with pytest.raises(UserError, match=r"wrong.py:Mine: expected the shape that came in"):
        model(torch.randn(2, 3, 32, 32))


def test_a_missing_compiler_is_a_sentence() -> None:
    from torch._inductor import config

    message = r"recipe.compile: expected a C\+\+ compiler, g\+\+ or the one that CXX names"
    with config.patch({"cpp.cxx": ("none-of-this-name",)}), pytest.raises(UserError, match=message):
        Compiled(gate_of(CBAM), "gates")


@pytest.mark.parametrize("which", ["gates", "model"])
def test_a_compiled_networks_loss_and_gradients_are_the_eager_ones(
    tiny: Plan, tmp_path: Path, quickly: None, which: str
) -> None:
    losses, gradients = [], []
    for compile in (None, which):
        made = classification(small_run(tiny, compile=compile), tmp_path)
        made.model.train()
        loss, _ = made.loss(next(made.batches(1)))
        loss.backward()
        losses.append(float(loss.detach()))
        named = made.model.named_parameters()
        gradients.append({name: p.grad.norm() for name, p in named if p.grad is not None})
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert gradients[1].keys() == gradients[0].keys()
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5)


def test_a_compiled_training_resumes_exactly_and_its_weights_are_any_networks(
    tiny: Plan, tmp_path: Path, quickly: None
) -> None:
    run, data = small_run(tiny, compile="gates"), in_one(tmp_path / "data")
    assert run.spec.run_id != small_run(tiny).spec.run_id
    metrics = train(run, tmp_path, data, ONE_CPU)
    assert metrics["compiled"] is True
    # Another loop goes on from what one saved after its first epoch.
    loop, other = (Loop(classification(run, tmp_path / "data")) for _ in range(2))
    loop.epoch()
    other.load_state_dict(copy.deepcopy(loop.state_dict()))
    row = other.epoch()
    for name in ("train_loss", "validation_loss"):
        assert row[name] == metrics[name]
    weights = tmp_path / "weights.pt"
    plain = classification(small_run(tiny), tmp_path / "data").model
    plain.load_state_dict(torch.load(weights, weights_only=True))
    found, _, _ = evaluate(run, str(weights), data, ONE_CPU)
    assert found["loss"] == metrics["validation_loss"]


@pytest.mark.parametrize(
    ("table", "key"),
    [("table6", "resnet18+faster-rcnn+cbam"), ("table7", "mobilenet+stairnet+se")],
)
def test_of_a_detector_the_gates_alone_are_compiled(
    project: Path, monkeypatch: pytest.MonkeyPatch, quickly: None, table: str, key: str
) -> None:
    monkeypatch.chdir(project)
    plan = detection_plan(project)
    eager = alone(plan, table, key)
    losses = []
    for which in (None, "gates"):
        run = eager.model_dump()
        run["spec"]["recipe"]["compile"] = which
        made = task(plan, Run.model_validate(run))
        assert (made.compiled is None) == (which is None)
        made.model.train()
        losses.append(float(made.loss(next(made.batches(1)))[0].detach()))
    assert made.compiled
    assert made.compiled.works
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    run["spec"]["recipe"]["compile"] = "model"
    with pytest.raises(ValidationError, match=r"recipe.compile"):
        Run.model_validate(run)


def test_every_gate_is_found() -> None:
    model = build(Backbone(name="mobilenet"), CBAM, 10)
    assert len([*gates_of(model)]) == 27
    assert not [*gates_of(build(Backbone(name="mobilenet"), Attention(), 10))]


@pytest.mark.parametrize(
    ("precision", "allowed"), [("fp32", False), ("tf32", True), ("bf16", False)]
)
def test_tf32_is_what_the_recipe_says(tiny: Plan, precision: str, allowed: bool) -> None:
    set_tf32(small_run(tiny, precision=precision).spec.recipe)
    flags = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    assert flags == (allowed, allowed)

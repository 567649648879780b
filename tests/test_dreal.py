"""DREAL, as reconstructed here: reward, critic, a resumed training, and what is refused."""

import copy
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError
from torch import Tensor, nn

from attention_ablation.base.errors import UserError
from attention_ablation.cli.main import main
from attention_ablation.evidence.complexity import measure
from attention_ablation.feed.batches import Batch
from attention_ablation.gates.cbam import ChannelAttention, Gate, ParallelGate
from attention_ablation.gates.record import Attention
from attention_ablation.networks.build import build
from attention_ablation.networks.record import Backbone
from attention_ablation.report.collect import collect
from attention_ablation.report.tables import write_table
from attention_ablation.spec.spec import Run
from attention_ablation.study.config import Config
from attention_ablation.study.expand import Plan, load_plan
from attention_ablation.training.classify import Classification
from attention_ablation.training.dreal import Dreal
from attention_ablation.training.loop import Loop
from attention_ablation.training.processes import Processes
from tests.conftest import ROOT, shrink_study, write_yaml
from tests.test_checkpoint import assert_equal, outcome
from tests.test_training import classification, small_run, spec_file

SE = {"pooling": "avg", "reduction": 4}
CBAM = {"pooling": "avg&max", "reduction": 4, "descriptor": "pool"}
PARALLEL = {**CBAM, "arrangement": "parallel"}
STUDY = Path("workflow/studies/cbam/study.yaml")


def dreal_run(tiny: Plan, gate: dict[str, Any] = SE, **recipe: Any) -> Run:
    run = small_run(tiny, **recipe).model_dump()
    run["spec"]["attention"] = {"method": "dreal", **gate}
    return Run.model_validate(run)


def begun(tiny: Plan, folder: Path, gate: dict[str, Any] = SE) -> tuple[Classification, Dreal]:
    """A task in training with spatial attention at work, and its method."""
    # Branches that start at 0 would give gates nothing to see.
    task = classification(dreal_run(tiny, gate, zero_init_residual=False), folder)
    for name, norm in task.model.named_modules():
        if name.endswith("attention.norm") or name.endswith("spatial.norm"):
            nn.init.ones_(norm.weight)  # or it would be constant
    task.model.train()
    assert isinstance(task.method, Dreal)
    return task, task.method


@pytest.mark.parametrize("gate", [SE, CBAM, PARALLEL], ids=["se", "cbam", "parallel"])
def test_the_reward_says_whether_the_true_class_is_less_probable_with_a_gates_mean(
    tiny: Plan, tmp_path: Path, gate: dict[str, Any]
) -> None:
    task, method = begun(tiny, tmp_path, gate)
    images, labels = next(task.batches(1))
    logits = task.model(images).detach()
    shares = logits.softmax(1)[range(len(labels)), labels]
    tried: list[Tensor] = []
    for number in range(8):
        # The same network without hooks, one of whose gates is written out with the mean.
        plain = build(Backbone(name="resnet18", width=0.25), Attention(**gate), 10)
        plain.load_state_dict(task.model.state_dict())
        plain.train()
        part = [m for m in plain.modules() if hasattr(m, "gain") and has_channels(m)][number]
        part.forward = by_mean(part)
        without = plain(images).softmax(1)[range(len(labels)), labels]
        found = method.reward(images, labels, logits, number)
        expected = [
            1.0 if after < before else -1.0 for after, before in zip(without, shares, strict=True)
        ]
        assert found.tolist() == expected
        tried.append(found)
    assert torch.stack(tried).unique().tolist() == [-1, 1]


def has_channels(gate: nn.Module) -> bool:
    return isinstance(getattr(gate, "attention", getattr(gate, "channel", None)), ChannelAttention)


def by_mean(gate: Any) -> Any:
    def forward(x: Tensor) -> Tensor:
        if isinstance(gate, Gate):
            weights: Tensor = gate.attention(x).sigmoid().mean(1, keepdim=True)
            return x * gate.gain * weights
        assert isinstance(gate, ParallelGate)
        raw: Tensor = gate.channel(x).sigmoid().mean(1, keepdim=True).logit()
        both: Tensor = (raw + gate.spatial(x)).sigmoid()
        return x * gate.gain * both

    return forward


def test_beside_the_critics_term_a_step_is_as_without_the_method(
    tiny: Plan, tmp_path: Path
) -> None:
    task, method = begun(tiny, tmp_path)
    without = dreal_run(tiny, {**SE, "method": None}, zero_init_residual=False)
    plain = classification(without, tmp_path)
    plain.model.train()
    batch = next(task.batches(1))
    state = torch.get_rng_state()
    loss, sums = task.loss(batch)
    expected, plain_sums = plain.loss(batch)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(sums, plain_sums)  # of the cross-entropy alone
    for name, value in plain.model.state_dict().items():  # BatchNorm saw the batch once
        assert torch.equal(task.model.state_dict()[name], value)
    assert loss != expected
    assert not method.seen  # nothing of the step is kept
    task.model.eval()
    plain.model.eval()
    assert torch.equal(task.model(batch[0]), plain.model(batch[0]))
    assert not method.seen


def test_the_term_is_a_tenth_of_the_mean_value_by_way_of_the_actions(
    tiny: Plan, tmp_path: Path
) -> None:
    task, method = begun(tiny, tmp_path)
    images, labels = next(task.batches(1))
    critic = copy.deepcopy(method.critic)
    logits = task.model(images)
    pairs = [method.seen[number] for number in range(8)]
    term = method.term(images, labels, logits.detach())
    assert not any(map(torch.equal, critic.value.parameters(), method.critic.value.parameters()))
    assert all(p.requires_grad for p in method.critic.parameters())
    values = method.critic([s for s, _ in pairs], [a for _, a in pairs])  # after it has learned
    expected = -0.1 * sum(values[n, i] for n in range(8) for i in range(16)) / (8 * 16)
    torch.testing.assert_close(term, expected)
    gates = [p for name, p in task.model.named_parameters() if ".mlp." in name]
    found = torch.autograd.grad(term, gates, retain_graph=True)
    for mine, theirs in zip(found, torch.autograd.grad(expected, gates), strict=True):
        torch.testing.assert_close(mine, theirs)
        assert mine.norm() > 0
    assert not any(state.requires_grad for state, _ in pairs)


def seen(task: Classification, method: Dreal, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
    task.model(batch[0])
    pairs = [method.seen[number] for number in range(8)]
    return [state for state, _ in pairs], [action.detach() for _, action in pairs]


def test_the_critic_learns_a_batchs_rewards(tiny: Plan, tmp_path: Path) -> None:
    task, method = begun(tiny, tmp_path)
    batch = next(task.batches(1))
    states, actions = seen(task, method, batch)
    reward = torch.tensor([1.0, -1.0] * 8)
    losses = [float(method.learn(states, actions, 5, reward)) for _ in range(100)]
    assert losses[0] == pytest.approx(1, abs=0.2)
    assert losses[-1] < 0.5 * losses[0]


def test_processes_with_halves_of_a_batch_teach_the_critic_as_one_does(
    tiny: Plan, tmp_path: Path
) -> None:
    task, method = begun(tiny, tmp_path)
    states, actions = seen(task, method, next(task.batches(1)))
    reward = torch.tensor([1.0, -1.0, -1.0, -1.0] * 4)
    half = Dreal(task.model, task.part.seed, task.processes)
    assert all(map(torch.equal, half.critic.parameters(), method.critic.parameters()))
    values = half.critic([s[8:] for s in states], [a[8:] for a in actions])[5]
    theirs = torch.autograd.grad(
        (values - reward[8:]).square().mean(), [*half.critic.parameters()], allow_unused=True
    )
    others = iter([gradient for gradient in theirs if gradient is not None])

    class Two(Processes):
        def mean(self, tensor: Tensor) -> Tensor:
            return (tensor + next(others)) / 2

    half.processes = Two(0, 2)
    half.learn([s[:8] for s in states], [a[:8] for a in actions], 5, reward[:8])
    method.learn(states, actions, 5, reward)
    for mine, whole in zip(half.critic.parameters(), method.critic.parameters(), strict=True):
        torch.testing.assert_close(mine, whole, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_stopped_and_resumed_it_ends_as_if_it_never_was(
    tiny: Plan, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_file(dreal_run(tiny, epochs=2, precision=precision))
    assert main(["train", str(spec)]) == 0
    expected = outcome(spec)
    for path in spec.parent.iterdir():
        if path != spec:
            path.unlink()
    step = Loop._step

    def interrupted(loop: Loop, batch: Batch) -> None:
        step(loop, batch)
        if loop.step == 6:  # four steps an epoch
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "_step", interrupted)
        with pytest.raises(SystemExit):
            main(["train", str(spec)])
    (kept,) = spec.parent.glob("checkpoint-000000006-*.pt")
    assert torch.load(kept, weights_only=True)["method"]["step"] == 6
    assert main(["train", str(spec)]) == 0
    assert_equal(outcome(spec), expected)
    plain = classification(small_run(tiny, "resnet50+se"), spec.parent)
    plain.model.load_state_dict(expected[1])  # the critic is not among the weights


def test_each_gate_is_tried_and_the_draws_depend_on_seed_and_step(
    tiny: Plan, tmp_path: Path
) -> None:
    _, method = begun(tiny, tmp_path)
    drawn = []
    for method.step in range(100):
        drawn.append(method.draw())
    assert set(drawn) == set(range(8))
    method.step = 7
    assert method.draw() == drawn[7]


def rows_with_dreal(project: Path) -> None:
    """Leave the study SE, and SE with the method, in one group of Table 4."""
    lines = ["table,label,backbone,attention"]
    lines += [f"table4,{n},resnet18,{a}" for n, a in (("SE", "se"), ("SE + DREAL", "se-dreal"))]
    shrink_study(project, "\n".join(lines) + "\n")
    study = yaml.safe_load((project / STUDY).read_text())
    study["attentions"]["se-dreal"] = {"pooling": "avg", "method": "dreal"}
    write_yaml(project / STUDY, study)


def test_a_row_differs_from_its_neighbour_in_the_method_alone_and_says_what_it_is(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    rows_with_dreal(project)
    plan = load_plan(Config(study="cbam", tier="tiny"))
    se, dreal = (plan.specs["table4", f"resnet18+{name}"] for name in ("se", "se-dreal"))
    assert dreal.attention.method == "dreal"
    assert dreal.run_id.startswith("resnet18_se-identity-dreal_")
    assert se == dreal.model_copy(update={"attention": se.attention})
    assert se.attention == dreal.attention.model_copy(update={"method": None})
    assert measure(se.backbone, se.attention) == measure(dreal.backbone, dreal.attention)
    write_table(plan, "table4", collect(plan))
    note = "SE + DREAL: trained by a reconstruction of DREAL (arXiv:2007.06156)"
    assert note in (plan.folder / "tables/table4.md").read_text()


@pytest.mark.parametrize("study", ["cbam", "controls"])
def test_specs_without_a_method_are_what_they_were(study: str) -> None:
    plan = load_plan(Config(study=study, tier="quick"), ROOT)
    texts = [run.canonical() for run in plan.runs.values()]
    assert not [text for text in texts if "method" in text]
    ids = {run.spec.run_id for run in plan.runs.values()}
    assert {"resnet18_none_b046c75e7f", "resnet18_se-identity_78a2bd62d0"} <= ids


@pytest.mark.parametrize(
    "gate",
    [{}, {"descriptor": "pool"}, {"gate": "scale"}, {"module": "my_gate.py:MyGate"}],
    ids=["none", "spatial", "scale", "module"],
)
def test_a_gate_without_channel_attention_is_refused(gate: dict[str, Any]) -> None:
    expected = "'method' has no meaning without pooling, which is channel attention; remove it"
    with pytest.raises(ValidationError, match=expected):
        Attention(method="dreal", **gate)


def test_what_is_compiled_is_refused_in_a_sentence(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    rows_with_dreal(project)
    study = yaml.safe_load(STUDY.read_text())
    study["tables"]["table4"]["recipe"] = {"compile": "model"}
    write_yaml(STUDY, study)
    message = r"rows.csv: table4: SE \+ DREAL: expected no recipe.compile with the method 'dreal'"
    with pytest.raises(UserError, match=message):
        load_plan(Config(study="cbam", tier="tiny"))


@pytest.mark.parametrize("table", ["table6", "table7"])
def test_a_detector_is_refused_in_a_sentence(
    project: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    monkeypatch.chdir(project)
    study = yaml.safe_load(STUDY.read_text())
    study["attentions"]["cbam"]["method"] = "dreal"
    write_yaml(STUDY, study)
    with pytest.raises(
        UserError, match="expected no method of a detector's attention, got 'dreal'"
    ):
        load_plan(Config(study="cbam", tier="tiny", tables=[table]))

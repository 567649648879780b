"""LPAE: exact counts, its equations, an autoencoder trained first and kept, and who may have it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from attention_ablation import load_run
from attention_ablation.base.errors import UserError
from attention_ablation.cost.rates import fastest, network_key
from attention_ablation.datasets.contract import load
from attention_ablation.evidence.complexity import count_params, measure
from attention_ablation.evidence.explain import explain
from attention_ablation.gates.record import Attention
from attention_ablation.networks.build import build, build_front_end, initialise
from attention_ablation.networks.lpae import Autoencoder, Encoder, losses
from attention_ablation.networks.record import Backbone
from attention_ablation.report.collect import collect
from attention_ablation.report.tables import rendered
from attention_ablation.report.where import as_text, find_cell
from attention_ablation.runs.folder import BACKBONE, WEIGHTS
from attention_ablation.runs.verify import WRONG, check_run
from attention_ablation.spec.spec import FrontEndSpec, Run, Spec
from attention_ablation.study.config import Config
from attention_ablation.study.expand import Plan, load_plan
from attention_ablation.training.calibrate import calibrate
from attention_ablation.training.classify import Classification
from attention_ablation.training.loop import Loop
from attention_ablation.training.run import train
from tests.conftest import ROOT, shrink_study
from tests.machines import ONE_CPU, in_one

NONE = Attention()
ROWS = """table,label,backbone,front_end,attention,top1_error
table4,ResNet18,resnet18,,none,29.60
table4,ResNet18 on LPAE,resnet18,lpae,none,
table4,ResNet50 on LPAE,resnet50,lpae,none,
"""


def on_lpae(name: str, **size: float) -> nn.Module:
    model = build(Backbone(name=name, front_end="lpae", **size), NONE, classes=10)
    initialise(model, 0)
    return model


def test_parameters_and_multiply_accumulates_are_exact() -> None:
    found = measure(Backbone(name="resnet50", front_end="lpae"), NONE)
    assert (found.params, f"{found.gflops:.6f}") == (29_633_494, "1.820615")
    with torch.device("meta"):
        encoder, image = Encoder(), torch.empty(1, 3, 224, 224)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        encoder(image)
    assert counter.get_total_flops() // 2 == 532_869_120
    assert sum(p.numel() for p in encoder.parameters()) == 2 * 5_523
    # Beside it the decoder: 784 of the transposed convolution, 2 * 2320 and 435.
    assert sum(p.numel() for p in build_front_end().parameters()) == 2 * 5_523 + 5_859


@pytest.mark.parametrize(("name", "features"), [("resnet18", 512), ("resnet50", 2048)])
def test_its_networks_have_biases_and_no_norm_in_stem_and_shortcuts(
    name: str, features: int
) -> None:
    params = 2 * 5_523 + 1000 * (features + 1) + 1000 * (features + features // 4 + 1)
    for width in (1.0, 0.25):
        with torch.device("meta"):
            plain = build(Backbone(name=name, width=width), NONE, 1000)
        for path, part in plain.named_modules():
            if isinstance(part, nn.Conv2d):
                params += part.weight.numel() + part.out_channels
            elif isinstance(part, nn.BatchNorm2d) and path != "bn1" and "downsample" not in path:
                params += 2 * part.num_features
    assert measure(Backbone(name=name, front_end="lpae"), NONE).params == params


def followed(state: dict[str, Tensor], place: str, x: Tensor, strides: dict[int, int]) -> Tensor:
    """The features that the docstring's equations give, in training, of a part's state."""

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{place}.{name}.weight"]
        padding = weight.shape[-1] // 2
        return F.conv2d(x, weight, state[f"{place}.{name}.bias"], stride, padding)

    def norm(x: Tensor) -> Tensor:  # whose weights are 1 and 0
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), False, keepdim=True)
        return (x - mean) / (var + 1e-5).sqrt()

    x = F.max_pool2d(conv(x, "0", 2), 3, 2, 1)
    block = 2
    while f"{place}.{block}.convolutions.0.weight" in state:
        stride, y = strides.get(block, 1), x
        kernels = [i for i in (0, 3, 6) if f"{place}.{block}.convolutions.{i}.weight" in state]
        for i in kernels:
            y = conv(y, f"{block}.convolutions.{i}", stride if i == 0 else 1)
            y = norm(y).relu() if i != kernels[-1] else y
        if f"{place}.{block}.shortcut.weight" in state:
            x = conv(x, f"{block}.shortcut", stride)
        x, block = norm(x + y).relu(), block + 1
    return x.mean((2, 3))


@pytest.mark.parametrize(
    ("name", "strides"),
    [("resnet18", {4: 2, 6: 2, 8: 2}), ("resnet50", {5: 2, 9: 2, 15: 2})],
)
def test_a_classifier_is_its_equations(name: str, strides: dict[int, int]) -> None:
    model = on_lpae(name, width=0.25).double()
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    c, d = model.front_end(x)
    assert (c.shape, d.shape) == ((4, 3, 16, 16), (4, 3, 32, 32))
    state = dict(model.named_parameters())
    low, high = followed(state, "low", c, strides), followed(state, "high", d, strides)
    both = torch.cat([low, high], 1) @ model.fc_both.weight.T + model.fc_both.bias
    expected = torch.stack([low @ model.fc_low.weight.T + model.fc_low.bias, both])
    torch.testing.assert_close(model(x), expected)
    model.eval()
    assert model(x).shape == (4, 10)


def test_the_autoencoder_is_affine_and_gives_an_image_of_the_same_size() -> None:
    model = build_front_end().double()
    initialise(model, 0)
    x, y = torch.randn(2, 1, 3, 12, 8, dtype=torch.float64)
    shapes = [out.shape[1:] for out in model(x)]
    assert shapes == [(3, 6, 4), (3, 12, 8), (3, 12, 8)]
    for ours, one, two, zero in zip(*map(model, (x + y, x, y, 0 * x)), strict=True):
        torch.testing.assert_close(ours, one + two - zero)
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    assert all((bias == torch.tensor(0.01)).all() for bias in biases)


def halved(line: np.ndarray) -> np.ndarray:
    """Bicubic interpolation of a line to half its length, its ends kept (Keys 1981, a = -0.75)."""

    def kernel(t: float, a: float = -0.75) -> float:
        t = abs(t)
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0

    n, half = len(line), len(line) // 2
    found = []
    for i in range(half):
        at = i * (n - 1) / (half - 1)
        near = range(int(at) - 1, int(at) + 3)
        found.append(sum(kernel(at - k) * line[min(max(k, 0), n - 1)] for k in near))
    return np.array(found)


def test_the_loss_is_that_of_plain_loops() -> None:
    torch.manual_seed(0)
    x, made, d = torch.randn(3, 2, 3, 8, 6, dtype=torch.float64)
    c = torch.randn(2, 3, 4, 3, dtype=torch.float64)
    half = np.apply_along_axis(halved, 2, np.apply_along_axis(halved, 3, x.numpy()))
    parts = [
        np.abs(x.numpy() - made.numpy()).mean(),
        (d.numpy() ** 2).mean(),
        ((c.numpy() - half) ** 2).mean(),
    ]
    found = losses(x, c, d, made).tolist()
    assert found == pytest.approx([parts[0] + parts[1] + 0.8 * parts[2], *parts])


@pytest.fixture
def plan(project: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(project)
    shrink_study(project, ROWS)
    return load_plan(Config(study="cbam", tier="tiny"))


def test_the_zoo_trains_the_autoencoder_once_a_seed_and_changes_no_other_run() -> None:
    plan = load_plan(Config(study="zoo", tier="quick", tables=["Z6"], seeds=[0, 1]), ROOT)
    first = [run for run in plan.runs.values() if isinstance(run.spec, FrontEndSpec)]
    assert (len(plan.runs), [run.seed for run in first]) == (10, [0, 1])
    assert len({run.spec for run in first}) == 1
    assert "1 more only to start others from" in plan.summary
    for key in ("resnet18+lpae", "resnet50+lpae"):
        assert [run.initial for run in plan.row_runs("Z6", key)] == first
    plain = [plan.specs["Z6", key] for key in ("resnet18", "resnet50")]
    assert [s.run_id for s in plain] == ["resnet18_none_b046c75e7f", "resnet50_none_060df5fb81"]
    recipe = first[0].spec.recipe
    assert recipe == plain[0].recipe.model_copy(update={"learning_rate": 0.01})
    run = plan.row_runs("Z6", "resnet50+lpae")[1]
    assert Run.model_validate_json(run.canonical()) == run
    assert run.path.startswith("resnet50_lpae_none_")


def test_the_encoder_is_trained_first_and_then_kept(plan: Plan) -> None:
    (run,) = plan.row_runs("table4", "resnet18+lpae")
    assert run.initial
    folders = [plan.runs_folder / each.path for each in (run.initial, run)]
    for each, folder in zip((run.initial, run), folders, strict=True):
        folder.mkdir(parents=True)
        (folder / "spec.json").write_text(each.canonical())
    with pytest.raises(UserError, match=r"backbone\.pt: there are no weights to start from"):
        train(run, folders[1], in_one(plan.data_folder), ONE_CPU)

    first = train(run.initial, folders[0], in_one(plan.data_folder), ONE_CPU)
    assert first["status"] == "completed"
    history = pd.read_csv(folders[0] / "history.csv")
    for split in ("train", "validation"):
        parts = [history[f"{split}_{n}"] for n in ("reconstruction", "detail", "approximation")]
        expected = parts[0] + parts[1] + 0.8 * parts[2]
        assert history[f"{split}_loss"].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert history["train_loss"].is_monotonic_decreasing

    (folders[0] / BACKBONE).write_bytes((folders[0] / WEIGHTS).read_bytes())
    second = train(run, folders[1], in_one(plan.data_folder), ONE_CPU)
    assert second["initial_sha256"] == first["weights_sha256"]
    theirs, ours = (torch.load(f / WEIGHTS, weights_only=True) for f in folders)
    for name in Encoder().state_dict():
        assert torch.equal(ours[f"front_end.{name}"], theirs[name])
    assert not [name for name in ours if "decoder" in name]
    assert [
        f for folder in folders for f in check_run(folder, weights=True) if f.level == WRONG
    ] == []

    for folder, kept in zip(folders, (theirs, ours), strict=True):
        loaded = load_run(folder).state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in kept.items())

    # What reads the runs afterwards.
    frame = collect(plan)
    assert frame["backbone.front_end"].dropna().unique().tolist() == ["lpae"]
    texts = rendered(plan, "table4", frame)
    assert "row,label,backbone,front_end,attention" in texts["csv"]
    assert "ResNet18 on LPAE, ResNet50 on LPAE: the front-end is trained first" in texts["md"]
    cell = find_cell(plan, "table4", "resnet18+lpae", "top1_error")
    assert "front_end lpae" in as_text(cell)
    with pytest.raises(UserError, match="without a front-end, which Grad-CAM does not explain"):
        explain(folders[1] / "spec.json", in_one(plan.data_folder), ONE_CPU)


def test_a_kept_encoder_has_no_gradient_and_both_logits_are_trained(plan: Plan) -> None:
    (run,) = plan.row_runs("table4", "resnet18+lpae")
    task = Classification(run, load(run.spec.recipe.dataset, in_one(plan.data_folder)), ONE_CPU)
    loop = Loop(task)
    optimised = {id(p) for group in loop.optimizer.param_groups for p in group["params"]}
    model = task.model
    kept = {id(p) for p in model.front_end.parameters()}
    assert optimised == {id(p) for p in model.parameters()} - kept
    before = {name: value.clone() for name, value in model.named_parameters()}
    images, labels = next(task.batches(1))
    model.train()
    loss, sums = task.loss((images, labels))
    low, both = model(images)
    expected = F.cross_entropy(low, labels) + F.cross_entropy(both, labels)
    torch.testing.assert_close(loss, expected)
    wrong = ((low + both).argmax(1) != labels).sum()
    assert sums[1] == wrong
    loop._step((images, labels))
    for name, value in model.named_parameters():
        assert (value.grad is None) == name.startswith("front_end.")
        assert torch.equal(value, before[name]) == name.startswith("front_end."), name


def test_what_it_costs_is_measured_and_ordered(plan: Plan) -> None:
    (run,) = plan.row_runs("table4", "resnet18+lpae")
    assert run.initial
    assert count_params(run.initial.spec) == 16_905
    path = calibrate([run.initial.spec, run.spec], plan.calibration_folder, ONE_CPU)
    measured = json.loads(path.read_text())["measured"]
    assert {key: one["network"] for key, one in measured.items()} == {
        network_key(run.initial.spec): "lpae",
        network_key(run.spec): "resnet18 lpae none",
    }
    (plain,) = plan.row_runs("table4", "resnet18")
    assert fastest(run.spec) == pytest.approx(fastest(plain.spec) / 2)
    assert fastest(run.initial.spec) > fastest(plain.spec)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("table4,A,resnet18,,lpae,cbam", "expected no attention in resnet18, which has no gates"),
        ("table4,A,mobilenet,,lpae,none", "expected a front-end for one of resnet18, .* mobilenet"),
        ("table6,A,resnet18,faster-rcnn,lpae,none", "expected a front-end or a detector, got lpae"),
        ("table4,A,resnet18,,lape,none", "front_end: .*lpae.*got 'lape'"),
    ],
)
def test_who_cannot_have_one_is_told(
    project: Path, monkeypatch: pytest.MonkeyPatch, row: str, message: str
) -> None:
    monkeypatch.chdir(project)
    shrink_study(project, f"table,label,backbone,detector,front_end,attention\n{row}\n")
    with pytest.raises(UserError, match=message):
        load_plan(Config(study="cbam", tier="tiny"))


def test_a_spec_is_consistent(plan: Plan) -> None:
    spec = plan.specs["table4", "resnet18+lpae"]
    assert isinstance(spec, Spec)
    assert spec.initial
    parts = {name: getattr(spec, name) for name in Spec.model_fields}
    with pytest.raises(ValidationError, match="expected the training of the backbone's front-end"):
        Spec(**(parts | {"initial": None}))
    with pytest.raises(ValueError, match="expected no attention in resnet18"):
        build(spec.backbone, Attention(pooling="avg"), 10)
    dataset = spec.recipe.dataset.model_copy(update={"image_size": 33})
    recipe = spec.recipe.model_copy(update={"dataset": dataset})
    with pytest.raises(ValidationError, match=r"an even recipe\.dataset\.image_size, .* got 33"):
        FrontEndSpec(front_end="lpae", recipe=recipe)
    assert isinstance(build_front_end(), Autoencoder)

"""A training starts without what takes seconds to import, and none of it is lost by that."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from attention_ablation.datasets.contract import load
from attention_ablation.study.expand import Plan
from attention_ablation.training.provenance import provenance
from attention_ablation.training.sgd import SGD
from tests.machines import in_one

TRAINING = """
import json, sys
from pathlib import Path
from attention_ablation.spec.spec import Run
from attention_ablation.training.run import train
from tests.machines import ONE_CPU, in_one

data = Path(sys.argv[1])
for text in sys.argv[2:]:
    run = Run.model_validate_json(text)
    folder = data / run.spec.backbone.name
    folder.mkdir()
    train(run, folder, in_one(data), ONE_CPU)
heavy = ("torchvision", "torch._dynamo", "torch._inductor", "sympy", "sklearn", "scipy", "pandas")
imported = [name for name in heavy if name in sys.modules]

import torch
compiled = torch.compile(torch.nn.functional.gelu, backend="eager")
x = torch.linspace(-1, 1, 5)
assert torch.equal(compiled(x), torch.nn.functional.gelu(x))
import torch._inductor.config
print(json.dumps([imported, torch._inductor.config.deterministic]))
"""


def test_a_training_imports_no_torchvision_and_no_compiler_until_it_is_used(
    tiny: Plan, tmp_path: Path
) -> None:
    run: Any = tiny.row_runs("table3", "resnet50+cbam")[0].model_dump(mode="json")
    spec, runs = run["spec"], []
    spec["recipe"]["epochs"] = 1
    gates = {
        "resnet18": spec["attention"],
        "mobilenet": {"pooling": "avg", "reduction": 4},
        "vgg16": {},
    }
    for network, attention in gates.items():
        backbone = spec["backbone"] | {"name": network, "width": 0.25}
        runs.append(
            json.dumps(run | {"spec": spec | {"backbone": backbone, "attention": attention}})
        )
    load(tiny.specs["table3", "resnet50+cbam"].recipe.dataset, in_one(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, tmp_path, *runs], text=True, capture_output=True,
        cwd=Path(__file__).parents[1], timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[], True]


def test_the_recorded_torchvision_is_what_it_calls_itself() -> None:
    assert provenance(torch.device("cpu"))["torchvision"] == torchvision.__version__


@pytest.mark.parametrize("fused", [True, False])
def test_the_optimiser_is_torchs(fused: bool) -> None:
    def trained(kind: type[torch.optim.SGD], other: type[torch.optim.SGD]) -> Any:
        torch.manual_seed(0)
        model, x = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)), torch.randn(6, 5)

        def made(kind: type[torch.optim.SGD]) -> torch.optim.SGD:
            groups: Any = [
                {"params": list(model[0].parameters())},
                {"params": list(model[1].parameters()), "weight_decay": 0.0},
            ]
            options: dict[str, Any] = {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True}
            return kind(groups, lr=0.1, fused=fused, **options)

        optimizer = made(kind)
        for _ in range(3):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
        state = optimizer.state_dict()
        optimizer = made(other)
        optimizer.load_state_dict(state)
        optimizer.step()
        assert all(p.requires_grad and p.grad is not None for p in model.parameters())
        optimizer.zero_grad()
        assert all(p.grad is None for p in model.parameters())
        return [*model.state_dict().values(), state["param_groups"], optimizer.state_dict()]

    def flat(value: Any) -> list[Any]:
        if isinstance(value, dict):
            value = [*value, *value.values()]
        return [x for part in value for x in flat(part)] if isinstance(value, list) else [value]

    ours, theirs = (flat(trained(*kinds)) for kinds in
                    ((SGD, torch.optim.SGD), (torch.optim.SGD, SGD)))  # fmt: skip
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b

"""A newcomer's gate is one file, which says where it stands; networks have the places."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from attention_ablation.base.errors import UserError
from attention_ablation.check.gate import check_gate
from attention_ablation.check.subject import Subject
from attention_ablation.detectors.record import Detector, check_fit
from attention_ablation.gates.build import FileGate
from attention_ablation.gates.record import Attention, seal
from attention_ablation.gates.source import PLACES
from attention_ablation.networks.build import build, initialise
from attention_ablation.networks.record import BACKBONES, Backbone
from attention_ablation.study.expand import load_plan
from tests.conftest import ROOT
from tests.small_detectors import BOTTLENECK, classifier_state, scene, small

# Weights the last map by what the pooled channels of all maps say; `times` makes it known.
TOY = """
import torch
from torch import nn


class Toy(nn.Module):
    place = "PLACE"

    def __init__(self, channels, *, reduction=4, times=1.0):
        super().__init__()
        self.channels = channels
        self.times = times
        width = channels[-1] if isinstance(channels, list) else channels
        inner = sum(channels) if isinstance(channels, list) else channels
        hidden = width // reduction
        self.mlp = nn.Sequential(nn.Linear(inner, hidden), nn.Linear(hidden, width))

    def forward(self, maps):
        if isinstance(self.channels, list):
            assert [x.shape[1] for x in maps] == self.channels
            pooled = torch.cat([x.mean((2, 3)) for x in maps], 1)
        else:
            pooled = maps.mean((2, 3))
        x = maps[-1] if isinstance(maps, list) else maps
        weights = self.mlp(pooled).sigmoid()[:, :, None, None].to(x.dtype)
        return x * (weights if self.times == 1.0 else self.times)
"""
SMALL = Backbone(name="resnet18", width=0.25)


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Attention]:
    """A gate for each place, of a user's file in the working folder."""
    monkeypatch.chdir(tmp_path)
    return {place: own(place) for place in PLACES}


def own(place: str, **options: object) -> Attention:
    file = Path(f"{place.replace('-', '_')}.py")
    file.write_text(TOY.replace("PLACE", place))
    entry = {"module": f"{file}:Toy", "options": options}
    return seal(Attention.model_validate(entry), Path(), "a test")


def test_the_place_comes_from_the_file_and_the_default_leaves_no_trace(
    toys: dict[str, Attention],
) -> None:
    assert {place: gate.position for place, gate in toys.items()} == {
        place: place for place in PLACES
    }
    assert "place" not in toys["block-end"].model_dump(exclude_none=True)
    wrong = toys["over-stage"].model_copy(update={"place": "stage-end"})
    with pytest.raises(UserError, match="expected the place 'over-stage', which Toy declares"):
        seal(wrong, Path(), "a test")
    Path("over_stage.py").write_text(TOY.replace("PLACE", "over-stages"))
    with pytest.raises(UserError, match="unknown place 'over-stages'; did you mean 'over-stage'"):
        seal(Attention(module="over_stage.py:Toy"), Path(), "a test")


def test_a_place_that_only_running_the_file_shows_is_refused(toys: dict[str, Attention]) -> None:
    Path("a.py").write_text(TOY.replace("PLACE", "stage-end") + "\n\nOther = Toy\n")
    gate = seal(Attention(module="a.py:Other"), Path(), "a test")
    with pytest.raises(UserError, match=r"expected a gate at block-end, .* got one at stage-end"):
        build(SMALL, gate, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reductoin": 8}, "a test: unknown option 'reductoin'; did you mean 'reduction'"),
        ({"channels": 8}, "a test: unknown option 'channels'"),
    ],
)
def test_options_that_the_class_does_not_take_are_refused_by_the_plan(
    toys: dict[str, Attention], options: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        own("block-end", **options)


@pytest.mark.parametrize(
    ("init", "options", "message"),
    [
        ("self, channels, kernel", {}, "MyGate needs the option 'kernel'"),
        ("self, channels, *, kernel=torch.pi", {"kernel": 5}, None),
        ("self, channels, **options", {"anything": 5}, None),
        ("self, channels, kernel: int = 3", {"kernels": 5}, "did you mean 'kernel'"),
    ],
)
def test_every_way_to_write_options_is_read_without_running_the_file(
    tmp_path: Path, init: str, options: dict[str, object], message: str | None
) -> None:
    source = f"raise SystemExit\nclass Base(nn.Module):\n    def __init__({init}): ...\n"
    (tmp_path / "a.py").write_text(source + "class MyGate(Base):\n    place = 'stage-end'\n")
    gate = Attention.model_validate({"module": "a.py:MyGate", "options": options})
    if message is None:
        assert seal(gate, tmp_path, "study.yaml").position == "stage-end"
    else:
        with pytest.raises(UserError, match=message):
            seal(gate, tmp_path, "study.yaml")


PLACED = [
    (name, place)
    for name in ("resnet18", "resnet50", "resnext50", "mobilenet")
    for place in BACKBONES[name].places(1)
]


@pytest.mark.parametrize(("name", "place"), PLACED)
def test_a_network_has_the_gates_that_its_plain_data_say(
    toys: dict[str, Attention], name: str, place: str
) -> None:
    backbone = Backbone(name=name, width=0.25)
    model = build(backbone, toys[place], 10)
    gates = [m.channels for m in model.modules() if isinstance(m, FileGate)]
    assert gates == list(backbone.network.gated_channels(0.25, toys[place].position))
    logits = model(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 10)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("place", PLACES)
def test_a_gate_that_returns_its_map_leaves_the_network_as_it_is(
    toys: dict[str, Attention], name: str, place: str
) -> None:
    backbone = Backbone(name=name, width=0.25)
    # A factor of a rounding more than 1 is 1 in single precision.
    gated, plain = (build(backbone, a, 10) for a in (own(place, times=1 + 1e-12), Attention()))
    for model in (gated, plain):
        initialise(model, 3)
    names = gated.state_dict()
    assert all(torch.equal(value, names[key]) for key, value in plain.state_dict().items())
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(gated(x), plain(x))


def residual_maps(block: Any, x: Tensor) -> list[Tensor]:
    """A basic block's maps before the shortcut is added, written out."""
    first = F.relu(block.bn1(block.conv1(x)))
    return [first, block.bn2(block.conv2(first))]


@pytest.mark.parametrize("place", PLACES)
def test_each_place_is_where_it_is_said_to_be(toys: dict[str, Attention], place: str) -> None:
    gated: Any = build(SMALL, own(place, times=0.5), 10).eval()
    initialise(gated, 3)
    x = torch.randn(2, 3, 64, 64)
    expected = gated.maxpool(F.relu(gated.bn1(gated.conv1(x))))
    for number in range(1, 5):
        blocks = [m for m in getattr(gated, f"layer{number}") if hasattr(m, "conv1")]
        for i, block in enumerate(blocks):
            out = residual_maps(block, expected)[-1]
            if place in ("block-end", "inside-block"):
                out = out * 0.5
            shortcut = expected if block.downsample is None else block.downsample(expected)
            expected = out + shortcut
            if place == "over-stage" and i == len(blocks) - 1:
                expected = expected * 0.5
            expected = F.relu(expected)
        if place == "stage-end" and number < 4:
            expected = expected * 0.5
    assert torch.equal(gated(x), gated.fc(expected.mean((2, 3))))
    stage = [name for name, m in gated.named_modules() if isinstance(m, FileGate)]
    if place in ("over-stage", "stage-end"):
        assert stage == [f"layer{i}.gate" for i in range(1, 5 if place == "over-stage" else 4)]
    else:
        assert stage[0] == "layer1.0.gate"


@pytest.mark.parametrize("place", PLACES)
def test_a_detector_starts_from_a_classifier_with_gates_at_any_place(
    toys: dict[str, Attention], place: str
) -> None:
    model = small("faster-rcnn", BOTTLENECK, toys[place])
    state = classifier_state(BOTTLENECK, toys[place])
    model.load_backbone(state)
    trunk = model.trunk.state_dict()
    assert all(torch.equal(state[name], value) for name, value in trunk.items())
    assert any(".gate." in name for name in trunk)
    image, target = scene()
    assert sum(model.train()([image], [target]).values()).isfinite()


@pytest.mark.parametrize(
    ("name", "place", "detector", "sentence"),
    [
        ("mobilenet", "inside-block", None, "stands at block-end, the places of mobilenet, got"),
        ("mobilenet", "over-stage", None, "which stands at over-stage; take another backbone"),
        ("vgg16", "stage-end", None, "expected no attention in vgg16"),
        ("vgg16", "stage-end", "ssd", "the places of ssd on vgg16"),
        ("mobilenet", "inside-block", "stairnet", "the places of stairnet on mobilenet"),
    ],
)
def test_a_network_without_the_place_is_refused_in_a_sentence(
    toys: dict[str, Attention], name: str, place: str, detector: str | None, sentence: str
) -> None:
    on = Detector.model_validate({"name": detector}) if detector else None
    with pytest.raises(UserError, match=sentence):
        check_fit(toys[place], Backbone(name=name), "rows.csv line 2", on)
    check_fit(toys[place], Backbone(name="resnet50"), "", Detector(name="faster-rcnn"))


def test_a_row_of_a_table_that_is_not_chosen_is_refused_too(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    Path("over.py").write_text(TOY.replace("PLACE", "over-stage"))
    study = Path("workflow/studies/cbam/study.yaml")
    entry = 'attentions:\n  over: {module: "over.py:Toy"}\n'
    study.write_text(study.read_text().replace("attentions:\n", entry, 1))
    with Path("workflow/studies/cbam/rows.csv").open("a") as rows:
        rows.write("table5,MobileNet + mine,mobilenet,,over,,,,,,,\n")
    with pytest.raises(UserError, match=r"rows.csv line \d+: .* which stands at over-stage"):
        load_plan({"study": "cbam", "tier": "tiny", "tables": ["table3"]})


@pytest.mark.parametrize("place", PLACES)
def test_the_checks_run_on_what_the_place_gives(
    toys: dict[str, Attention], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    results = list(check_gate(Subject(toys[place], (16, 64), torch.device("cpu"))))
    assert [result.text for result in results if not result.ok] == []
    assert len(results) == 8
    file = Path(f"{place.replace('-', '_')}.py")
    file.write_text(file.read_text().replace("return x * (", "return ("))
    entry = Attention(module=f"{file}:Toy")
    results = list(check_gate(Subject(seal(entry, Path(), ""), (16,), torch.device("cpu"))))
    assert [result.name for result in results if not result.ok] == ["shape"]
    assert "return x times its attention" in results[-1].text


# What a newcomer's study does with a gate of the package, in a copy that has four more files.
NEWCOMER = """
import json, sys
from attention_ablation.base.errors import UserError
from attention_ablation.detectors.record import check_fit
from attention_ablation.gates.record import Attention
from attention_ablation.networks.record import Backbone
from attention_ablation.study.config import StudyFile
from attention_ablation.study.files import parse

gates = {place: Attention(gate=f"toy_{place}") for place in ("end", "inside", "over", "stage")}
resnet = Backbone(name="resnet18", width=0.25)
for gate in gates.values():
    check_fit(gate, resnet, "rows.csv")
end = gates["end"]
assert end.options == {"reduction": 4, "times": 1.0}, end
assert end == Attention(gate="toy_end", options={"times": 1.0, "reduction": 4})
assert Attention.model_validate_json(end.model_dump_json()) == end
assert end.sized(8, None).options["reduction"] == 8 and end.sized(None, "identity") is end
chosen = Attention(gate="toy_end", options={"reduction": 2})
assert chosen.sized(8, None) is chosen  # a tier replaces the default alone
refused = []
for entry in ({"gate": "toy_ends"}, {"gate": "toy_end", "options": {"tims": 2.0}},
              {"gate": "toy_end", "pooling": "avg"}):
    try:
        parse(Attention, entry, "study.yaml")
    except UserError as error:
        refused.append(str(error))
try:
    check_fit(end.sized(32, None), resnet, "rows.csv")
except UserError as error:
    refused.append(str(error))
assert "torch" not in sys.modules

import torch
from attention_ablation.gates.build import FileGate
from attention_ablation.networks.build import build, initialise
gated = []
for gate in gates.values():
    model = build(resnet, gate, 10)
    initialise(model, 0)
    before = model.state_dict()["fc.weight"].clone()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model.fc.weight, before)
    gated.append([name for name, m in model.named_modules() if isinstance(m, FileGate)][:1])
print(json.dumps({"refused": refused, "gated": gated, "slugs": [g.slug for g in gates.values()]}))
"""


def test_a_gate_of_the_package_is_one_new_file(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src/attention_ablation", tmp_path / "attention_ablation")
    for name, place in zip(("end", "inside", "over", "stage"), PLACES, strict=True):
        file = tmp_path / f"attention_ablation/gates/toy_{name}.py"
        file.write_text(TOY.replace("PLACE", place))
    done = subprocess.run(
        [sys.executable, "-c", NEWCOMER], env={"PYTHONPATH": str(tmp_path)}, cwd=tmp_path,
        text=True, capture_output=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["slugs"] == ["toy_end", "toy_inside", "toy_over", "toy_stage"]
    blocks, stages = ["layer1.0.gate"], ["layer1.gate"]
    assert found["gated"] == [blocks, blocks, stages, stages]
    gate, option, beside, reduction = found["refused"]
    assert "unknown gate 'toy_ends'; did you mean 'toy_end'" in gate
    assert "unknown option 'tims'; did you mean 'times'" in option
    assert "'pooling' has no meaning beside gate" in beside
    assert "expected a reduction of at most 16" in reduction

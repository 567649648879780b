"""A user's own gate: its place in specs and networks, and what the checks find."""

import hashlib
import re
import signal
from pathlib import Path

import pytest
import torch
import yaml

from attention_ablation.base.errors import UserError
from attention_ablation.check.gate import check_gate
from attention_ablation.check.subject import Subject
from attention_ablation.cli.main import main
from attention_ablation.evidence.complexity import measure
from attention_ablation.gates.record import Attention, seal
from attention_ablation.networks.build import build, initialise
from attention_ablation.networks.record import Backbone
from tests.conftest import plan_from

RESNET = Backbone(name="resnet18", width=0.25)
# Squeeze-and-excitation again, written as a user would.
GATE = """
from torch import nn

class MyGate(nn.Module):
    def __init__(self, channels, reduction=16):
        super().__init__()
        self.down = nn.Linear(channels, channels // reduction)
        self.up = nn.Linear(channels // reduction, channels)

    def forward(self, x):
        weights = self.up(self.down(x.mean((2, 3))).relu()).sigmoid()
        return x * weights[:, :, None, None]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a file that has a gate."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_module.py").write_text(GATE)
    return tmp_path


def own(**options: object) -> Attention:
    entry = {"module": "my_module.py:MyGate", "options": options}
    return seal(Attention.model_validate(entry), Path(), "a test")


def test_it_is_counted_as_the_same_gate_of_the_package_is(folder: Path) -> None:
    theirs = measure(Backbone(name="resnet50"), own())
    assert theirs == measure(Backbone(name="resnet50"), Attention(pooling="avg"))
    assert theirs.params == 28_088_024


def test_its_file_is_part_of_the_runs_identity_and_others_ids_stay(project: Path) -> None:
    plain = plan_from(project / "config.yaml", project)
    add_row(project)
    (project / "my_module.py").write_text(GATE)
    plan = plan_from(project / "config.yaml", project)
    spec = plan.specs["table3", "resnet50+mine"]
    assert spec.run_id.startswith("resnet50_mygate_")
    assert spec.attention.module_sha256 == hashlib.sha256(GATE.encode()).hexdigest()
    assert plan.module_files == ["my_module.py"]
    assert plain.runs.items() < plan.runs.items()
    (project / "my_module.py").write_text(GATE + "# changed\n")
    changed = plan_from(project / "config.yaml", project)
    assert changed.specs["table3", "resnet50+mine"].run_id != spec.run_id
    (project / "my_module.py").unlink()
    with pytest.raises(
        UserError, match=r"attentions.mine: expected the gate's class in .*my_module"
    ):
        plan_from(project / "config.yaml", project)


def test_options_are_part_of_the_identity(folder: Path) -> None:
    assert own(reduction=8) != own(reduction=16)
    assert own().slug == "mygate"


def test_a_file_that_was_changed_since_is_refused(folder: Path) -> None:
    (folder / "my_module.py").write_text(GATE + "# not yet loaded\n")
    planned = own()
    (folder / "my_module.py").write_text(GATE)
    with pytest.raises(UserError, match=r"expected my_module.py with the SHA-256 .* changed since"):
        build(RESNET, planned, 10)
    with pytest.raises(UserError, match="changed since"):
        seal(planned, Path(), "study.yaml")


def test_initial_weights_are_the_constructors_own_repeatable_and_paired(folder: Path) -> None:
    first, again, plain = (build(RESNET, gate, 10) for gate in (own(), own(), Attention()))
    before = torch.get_rng_state()
    for model in (first, again, plain):
        initialise(model, 3)
    assert torch.equal(torch.get_rng_state(), before)
    states = first.state_dict(), again.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    for name, value in plain.state_dict().items():
        assert torch.equal(value, states[0][name]), name
    # Linear's constructor draws biases within 1 / sqrt(inputs); the authors' code makes them 0.
    biases = [states[0][f"layer{i}.0.gate.gate.down.bias"] for i in (3, 4)]
    assert all(bias.any() and bias.abs().max() <= 64**-0.5 for bias in biases)
    two = [states[0][f"layer1.{i}.gate.gate.down.weight"] for i in (0, 1)]
    assert not torch.equal(*two)  # a stream for each
    initialise(again, 4)
    other = again.state_dict()["layer1.0.gate.gate.down.weight"]
    assert not torch.equal(other, two[0])


def test_an_attention_map_alone_is_refused_and_not_broadcast(folder: Path) -> None:
    (folder / "my_module.py").write_text(GATE.replace("return x * ", "return "))
    with pytest.raises(UserError, match=r"expected the shape that came in, .* got \(2, 16, 1, 1\)"):
        build(RESNET, own(), 10)(torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"module": "mygate"}, "expected a file and a class in it, such as my_module.py:MyGate"),
        ({"module": "/tmp/a.py:A"}, "expected a path from the project's folder"),
        ({"module": "../a.py:A"}, "expected a path from the project's folder"),
        ({"module": "a.py:A", "pooling": "avg"}, "'pooling' has no meaning beside module"),
        ({"module": "a.py:A", "kernel": 3}, "'kernel' has no meaning without descriptor"),
        ({"module": "a.py:A", "reduction": 3}, "expected 'reduction' below 'options' of a module"),
        ({"gate": "a", "dilation": 2}, "expected 'dilation' below 'options' of a gate; put it"),
        (
            {"gate": "build"},
            "gates/build.py: expected one class whose __init__ begins with self, ch",
        ),
        ({"pooling": "avg", "options": {}}, "'options' has no meaning without module"),
    ],
)
def test_an_entry_without_meaning_is_refused(entry: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Attention.model_validate(entry)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(:", r"my_module.py: it does not run: SyntaxError: .* \(line 1\)"),
        (
            "import nowhere\n" + GATE,
            r"my_module.py: it imports 'nowhere' \(line 1\), which is not installed; install it",
        ),
        ("class MyGates: ...", "unknown class 'MyGate'; did you mean 'MyGates'?"),
        ("class MyGate: ...", "expected a class derived from torch.nn.Module"),
        (GATE.replace("reduction=16", "reduction=128"), r"MyGate\(16\) fails: ZeroDivisionError"),
    ],
)
def test_a_file_that_gives_no_gate_is_refused_by_name(
    folder: Path, source: str, message: str
) -> None:
    if "128" in source:
        source = source.replace(
            "channels // reduction", "channels % (1 // (channels // reduction))"
        )
    (folder / "my_module.py").write_text(source)
    with pytest.raises(UserError, match=message):
        build(RESNET, own(), 10)


def findings(**options: object) -> dict[str, str]:
    """The checks that fail, and what they say."""
    results = list(check_gate(Subject(own(**options), (16, 64), torch.device("cpu"))))
    return {result.name: result.text for result in results if not result.ok}


CBAM_LIKE = """
import torch
from torch import nn

class MyGate(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)
        self.norm = nn.BatchNorm2d(1)
        nn.init.zeros_(self.norm.weight)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return x * self.drop(self.norm(self.conv(pooled))).sigmoid()
"""


# Its maps are enlarged, which torch does in another, deterministic way on a GPU.
ENLARGED = GATE.replace(
    "x * weights[:, :, None, None]",
    "x * nn.functional.interpolate("
    "(nn.functional.adaptive_avg_pool2d(x, 1) * weights[:, :, None, None]).sigmoid(), "
    "x.shape[2:], mode='bilinear')",
)


@pytest.mark.parametrize(
    "source", [GATE, CBAM_LIKE, ENLARGED, "MyGate = __import__('torch').nn.Identity"]
)
def test_sound_gates_pass_all_checks(
    folder: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)  # compiling for the CPU takes long
    (folder / "my_module.py").write_text(source)
    results = list(check_gate(Subject(own(), (16, 64), torch.device("cpu"))))
    assert [result.text for result in results if not result.ok] == []
    texts = {result.name: result.text for result in results}
    assert "backend aot_eager" in texts["compile"]
    assert "no C++ compiler is here" in texts["compile"]


@pytest.mark.parametrize("reads", ["x.abs().amax() > 1e4", "len(x.new_ones(4).nonzero()) < 4"])
def test_of_a_gate_that_reads_values_of_the_map_the_rest_is_checked(
    folder: Path, reads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    clamped = f"        if {reads}:\n            x = x.clamp(-1e4, 1e4)\n        weights ="
    (folder / "my_module.py").write_text(GATE.replace("        weights =", clamped))
    subject = Subject(own(), (64,), torch.device("cpu"))
    texts = {result.name: result.text for result in check_gate(subject) if result.ok}
    assert "autocast on a GPU not tried: it reads values of the map" in texts["precision"]
    assert "within 0." in texts["precision"]
    too_large = reads.replace("1e4", "1e-9").replace("< 4", "< 9")
    spoilt = clamped.replace(reads, too_large).replace("x.clamp(-1e4, 1e4)", "x * 1e30 * 1e30")
    (folder / "my_module.py").write_text(GATE.replace("        weights =", spoilt))
    assert "not finite" in findings()["precision"]


# A part of the sound gate, what it is replaced by, and the check that finds it.
@pytest.mark.parametrize(
    ("line", "instead", "check", "message"),
    [
        ("reduction, channels)", "reduction, channels); nn.init.constant_(self.up.bias, __import__('random').random())", "made", "gate.up.bias starts otherwise"),
        ("return x * weights[:, :, None, None]", "return weights[:, :, None, None]", "shape", "not the attention alone"),
        ("x.mean((2, 3))", "x.view(len(x), -1).view(*x.shape).mean((2, 3))", "shape", "channels last.*not view"),
        ("x.mean((2, 3))", "x[:, :, :7, :7].reshape(x.shape[0], x.shape[1], 49).mean(2)", "shape", r"fails on \(3, 16, 1, 1\)"),
        ("return x * weights[:, :, None, None]", "return x.mul_(weights[:, :, None, None])", "shape", "changes its input in place"),
        ("return x", "return x.double()", "shape", "expected torch.float32"),
        ("self.up(", "torch.median(x, 1, keepdim=True).values + self.up(", "shape", "GPU refuses median.dim in deterministic mode"),
        ("return x", "x = x.put(torch.tensor([0]), torch.ones(1)); return x", "shape", "GPU refuses put in deterministic mode"),
        ("x.mean((2, 3))", "nn.AdaptiveMaxPool2d(1)(x).flatten(1)", "gradient", "GPU refuses adaptive_max_pool2d_backward in det"),
        ("x.mean((2, 3))", "(x.mean((2, 3)) * vars(self).setdefault('two', torch.full((1,), 2.0)))", "precision", "fails on a GPU.*cuda:0.*buffers"),
        (".sigmoid()", ".softmax(1)", "precision", r"on a GPU.*expected torch.bfloat16.*got torch.float32.*weights.to\(x.dtype\)"),
        ("super().__init__()", "super().__init__(); self.spare = nn.Linear(1, 1)", "gradient", "gate.spare.weight gets no gradient"),
        (".sigmoid()", ".sigmoid().detach()", "gradient", "gate.down.weight gets no gradient"),
        (".relu()", ".relu().sub(9).sqrt().nan_to_num()", "gradient", "not finite"),
        ("return x", "_ = x.sum().item(); return x", "counted", "meta device"),
        ("x.mean((2, 3))", "(x.mean((2, 3)) * 1e20).square()", "precision", "finite|changes"),
        ("x.mean((2, 3))", "(x.mean((2, 3)) + vars(self).setdefault('shift', x.new_empty(1).normal_()))", "save and load", "register_buffer"),
        (".relu()", ".relu() + nn.functional.dropout(x.mean((2, 3))[:, :1])", "evaluation", "self.training"),
        ("x.mean((2, 3))", "x.mean((0, 2, 3))[None].expand(x.shape[0], -1)", "evaluation", "other images of its batch"),
    ],
)  # fmt: skip
def test_each_mistake_is_found_by_its_check(
    folder: Path, line: str, instead: str, check: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert line in GATE
    (folder / "my_module.py").write_text("import torch\n" + GATE.replace(line, instead))
    found = findings()
    assert re.search(message, found.get(check, "")), found


def test_the_check_is_deterministic_and_puts_that_mode_and_random_states_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    asks = "assert torch.are_deterministic_algorithms_enabled(); return x * "
    (folder / "my_module.py").write_text("import torch\n" + GATE.replace("return x * ", asks))
    torch.use_deterministic_algorithms(False)  # whatever a training in this process left
    state = torch.get_rng_state()
    assert "shape" not in findings()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("place", "check"), [("import", "made"), ("made", "made"), ("use", "shape")]
)
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("__import__('sys').exit(0)", "SystemExit: 0"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ],
)
def test_a_module_that_ends_the_program_fails_the_check(
    folder: Path, line: str, message: str, place: str, check: str
) -> None:
    before = {"import": "class MyGate", "made": "        super()", "use": "        weights ="}[
        place
    ]
    indent = before[: len(before) - len(before.lstrip())]
    (folder / "my_module.py").write_text(GATE.replace(before, f"{indent}{line}\n{before}"))
    assert re.search(rf"{message}\b", findings()[check])


def test_ctrl_c_still_ends_the_check(folder: Path) -> None:
    (folder / "my_module.py").write_text(
        "import signal\nsignal.raise_signal(signal.SIGINT)\n" + GATE
    )
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        findings()
    assert signal.getsignal(signal.SIGINT) is before


def test_starting_a_gate_leaves_the_generators_of_gpus_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    torch.manual_seed(5)
    assert seeded == [5]  # that is what torch calls
    model = build(RESNET, own(), 10)
    seeded.clear()
    initialise(model, 3)
    assert seeded == []


def test_the_verb_prints_a_line_a_check_and_fails_with_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "my_module.py").write_text(GATE.replace("return x * ", "return "))
    assert main(["check", "my_module.py:MyGate", "--options", '{"reduction": 8}']) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ok    made: with 16, 22, 64, 2048 channels")
    assert lines[1].startswith("FAIL  shape: my_module.py:MyGate: expected the shape")
    assert lines[-1] == "my_module.py:MyGate: 1 failed."
    assert main(["check", "my_module.py:MyGate", "--options", "{"]) == 2
    assert main(["check", "my_modul.py:MyGate"]) == 2
    assert "check: expected the gate's class in my_modul.py" in capsys.readouterr().err


def add_row(project: Path) -> None:
    """Give Table 3 a row with the gate."""
    study = project / "workflow/studies/cbam/study.yaml"
    data = yaml.safe_load(study.read_text())
    data["attentions"]["mine"] = {"module": "my_module.py:MyGate"}
    study.write_text(yaml.safe_dump(data, sort_keys=False))
    with (study.parent / "rows.csv").open("a") as rows:
        rows.write("table3,ResNet50 + mine,resnet50,,mine,,,,,,,\n")

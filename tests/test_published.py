"""Published weights: the authors' names translated, torchvision's as they are, others refused."""

import json
import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import ResNet50_Weights, resnet50, resnext50_32x4d

from attention_ablation.base.errors import UserError
from attention_ablation.cli.main import main
from attention_ablation.datasets.contract import Folders, load
from attention_ablation.datasets.reading.data import ImageSet
from attention_ablation.gates.record import Attention
from attention_ablation.networks import published
from attention_ablation.networks.build import build
from attention_ablation.networks.published import CBAM_RESNET50, load_weights, read_weights
from attention_ablation.networks.record import Backbone
from attention_ablation.study.expand import Plan, load_plan
from attention_ablation.training.evaluate import evaluate
from tests.machines import ONE_CPU, in_one

CBAM = Attention(pooling="avg&max", descriptor="pool")
DEPTHS = (3, 4, 6, 3)
State = OrderedDict[str, Tensor]


def authors_state(width: int = 16, classes: int = 10, seed: int = 0) -> State:
    """A ResNet50 with CBAM as the authors' code names its weights; `width` channels in the stem."""
    draw = torch.Generator().manual_seed(seed)
    return OrderedDict(
        (name, torch.zeros(shape, dtype=torch.int64))
        if name.endswith("tracked")
        else (name, _values(name, shape, draw))
        for name, shape in authors_names(width, classes)
    )


def authors_names(width: int, classes: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    def norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        for part in ("weight", "bias", "running_mean", "running_var"):
            yield f"module.{name}.{part}", (channels,)
        yield f"module.{name}.num_batches_tracked", ()

    yield "module.conv1.weight", (width, 3, 7, 7)
    yield from norm("bn1", width)
    inputs = width
    for stage, depth in enumerate(DEPTHS):
        inner = width * 2**stage
        outer = 4 * inner
        for number in range(depth):
            block = f"layer{stage + 1}.{number}"
            shapes = (inner, inputs, 1, 1), (inner, inner, 3, 3), (outer, inner, 1, 1)
            for i, shape in enumerate(shapes, 1):
                yield f"module.{block}.conv{i}.weight", shape
                yield from norm(f"{block}.bn{i}", shape[0])
            if number == 0:
                yield f"module.{block}.downsample.0.weight", (outer, inputs, 1, 1)
                yield from norm(f"{block}.downsample.1", outer)
            gate = f"module.{block}.cbam"
            yield f"{gate}.ChannelGate.mlp.1.weight", (outer // 16, outer)
            yield f"{gate}.ChannelGate.mlp.1.bias", (outer // 16,)
            yield f"{gate}.ChannelGate.mlp.3.weight", (outer, outer // 16)
            yield f"{gate}.ChannelGate.mlp.3.bias", (outer,)
            yield f"{gate}.SpatialGate.spatial.conv.weight", (1, 2, 7, 7)
            yield from norm(f"{block}.cbam.SpatialGate.spatial.bn", 1)
            inputs = outer
    yield "module.fc.weight", (classes, inputs)
    yield "module.fc.bias", (classes,)


def _values(name: str, shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    values = torch.randn(shape, generator=draw)
    if name.endswith("running_var"):
        return 0.5 + values.abs()
    if len(shape) > 1:
        scale: float = (2 / values[0].numel()) ** 0.5
        return values * scale
    return 1 + 0.2 * values if re.search(r"(bn\d?|downsample\.1)\.weight", name) else 0.2 * values


def forward(state: State, x: Tensor) -> Tensor:
    """What the authors' network computes in evaluation mode, from its state alone."""

    def get(name: str) -> Tensor:
        return state[f"module.{name}"]

    def norm(name: str, x: Tensor) -> Tensor:
        parts = ("running_mean", "running_var", "weight", "bias")
        out: Tensor = F.batch_norm(x, *(get(f"{name}.{part}") for part in parts))
        return out

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        kernel = get(f"{name}.weight")
        return F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    def mlp(name: str, x: Tensor) -> Tensor:
        hidden = F.linear(x, get(f"{name}.1.weight"), get(f"{name}.1.bias")).clamp(min=0)
        return F.linear(hidden, get(f"{name}.3.weight"), get(f"{name}.3.bias"))

    x = F.max_pool2d(norm("bn1", conv("conv1", x, 2)).relu(), 3, 2, 1)
    for stage, depth in enumerate(DEPTHS, 1):
        for number in range(depth):
            block = f"layer{stage}.{number}"
            stride = 2 if stage > 1 and number == 0 else 1
            out = norm(f"{block}.bn1", conv(f"{block}.conv1", x)).relu()
            out = norm(f"{block}.bn2", conv(f"{block}.conv2", out, stride)).relu()
            out = norm(f"{block}.bn3", conv(f"{block}.conv3", out))
            gate = f"{block}.cbam.ChannelGate.mlp"
            channels = mlp(gate, out.mean((2, 3))) + mlp(gate, out.amax((2, 3)))
            out = out * channels.sigmoid()[..., None, None]
            pooled = torch.cat([out.amax(1, keepdim=True), out.mean(1, keepdim=True)], 1)
            gate = f"{block}.cbam.SpatialGate.spatial"
            out = out * norm(f"{gate}.bn", conv(f"{gate}.conv", pooled)).sigmoid()
            if number == 0:
                x = norm(f"{block}.downsample.1", conv(f"{block}.downsample.0", x, stride))
            x = (x + out).relu()
    return F.linear(x.mean((2, 3)), get("fc.weight"), get("fc.bias"))


def small() -> torch.nn.Module:
    return build(Backbone(name="resnet50", width=0.25, stride="v1.5"), CBAM, 10).eval()


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_the_authors_weights_give_the_authors_logits(tmp_path: Path, wrapper: str | None) -> None:
    state = authors_state()
    others = {"epoch": 90, "arch": "resnet50", "best_prec1": torch.tensor(77.6), "optimizer": {}}
    torch.save({wrapper: state, **others} if wrapper else state, tmp_path / "a.pth")
    ours, known = read_weights(str(tmp_path / "a.pth"))
    model = small()
    load_weights(model, ours, "a.pth")
    x = torch.randn(4, 3, 64, 64)
    logits = model(x)
    assert logits.std() > 0.1
    torch.testing.assert_close(logits, forward(state, x), rtol=1e-4, atol=1e-4)
    assert known is None  # of another size than the published one


def test_the_authors_names_hold_every_parameter_of_the_full_network(tmp_path: Path) -> None:
    state = OrderedDict(
        (name, torch.empty(shape, device="meta")) for name, shape in authors_names(64, 1000)
    )
    counted = [v.numel() for k, v in state.items() if "running" not in k and "tracked" not in k]
    assert sum(counted) == 28_089_624
    with torch.device("meta"):
        model = build(Backbone(name="resnet50", stride="v1.5"), CBAM, 1000)
    bare = {key.removeprefix("module."): value for key, value in state.items()}
    ours = published._ours(bare)
    assert {k: v.shape for k, v in ours.items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    # As weights saved by the torch of 2018, which had no such counters.
    load_weights(model, {k: v for k, v in ours.items() if "tracked" not in k}, "a test")


def test_the_published_errors_belong_to_the_published_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for width, classes, known in ((64, 1000, True), (64, 10, False), (16, 1000, False)):
        with torch.device("meta"):
            state = {name: torch.empty(shape) for name, shape in authors_names(width, classes)}
        monkeypatch.setattr("torch.load", lambda *_, state=state, **__: state)
        assert (read_weights("a.pth")[1] is CBAM_RESNET50) == known
    assert CBAM_RESNET50.top1_error == pytest.approx(100 - 77.622)
    assert CBAM_RESNET50.top5_error == pytest.approx(100 - 93.948)


@pytest.mark.parametrize(
    ("name", "reference"), [("resnet50", resnet50), ("resnext50", resnext50_32x4d)]
)
def test_torchvisions_weights_give_torchvisions_logits_exactly(
    tmp_path: Path, name: str, reference: type[torch.nn.Module]
) -> None:
    torch.manual_seed(0)
    theirs = reference().eval()
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    ours = build(Backbone(name=name, stride="v1.5"), Attention(), 1000).eval()
    state, known = read_weights(str(tmp_path / "a.pth"))
    load_weights(ours, state, "a.pth")
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(ours(x), theirs(x))
    assert known is None


def test_a_file_of_torchvisions_is_known_by_the_digest_in_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "renamed.pth")
    weights = ResNet50_Weights.IMAGENET1K_V1
    digest = weights.url.rsplit("-", 1)[-1].removesuffix(".pth")
    assert len(digest) == 8

    class Digest:
        def hexdigest(self) -> str:
            return f"{digest:0<64}"

    monkeypatch.setattr("hashlib.file_digest", lambda *_: Digest())
    known = read_weights(str(tmp_path / "renamed.pth"))[1]
    assert known is not None
    assert (known.top1_error, known.top5_error, known.resize) == (23.87, 7.138, 256)


def test_torchvisions_name_gives_its_weights_checked_and_without_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, object]] = []

    def download(url: str, **options: object) -> dict[str, Tensor]:
        asked.append({"url": url, **options})
        return {"fc.bias": torch.zeros(1000)}

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    state, known = read_weights("torchvision:ResNet50_Weights.IMAGENET1K_V2")
    assert list(state) == ["fc.bias"]
    assert known is not None
    assert (known.top1_error, known.resize) == (19.142, 232)
    url = ResNet50_Weights.IMAGENET1K_V2.url
    assert asked == [{"url": url, "check_hash": True, "weights_only": True}]

    def offline(url: str, **options: object) -> dict[str, Tensor]:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(UserError, match=r"resnet50-.*\.pth: it cannot be downloaded: .*no route"):
        read_weights("torchvision:ResNet50_Weights.IMAGENET1K_V2")
    for name in ("ResNet5_Weights.V1", "ResNet50_Weights.V3", "x"):
        with pytest.raises(UserError, match=f"torchvision has no weights '{name}'"):
            read_weights(f"torchvision:{name}")


def test_other_weights_are_refused_by_name() -> None:
    state = published._ours(
        {k.removeprefix("module."): v for k, v in authors_state(classes=20).items()}
    )
    del state["layer1.0.conv1.weight"]
    state["layer9.weight"] = torch.zeros(1)
    with pytest.raises(UserError) as error:
        load_weights(small(), state, "a.pth")
    assert str(error.value) == (
        "a.pth: expected the weights of this network, got others; missing: layer1.0.conv1.weight; "
        "left over: layer9.weight; of another shape: fc.weight is (20, 512) and not (10, 512), "
        "fc.bias is (20,) and not (10,)."
    )
    plain = build(Backbone(name="resnet50", width=0.25), Attention(), 10).state_dict()
    with pytest.raises(
        UserError, match=r"missing: layer1.0.gate.0.attention.mlp.0.weight, .* more"
    ):
        load_weights(small(), plain, "a.pth")


class Unwanted:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("code ran",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected a network's state"),
        ({"state_dict": {"a": 1}}, "expected a network's state"),
        (Unwanted(), "read without running"),
        (None, "it cannot be read: No such file"),
        (b"", "expected tensors saved by torch.save"),
        (b"PK\x03\x04 cut short", "expected tensors saved by torch.save"),
    ],
)
def test_a_file_without_weights_is_refused_and_runs_nothing(
    tmp_path: Path, content: object, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=message):
        read_weights(str(path))
    assert "code ran" not in capsys.readouterr().out


def test_a_finished_run_evaluates_to_its_own_numbers(
    tiny: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny.row_runs("table3", "resnet50+cbam")[0]
    folder = tiny.runs_folder / run.path
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(run.canonical() + "\n")
    assert main(["train", str(folder / "spec.json")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(folder / "spec.json")]) == 0
    shown = capsys.readouterr().out
    metrics = json.loads((folder / "metrics.json").read_text())
    assert "50 validation images" in shown
    for name in ("top-1", "top-5"):
        line = next(line for line in shown.splitlines() if name in line)
        ours, recorded = re.findall(r"\d+\.\d{3}", line)
        value = metrics[f"validation_{name.replace('-', '')}_error"]
        assert ours == recorded == f"{value:.3f}"
    assert f"loss {metrics['validation_loss']:.4f}" in shown
    found, _, _ = evaluate(run, str(folder / "weights.pt"), in_one(Path("results/data")), ONE_CPU)
    for name in ("loss", "top1_error", "top5_error"):
        assert found[name] == metrics[f"validation_{name}"]
    (folder / "weights.pt").unlink()
    assert main(["evaluate", str(folder / "spec.json")]) == 2
    assert "weights.pt: it cannot be read" in capsys.readouterr().err


def test_a_row_evaluates_given_weights_beside_what_is_printed(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    state = authors_state(width=64)
    torch.save({"state_dict": state}, project / "a.pth")
    command = ["evaluate", "resnet50+cbam", "--tier", "tiny", "--weights", "a.pth"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    tier = load_plan({"study": "cbam", "tier": "tiny", "tables": ["table3"]}).tier
    folder = project / "results/data"
    data = load(tier.classification.recipe.dataset, Folders(folder, folder))
    assert isinstance(data.validation, ImageSet)
    pixels = (data.validation.images.float() / 255 - data.mean) / data.std
    with torch.inference_mode():
        best = forward(state, pixels.expand(-1, 3, -1, -1)).topk(5).indices
    hit = best == data.validation.labels[:, None]
    top1, top5 = (100 * (1 - share.float().mean().item()) for share in (hit[:, 0], hit.any(1)))
    assert re.search(rf"top-1 error \(%\) +{top1:.3f} +22\.66\n", shown), shown
    assert re.search(rf"top-5 error \(%\) +{top5:.3f} +6\.31\n", shown), shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet50+cbam"], "resnet50+cbam: expected --weights with a row"),
        (["a/spec.json", "--weights", "a.pth"], "a finished run has its own"),
        (["a/spec.json"], "a/spec.json: there is no such spec"),
        (["resnet50+cabm", "--weights", "a"], "unknown row 'resnet50+cabm'; did you mean"),
        (["resnet50", "--weights", "a", "--tier", "imagnet"], "unknown tier 'imagnet'"),
        (["resnet50", "--weights", "a.pth"], "a.pth: it cannot be read"),
    ],
)
def test_mistakes_are_told(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(project)
    assert main(["evaluate", *arguments]) == 2
    assert message in capsys.readouterr().err

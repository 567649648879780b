"""Where networks look: Grad-CAM, how maps are measured, and Figure 5 from end to end."""

import json
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from torch import nn

from attention_ablation.cli.main import main
from attention_ablation.datasets.contract import load
from attention_ablation.evidence import gradcam as method
from attention_ablation.evidence.gradcam import choose, gradcam, layers
from attention_ablation.evidence.localisation import box_share, energy_in_box, hit, iou
from attention_ablation.evidence.statistics import bootstrap_interval, t_interval
from attention_ablation.figures.gradcam import GradCamFigure
from attention_ablation.figures.parts.gradcam import COLUMNS, gradcam_frame
from attention_ablation.gates.record import Attention
from attention_ablation.networks.build import build, initialise
from attention_ablation.networks.record import Backbone
from attention_ablation.report.collect import collect
from attention_ablation.runs.folder import sha256
from attention_ablation.runs.verify import check_run
from attention_ablation.study.config import Config, Study
from attention_ablation.study.expand import Plan, load_plan
from tests.conftest import plan_from, shrink_study
from tests.run_folders import finished

KEYS = ["resnet18", "resnet18+se", "resnet18+cbam"]
ROWS = """table,label,backbone,attention,params_m,gflops,top1_error,top5_error
table4,ResNet18,resnet18,none,,,,
table4,ResNet18 + SE,resnet18,se,,,,
table4,ResNet18 + CBAM,resnet18,cbam,,,,
"""


class Pooled(nn.Module):
    """1x1 convolution, mean over places, linear: its Grad-CAM is known in closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        self.fc = nn.Linear(2, 3, bias=False)
        with torch.no_grad():
            # Channel 0 is red, channel 1 is green less blue.
            self.conv.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, -1]])[..., None, None])
            self.fc.weight.copy_(torch.tensor([[2.0, 0], [0, 3], [-1, -1]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> (N, 3)."""
        logits: torch.Tensor = self.fc(self.conv(x).mean(dim=(2, 3)))
        return logits


def test_gradcam_is_the_closed_form() -> None:
    images = torch.randn(7, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    model = Pooled().eval().requires_grad_(False)
    explained = gradcam(model, model.conv, images, labels)
    # d logit_k / d A_c is w_kc / places everywhere, so the map is ReLU(sum_c w_kc A_c) / places.
    maps = model.conv(images)
    weights = model.fc.weight[labels] / 20
    expected = torch.einsum("nc,nchw->nhw", weights, maps).relu()
    np.testing.assert_allclose(explained.maps, expected, rtol=1e-5, atol=1e-7)
    softmax = model(images).softmax(dim=1)[torch.arange(7), labels]
    np.testing.assert_allclose(explained.probability, softmax, rtol=1e-6)


def test_a_small_map_is_enlarged_bilinearly() -> None:
    class Halved(Pooled):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(nn.functional.avg_pool2d(x, 2))

    images = torch.zeros(1, 3, 4, 4)
    images[:, 0, :2, :2] = 8.0  # one place of four, red
    model = Halved().eval().requires_grad_(False)
    found = gradcam(model, model.conv, images, torch.tensor([0])).maps[0]
    # The place has 8 * 2 / 4 = 4. Pixel centres lie at -0.25, 0.25, 0.75 and 1.25 places.
    line = np.array([1, 0.75, 0.25, 0])
    np.testing.assert_allclose(found, 4 * np.outer(line, line), atol=1e-6)


@pytest.mark.parametrize(
    "attention", [{}, {"pooling": "avg&max", "reduction": 4, "descriptor": "pool"}]
)
def test_batches_do_not_matter_and_equal_calls_are_equal(
    attention: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = Backbone(name="resnet18", width=0.25)
    model = build(backbone, Attention.model_validate(attention), 10)
    initialise(model, 0)
    model.eval().requires_grad_(False)
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(6)
    once, again = (gradcam(model, model.layer2, images, labels) for _ in range(2))
    np.testing.assert_array_equal(once.maps, again.maps)
    monkeypatch.setattr(method, "BATCH", 4)
    np.testing.assert_allclose(
        gradcam(model, model.layer2, images, labels).maps, once.maps, rtol=1e-3, atol=1e-6
    )
    assert once.maps.min() >= 0
    assert once.maps.max() > 0


@pytest.mark.parametrize(
    ("backbone", "size", "layer", "map_size"),
    [
        ("resnet50", 224, "layer4", (7, 7)),  # the paper's: the last convolution's output
        ("resnext50", 224, "layer4", (7, 7)),
        ("mobilenet", 224, "features.26", (7, 7)),
        ("resnet18", 32, "layer2", (4, 4)),
        ("mobilenet", 48, "features.10", (6, 6)),
        ("resnet18", 8, "layer1", (2, 2)),  # none is large enough: the largest
    ],
)
def test_the_explained_layer_is_the_last_with_a_map(
    backbone: str, size: int, layer: str, map_size: tuple[int, int]
) -> None:
    with torch.device("meta"):
        model = build(Backbone(name=backbone), Attention(), 10).eval()
        candidates = layers(model, model.stages, torch.empty(1, 3, size, size))
    found = choose(candidates)
    assert (found.name, found.size) == (layer, map_size)
    assert dict(model.named_modules())[layer] is found.module
    assert candidates[-1].name in ("layer4", "features.26")
    assert not any(stage._forward_hooks for stage in model.stages.values())


MAPS = np.zeros((3, 4, 4))
MAPS[0, 1, 1], MAPS[0, 1, 2], MAPS[0, 3, 3] = 4, 2, 2  # 6 of 8 in the box below
MAPS[1, 0, 0], MAPS[1, 1, 1], MAPS[1, 2, 2] = 5, 5, 2  # two maxima, one in the box
BOXES = np.array([[1, 1, 3, 3]] * 3, dtype=np.int16)  # 2x2 px


def test_measures_of_hand_made_maps() -> None:
    np.testing.assert_allclose(energy_in_box(MAPS, BOXES), [6 / 8, 7 / 12, 0])
    np.testing.assert_allclose(hit(MAPS, BOXES), [1, 1 / 2, 0])
    # At 0.5 the first map has 3 places, 2 of them in the box; the second has 2 and 1.
    np.testing.assert_allclose(iou(MAPS, BOXES, 0.5), [2 / 5, 1 / 5, 0])
    np.testing.assert_allclose(iou(MAPS, BOXES, 0.6), [1 / 4, 1 / 5, 0])
    np.testing.assert_allclose(box_share((4, 4), BOXES), 1 / 4)
    # A map without preference scores what chance does.
    np.testing.assert_allclose(energy_in_box(np.ones((3, 4, 4)), BOXES), 1 / 4)
    np.testing.assert_allclose(hit(np.ones((3, 4, 4)), BOXES), 1 / 4)


def test_a_maximum_repeated_with_rounding_is_one_plateau() -> None:
    maps = np.zeros((1, 4, 4), np.float32)
    maps[0, 3, 2:] = 1, np.nextafter(np.float32(1), np.float32(0))
    np.testing.assert_allclose(hit(maps, np.array([[0, 0, 3, 4]])), [0.5])


# A training in this process flushes subnormal numbers to 0, on which hypothesis would insist.
ELEMENTS = st.floats(0, 1e6, width=32, allow_subnormal=False)


@given(
    maps=arrays(np.float32, (2, 5, 6), elements=ELEMENTS),
    x=st.tuples(st.integers(0, 5), st.integers(1, 6)),
    y=st.tuples(st.integers(0, 4), st.integers(1, 5)),
)
@settings(deadline=None)
def test_measures_are_shares(maps: np.ndarray, x: tuple[int, int], y: tuple[int, int]) -> None:
    box = np.array([[x[0], y[0], max(x[0] + 1, x[1]), max(y[0] + 1, y[1])]] * 2)
    everything = np.array([[0, 0, 6, 5]] * 2)
    for found in (energy_in_box(maps, box), hit(maps, box), iou(maps, box, 0.5)):
        assert ((found >= 0) & (found <= 1)).all()
    full = maps.max(axis=(1, 2)) > 0  # an empty map misses even a box that is everywhere
    np.testing.assert_array_equal(energy_in_box(maps, everything), full)
    np.testing.assert_array_equal(hit(maps, everything), full)


def test_intervals_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = bootstrap_interval(values.tolist())
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert bootstrap_interval(values.tolist()) == (low, high)
    assert bootstrap_interval([2.0, 2.0, 2.0]) == (2, 2)
    expected = stats.ttest_1samp([1.0, 2.0, 4.0], 0).confidence_interval(0.95)
    assert t_interval([1.0, 2.0, 4.0]) == pytest.approx((expected.low, expected.high))
    assert np.isnan(bootstrap_interval([1.0])).all()
    assert t_interval([1.0]) is None


@pytest.fixture
def plan(project: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Three rows of ResNet18 and their Figure 5, nothing trained yet."""
    monkeypatch.chdir(project)
    figure = study.figures["figure5"].model_dump() | {"rows": KEYS}
    shrink_study(project, ROWS, {"figure5": figure})
    return plan_from(Path("config.yaml"))


def spec(plan: Plan, key: str, seed: int = 0) -> Path:
    """A row's planned run."""
    run = load_plan(plan.config.model_copy(update={"seeds": [seed]})).row_runs("table4", key)[0]
    path = plan.runs_folder / run.path / "spec.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(run.canonical())
    return path


def explained(plan: Plan, key: str, seed: int = 0) -> Path:
    """Train and explain a row's run, and return its folder."""
    path = spec(plan, key, seed)
    for verb in ("train", "gradcam"):
        assert main([verb, str(path), "--device", "cpu"]) == 0
    return path.parent


def explain(folder: Path, **facts: Any) -> None:
    """Write the `gradcam.json` of what is beside it, as Grad-CAM does."""
    found = {"status": "completed", "method": "Grad-CAM", "images": 5}
    for name, file in (("images", "gradcam.csv"), ("maps", "gradcam.npz")):
        digest = sha256(folder / file) if (folder / file).exists() else ""
        found[f"{name}_sha256"] = digest
    found["weights_sha256"] = sha256(folder / "weights.pt")
    (folder / "gradcam.json").write_text(json.dumps(found | facts))


def figure5(plan: Plan) -> GradCamFigure:
    entry = plan.study.figures["figure5"]
    assert isinstance(entry, GradCamFigure)
    return entry


def test_from_a_training_to_the_figure(plan: Plan) -> None:
    folder = explained(plan, "resnet18")
    explained(plan, "resnet18+cbam")
    found = json.loads((folder / "gradcam.json").read_text())
    frame = pd.read_csv(folder / "gradcam.csv")
    names = ["index", "label", "energy_in_box", "hit", "iou", "probability"]
    assert frame.columns.to_list() == names
    assert (found["status"], found["images"], found["threshold"]) == ("completed", 50, 0.5)
    assert (found["layer"], found["map_size"], found["last_map_size"]) == ("layer2", [4, 4], [1, 1])
    assert 0.1 < found["uniform_map"] < 1
    for mean, column in (("energy_in_box", "energy_in_box"), ("hit_rate", "hit"), ("iou", "iou"),
                         ("target_probability", "probability")):  # fmt: skip
        assert found[mean] == pytest.approx(frame[column].mean(), abs=2e-6)
    assert found["empty_maps"] <= (frame["energy_in_box"] == 0).sum()
    # The same network on the same images as in the training's last evaluation.
    metrics = json.loads((folder / "metrics.json").read_text())
    assert -np.log(frame["probability"]).mean() == pytest.approx(
        metrics["validation_loss"], rel=1e-3
    )
    with np.load(folder / "gradcam.npz") as shown:
        first = frame.drop_duplicates("label").sort_values("label")
        assert shown["index"].tolist() == first["index"].tolist()
        assert shown["map"].shape == (len(first), 32, 32)
        assert shown["map"].max() == 1

    files = ("gradcam.json", "gradcam.csv", "gradcam.npz")
    before = {name: (folder / name).read_bytes() for name in files}
    assert main(["gradcam", str(folder / "spec.json"), "--device", "cpu"]) == 0
    assert {
        name: (folder / name).read_bytes() for name in files
    } == before  # the same, byte for byte

    assert main(["render", "figure5"]) == 0
    out = plan.folder / "figures"
    svg = (out / "figure5.svg").read_text()
    assert ET.fromstring(svg).tag.endswith("svg")
    for text in ("ResNet18 + CBAM", "ResNet18 + SE", "run missing", "P = ", "the first"):
        assert text in svg
    assert (out / "figure5.png").read_bytes()[:4] == b"\x89PNG"
    lines = pd.read_csv(out / "figure5.csv")
    assert lines.columns.to_list() == COLUMNS
    assert set(lines["row"]) == {"resnet18", "resnet18+cbam"}
    assert set(lines["metric"][lines["row"] == "resnet18"]) == set(found) & set(lines["metric"])
    assert (lines["n_images"] == 50).all()
    assert (lines["interval"] == "bootstrap over images").all()
    assert (lines["ci_low"] <= lines["mean"]).all()
    assert (lines["mean"] <= lines["ci_high"]).all()
    by = lines.set_index(["row", "metric"])["mean"]
    assert by["resnet18+cbam", "iou_difference"] == pytest.approx(
        by["resnet18+cbam", "iou"] - by["resnet18", "iou"], abs=2e-6
    )
    assert main(["render", "figure5"]) == 0
    assert (out / "figure5.svg").read_text() == svg

    runs = collect(plan).set_index("rows")
    assert runs.loc["table4:resnet18", "gradcam_energy_in_box"] == found["energy_in_box"]
    assert runs.loc["table4:resnet18", "gradcam_target_probability"] == found["target_probability"]
    assert pd.isna(runs.loc["table4:resnet18+se", "gradcam_hit_rate"])


def test_verify_finds_a_planted_or_edited_gradcam(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, other = explained(plan, "resnet18"), explained(plan, "resnet18+cbam")
    path, kept = folder / "gradcam.json", (folder / "gradcam.json").read_text()

    def said() -> str:
        findings = [f for f in check_run(folder) if f.level == "wrong"]
        again = f"`attention-ablation gradcam {folder}/spec.json` writes it again"
        assert all(finding.remedy == again for finding in findings)
        return "; ".join(f"{finding.level}: {finding.text}" for finding in findings)

    assert said() == ""
    path.write_text(re.sub(r'("iou": 0\.)', r"\g<1>9", kept))
    assert said() == "wrong: iou in gradcam.json is not the mean of gradcam.csv"
    path.write_text((other / "gradcam.json").read_text())  # planted, another run's
    assert "wrong: gradcam.json is of other weights than the run's" in said()
    path.write_text(json.dumps(json.loads(kept) | {"hit_rate": 0.99}))
    assert "wrong: hit_rate in gradcam.json is not the mean of gradcam.csv" in said()
    path.write_text(kept)
    for name in ("gradcam.csv", "gradcam.npz"):
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(before[:-1])
        assert said() == f"wrong: {name} has not the digest that was recorded"
        (folder / name).unlink()
        assert f"wrong: {name}: it cannot be read" in said()
        (folder / name).write_bytes(before)
    old = {k: v for k, v in json.loads(kept).items() if not k.endswith("_sha256")}
    path.write_text(json.dumps(old))
    assert said() == "wrong: damaged: gradcam.json: images_sha256: field required"
    path.write_text(kept)
    assert main(["render"]) == 0
    assert main(["verify"]) == 0
    figure = plan.folder / "figures/figure5.csv"
    figure.write_bytes(figure.read_bytes().replace(b"0.", b"0.9", 1))
    assert main(["verify"]) == 1
    assert f"wrong: {figure}: not what its runs give now" in capsys.readouterr().out


def test_a_planted_gradcam_of_a_run_that_has_not_finished_is_shown_nowhere(plan: Plan) -> None:
    folder = spec(plan, "resnet18").parent
    (folder / "weights.pt").write_bytes(b"weights")
    (folder / "gradcam.csv").write_text("index,label,iou\n0,0,0.99\n")
    explain(folder, iou=0.99)
    assert main(["render", "runs", "figure5"]) == 0
    assert "0.99" not in (plan.folder / "runs.csv").read_text()
    assert len(pd.read_csv(plan.folder / "figures/figure5.csv")) == 0


def test_without_boxes_there_are_pictures_and_probabilities(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = spec(plan, "resnet18")
    assert main(["train", str(path), "--device", "cpu"]) == 0

    def without_boxes(*arguments: Any) -> Any:
        data: Any = load(*arguments)
        return replace(data, validation=replace(data.validation, boxes=None))

    monkeypatch.setattr("attention_ablation.evidence.explain.load", without_boxes)
    assert main(["gradcam", str(path), "--device", "cpu"]) == 0
    found = json.loads((path.parent / "gradcam.json").read_text())
    assert found["target_probability"] > 0
    assert not {"energy_in_box", "hit_rate", "iou", "uniform_map"} & found.keys()
    frame = pd.read_csv(path.parent / "gradcam.csv")
    assert frame.columns.to_list() == ["index", "label", "probability"]
    assert main(["render", "runs", "figure5"]) == 0
    assert pd.read_csv(plan.folder / "figures/figure5.csv")["metric"].tolist() == [
        "target_probability"
    ]
    assert "white frame" not in (plan.folder / "figures/figure5.svg").read_text().lower()


def test_several_seeds_are_compared_seed_by_seed(plan: Plan) -> None:
    seeds = load_plan(Config(study="cbam", tier="tiny", seeds=[0, 1, 2]))
    for key, shift in zip(KEYS, (0, 0.1, 0.2), strict=True):
        for run in seeds.row_runs("table4", key):
            if (key, run.seed) == ("resnet18+se", 2):
                continue
            folder = finished(seeds, run, 50.0)
            values = np.linspace(0.1, 0.3, 5) + shift + 0.01 * run.seed * (1 + shift)
            pd.DataFrame({"index": range(5), "label": 0, "iou": values}).to_csv(
                folder / "gradcam.csv", index=False
            )
            explain(folder)
    frame = gradcam_frame(seeds, figure5(seeds)).set_index(["row", "metric"])
    lines: dict[Any, Any] = frame.to_dict("index")
    line = lines["resnet18+cbam", "iou_difference"]
    differences = [0.2 + 0.002 * seed for seed in range(3)]
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert line["mean"] == pytest.approx(0.202)
    assert (line["ci_low"], line["ci_high"]) == pytest.approx(
        (expected.low, expected.high), abs=1e-6
    )
    assert (line["interval"], line["n_images"], line["n_seeds"]) == ("t over seeds", 5, 3)
    assert lines["resnet18+se", "iou_difference"]["n_seeds"] == 2  # the seeds that both have


def test_equal_seeds_have_no_interval(plan: Plan) -> None:
    first, second = (explained(plan, "resnet18", seed) for seed in (0, 1))
    shutil.copy(first / "gradcam.csv", second)
    one, two = (json.loads((folder / "gradcam.json").read_text()) for folder in (first, second))
    recorded = two | {"images_sha256": one["images_sha256"]}
    (second / "gradcam.json").write_text(json.dumps(recorded))
    assert main(["render", "figure5", "--set", "seeds=[0, 1]"]) == 0
    lines = pd.read_csv(plan.folder / "figures/figure5.csv").set_index("metric")
    assert (lines["n_seeds"] == 2).all()
    assert lines[["ci_low", "ci_high"]].isna().all(axis=None)
    root = ET.fromstring((plan.folder / "figures/figure5.svg").read_text())
    words = " ".join(" ".join(root.itertext()).split())
    mean = float(lines["mean"]["target_probability"])
    assert f"mean P {mean:.2f} energy in box" in words
    assert "Without an interval: equal values, which do not say how far a mean is known." in words


def test_the_caption_says_which_seeds_are_missing(plan: Plan) -> None:
    seeds = ["--set", "seeds=[0, 1]"]
    svg = plan.folder / "figures/figure5.svg"
    for seed, said in ((0, True), (1, False)):
        explained(plan, "resnet18", seed)
        assert main(["render", "figure5", *seeds]) == 0
        caption = " ".join(ET.fromstring(svg.read_text()).itertext()).split("P: softmax")[1]
        words = " ".join(caption.split())
        assert "Seeds are missing: " in words  # of the other two rows
        assert "ResNet18 + SE has 0 of 2" in words
        assert ("ResNet18 has 1 of 2" in words) == said


def test_what_is_missing_diverged_or_failed_is_said(plan: Plan) -> None:
    assert main(["render", "figure5"]) == 0  # nothing is there
    svg = (plan.folder / "figures/figure5.svg").read_text()
    assert svg.count("run missing") == 3
    none, se, cbam = (spec(plan, key).parent for key in KEYS)
    finished(plan, plan.row_runs("table4", "resnet18")[0], 50.0)
    finished(plan, plan.row_runs("table4", "resnet18+se")[0], 50.0, status="diverged")
    (cbam / "failure.json").write_text('{"status": "failed", "reason": "out of memory"}')
    (none / "gradcam.json").write_text("{")  # cut short
    (none / "gradcam.npz").write_bytes(b"PK")
    assert main(["gradcam", str(se / "spec.json"), "--device", "cpu"]) == 0
    assert json.loads((se / "gradcam.json").read_text())["images"] == 0
    assert main(["render"]) == 0
    svg = (plan.folder / "figures/figure5.svg").read_text()
    for text in ("its Grad-CAM", "run diverged", "run failed: out of memory"):
        assert text in svg
    assert len(pd.read_csv(plan.folder / "figures/figure5.csv")) == 0


def test_a_run_that_cannot_be_explained_says_why(
    plan: Plan, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = spec(plan, "resnet18")
    explain = ["gradcam", str(path), "--device", "cpu"]
    assert main(explain) == 2
    assert "expected a finished run, whose weights" in capsys.readouterr().err
    assert main(["train", str(path), "--device", "cpu"]) == 0
    weights = path.parent / "weights.pt"
    shutil.move(weights, path.parent / "moved")
    assert main(explain) == 2
    assert "weights are gone; delete its folder" in capsys.readouterr().err
    shutil.move(path.parent / "moved", weights)
    next(plan.data_folder.glob("*.npz")).unlink()
    # As another version of a package may compose.
    monkeypatch.setattr("attention_ablation.datasets.digits.FRAGMENT_SHARE", 0.5)
    assert main(explain) == 2
    assert "expected the data set that" in capsys.readouterr().err

"""Parameters and multiply-accumulates, to the digit, of every network in the paper's tables."""

import csv
import hashlib
import subprocess
import sys
from decimal import Decimal

import pytest

from attention_ablation.cli.main import main
from attention_ablation.detectors.record import Detector
from attention_ablation.evidence.complexity import (
    Complexity,
    compare,
    count_rows,
    measure,
)
from attention_ablation.gates.record import Attention
from attention_ablation.networks.record import Backbone
from attention_ablation.study.config import Study
from attention_ablation.study.expand import Plan
from attention_ablation.study.metrics import CountSize
from tests.conftest import ROOT

# backbone, attention: exact parameters, and multiply-accumulates in 1e9 to six decimals.
EXACT = {
    "resnet18": ("11,689,512 11,778,592 11,779,392", "1.814073 1.814160 1.815064"),
    "resnet34": ("21,797,672 21,958,868 21,960,468", "3.663761 3.663919 3.665435"),
    "resnet50": ("25,557,032 28,088,024 28,089,624", "3.857973 3.860488 3.864362"),
    "resnet101": ("44,549,160 49,326,872 49,330,172", "7.570194 7.574938 7.581366"),
    "wide-resnet18-1.5": ("25,875,816 26,074,716 26,075,516", "3.866327 3.866523 3.867535"),
    "wide-resnet18-2.0": ("45,618,216 45,970,456 45,971,256", "6.695707 6.696055 6.697219"),
    "resnext50": ("25,028,904 27,559,896 27,561,496", "3.768058 3.770573 3.774447"),
    "resnext101": ("44,177,704 48,955,416 48,958,716", "7.507575 7.512318 7.518747"),
    "mobilenet-0.7": ("2,298,747 2,709,854 2,712,554", "0.282957 0.283360 0.289237"),
    "mobilenet": ("4,231,976 5,072,276 5,074,976", "0.568740 0.569569 0.575872"),
}
EXACT_TABLE_2 = {
    "resnet50+channel": ("28,088,024", "3.863003"),
    "resnet50+channel+spatial-conv1x1-k3": ("28,103,336", "3.868647"),
    "resnet50+channel+spatial-conv1x1-k7": ("28,103,976", "3.869202"),
    "resnet50+channel+spatial-pool-k3": ("28,088,344", "3.863253"),
    "resnet50+cbam": ("28,089,624", "3.864362"),
}
EXACT_TABLE_7 = {
    "vgg16+ssd": "26,515,936",
    "vgg16+stairnet": "32,005,600",
    "vgg16+stairnet+se": "32,056,384",
    "vgg16+stairnet+cbam": "32,056,984",
    "mobilenet+ssd": "5,813,536",
    "mobilenet+stairnet": "5,981,600",
    "mobilenet+stairnet+se": "5,994,704",
    "mobilenet+stairnet+cbam": "5,995,304",
    "vgg16+stairnet+eca": "32,005,630",
}


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """The complexity.csv that the command writes, read back."""
    results = tmp_path_factory.mktemp("results")
    subprocess.run(
        [sys.executable, "-m", "attention_ablation.cli.main", "render", "complexity",
         "--set", f"results={results}"],
        cwd=ROOT, check=True,
    )  # fmt: skip
    (written,) = results.rglob("complexity.csv")
    return list(csv.DictReader(written.read_text("utf-8").splitlines()))


def test_every_network_is_exact(printed: list[dict[str, str]]) -> None:
    found = {(row["table"], row["row"]): (row["params"], row["gflops"]) for row in printed}
    for backbone, (params, gflops) in EXACT.items():
        table = "table5" if backbone.startswith("mobilenet") else "table4"
        keys = [backbone, f"{backbone}+se", f"{backbone}+cbam"]
        for key, n, g in zip(keys, params.split(), gflops.split(), strict=True):
            assert found[table, key] == (n.replace(",", ""), g)
    for key, (params_text, g) in EXACT_TABLE_2.items():
        assert found["table2", key] == (params_text.replace(",", ""), g)
    for key, params_text in EXACT_TABLE_7.items():
        assert found["table7", key] == (params_text.replace(",", ""), "")


def test_every_printed_cell_matches_or_is_a_named_discrepancy(
    printed: list[dict[str, str]], study: Study
) -> None:
    columns = "table,row,label,backbone,attention,params,params_m_paper,gflops,gflops_paper,verdict"
    assert list(printed[0]) == columns.split(",")
    assert len(printed) == len(study.rows) == 59
    explained = [row for row in printed if row["verdict"] in study.discrepancies]
    assert [(row["table"], row["row"]) for row in explained] == [
        (d.table, key) for d in study.discrepancies.values() for key in d.rows
    ]
    others = {row["verdict"] for row in printed if row not in explained}
    assert others == {"match", "not printed"}
    silent = {row["table"] for row in printed if row["verdict"] == "not printed"}
    assert silent == {"table1", "table3", "table6", "table7"}  # of Table 1 BAM, of Table 7 ECA


def test_a_difference_that_nothing_explains_is_a_mismatch(study: Study) -> None:
    row = study.table_rows("table4")[0]
    wrong = row.model_copy(update={"printed": {"params_m": "11.70"}})
    ours = measure(Backbone(name="resnet18"), Attention())
    assert compare(study, wrong, ours) == "MISMATCH"
    assert compare(study, row, ours) == "match"


def test_multiply_accumulates_of_the_stem_and_the_classifier_by_hand() -> None:
    full = measure(Backbone(name="mobilenet"), Attention())
    stem = 112 * 112 * 3 * 9 * 32
    blocks, channels, size = 0, 32, 112
    for out, stride in [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5,
                        (1024, 2), (1024, 1)]:  # fmt: skip
        size //= stride
        blocks += size * size * (9 * channels + channels * out)
        channels = out
    assert full.gflops == Decimal(stem + blocks + 1024 * 1000).scaleb(-9)


def test_rows_are_measured_once_for_all_tables(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []

    def fake(
        backbone: Backbone, attention: Attention, size: CountSize, detector: Detector | None
    ) -> Complexity:
        if detector is not None:
            return Complexity(1000, None)
        seen.append((backbone.name, attention.slug))
        return measure(Backbone(name="resnet18", width=0.25), Attention())

    monkeypatch.setattr("attention_ablation.evidence.complexity.measure", fake)
    detectors = {(row.table, row.key) for row in study.rows if row.detector}
    counted = [line.row for line in count_rows(study) if (line.table, line.row) not in detectors]
    assert len(counted) == 45
    assert len(seen) == len(set(seen)) == 38


def test_the_file_is_whole_or_as_it_was(tiny: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "attention_ablation.evidence.complexity.measure_row"
    monkeypatch.setattr(module, lambda *_: Complexity(1000, Decimal("0.5")))
    assert main(["render", "complexity"]) == 0
    written = (tiny.folder / "complexity.csv").read_text()
    assert len(written.splitlines()) == 60

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, killed)
    with pytest.raises(KeyboardInterrupt):
        main(["render", "complexity"])
    assert (tiny.folder / "complexity.csv").read_text() == written


def test_printed_values_are_as_checked_against_the_paper() -> None:
    lines = (ROOT / "workflow/studies/cbam/rows.csv").read_bytes().splitlines(keepends=True)
    printed = b"".join(line for line in lines if not line.rstrip().endswith(b",,,,,,,"))
    assert hashlib.sha256(printed).hexdigest() == (
        "88205691e342614a2da07409abd07bdf071f112838394657bb6964228b53c42a"
    )

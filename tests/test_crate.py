"""The archive of a study's results: read by RO-Crate's own library, unpacked, and verified."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from rocrate.rocrate import ROCrate

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import read_bytes, replacing
from attention_ablation.cli.main import main
from attention_ablation.study.expand import Plan
from tests.conftest import ROOT
from tests.run_folders import CBAM, SEEDS, finished

EXPORT = ["export", "rocrate", "kept.zip", *SEEDS]


@pytest.fixture
def archived(tiny: Plan) -> Plan:
    """Table 3 rendered, without its last run; kept in kept.zip."""
    for name in ("LICENSE", "CITATION.cff", "requirements.lock"):
        shutil.copy(ROOT / name, name)
    for run in tiny.table_runs("table3")[:-1]:
        finished(tiny, run, 20.0 + run.seed)
    finished(tiny, tiny.row_runs("table3", CBAM)[0], 20.0, started=5e8, finished=2e9)
    assert main(["render", "runs", "table3", *SEEDS]) == 0
    (tiny.folder / "report.html").write_text("the page")
    assert main([*EXPORT, "--by", "A. Person"]) == 0
    return tiny


def described() -> dict[str, dict[str, Any]]:
    """The archive's entities by their names."""
    with zipfile.ZipFile("kept.zip") as archive:
        graph = json.loads(archive.read("ro-crate-metadata.json"))["@graph"]
    return {unquote(entity["@id"]): entity for entity in graph}


def test_the_library_reads_workflow_actions_and_files(archived: Plan) -> None:
    crate = ROCrate("kept.zip")
    root, workflow = crate.root_dataset, crate.mainEntity
    assert {profile.id for profile in root["conformsTo"]} == {
        "https://w3id.org/ro/wfrun/process/0.5",
        "https://w3id.org/ro/wfrun/workflow/0.5",
        "https://w3id.org/workflowhub/workflow-ro-crate/1.0",
    }
    assert root["license"].id == "https://spdx.org/licenses/MIT"
    assert root["citation"]["name"] == archived.study.citation
    assert workflow.id == "Snakefile"
    assert workflow["programmingLanguage"]["name"] == "Snakemake"
    assert workflow["version"] == "c0ffee"
    whole, *trainings = root["mentions"]
    assert whole["instrument"] is workflow
    assert (whole["startTime"], whole["endTime"]) == (
        "1985-11-05T00:53:20+00:00", "2033-05-18T03:33:20+00:00",
    )  # fmt: skip
    assert whole.get("actionStatus") is None  # a run is missing
    assert whole["agent"]["name"] == "A. Person"
    results = {unquote(result.id) for result in whole["result"]}
    assert {"results/tiny/cbam/report.html", "results/tiny/cbam/tables/table3.tex"} <= results
    assert "config.yaml" in {given.id for given in whole["object"]}
    assert len(trainings) == len(archived.runs) - 1
    for training in trainings:
        spec = Path(crate.source) / unquote(training["object"].id)
        assert spec.read_text() == archived.runs[training.id[1:]].canonical() + "\n"
        assert spec.parent == Path(crate.source) / unquote(training["result"].id)
        assert training["instrument"]["softwareRequirements"].id == "requirements.lock"


def test_every_file_is_described_and_every_description_has_a_file(archived: Plan) -> None:
    entities = described()
    with zipfile.ZipFile("kept.zip") as archive:
        names = archive.namelist()
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
    assert names == sorted(set(names))
    folders = tuple(name for name in names if name.endswith("/"))
    scripts = {"workflow/profiles/sge/status.sh", *folders}
    assert {name for name, mode in modes.items() if mode == 0o755} == scripts
    assert {modes[name] for name in set(names) - scripts} == {0o644}
    assert {name for name, e in entities.items() if e["@type"] == "Dataset"} == {"./", *folders}
    said = {name for name, e in entities.items() if "File" in e["@type"]}
    types = {Path(name).suffix: entities[name]["encodingFormat"] for name in said}
    known = {".csv": "text/csv", ".md": "text/markdown", ".smk": "text/plain"}
    assert known.items() <= types.items()
    inside = {name for name in names if name.startswith(folders)}
    assert said - inside == set(names) - inside - {"ro-crate-metadata.json"}
    assert said <= set(names)
    assert not [name for name in names if name.endswith(".pt") or "train.log" in name]
    assert {unquote(part["@id"]) for part in entities["./"]["hasPart"]} == said | set(folders)


def test_unpacked_it_is_a_project_whose_numbers_are_verified(
    archived: Plan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["render", "report", *SEEDS]) == 0
    assert main([*EXPORT, "--by", "A. Person"]) == 0
    first = Path("kept.zip").read_bytes()
    assert main([*EXPORT, "--by", "A. Person"]) == 0
    assert Path("kept.zip").read_bytes() == first
    assert main([*EXPORT, "--weights"]) == 0
    assert "agent" not in described()["#regeneration"]
    with zipfile.ZipFile("kept.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    monkeypatch.chdir(tmp_path / "unpacked")
    config = yaml.safe_load(Path("config.yaml").read_text())
    assert (config["tables"], config["seeds"], config["results"]) == (
        ["table3"],
        [0, 1, 2],
        "results",
    )
    capsys.readouterr()
    assert main(["verify"]) == 0
    assert "11 of 12 runs finished: 11 verified, 0 wrong." in capsys.readouterr().out


def test_what_is_not_there_is_not_archived(tiny: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(EXPORT) == 2
    assert "expected a finished run of this choice, got none" in capsys.readouterr().err
    finished(tiny, tiny.row_runs("table3", CBAM)[0], 20.0)
    assert main(EXPORT) == 2
    assert "`attention-ablation render` with the same choice" in capsys.readouterr().err
    assert not Path("kept.zip").exists()


def test_a_file_that_cannot_be_finished_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text("old")
    missing = tmp_path / "missing"

    def copy() -> None:
        with replacing(path) as file:
            file.write(b"new")
            file.write(read_bytes(missing))

    with pytest.raises(UserError, match="missing: it cannot be read"):
        copy()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]

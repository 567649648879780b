"""The DAG as a user runs it: planned, run, killed, run again, and given mistakes."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from attention_ablation.base.signals import STOPS
from attention_ablation.spec.spec import Run
from attention_ablation.study.config import Config, Study
from attention_ablation.study.expand import load_plan
from tests.conftest import ROOT, shrink_study, write_yaml

BIN = Path(sys.executable).parent
KINDS = ("csv", "md", "tex")
PROFILE = ("--workflow-profile", "workflow/profiles/default", "--nolock")


def command(*arguments: str) -> list[str]:
    return [str(BIN / "snakemake"), *PROFILE, *arguments]


def snakemake(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=project, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900,
    )  # fmt: skip


def environment() -> dict[str, str]:
    return os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}


def as_installed(project: Path) -> Path:
    """Return the project as `make` finds it after an install, its quick tier one of seconds."""
    for name in ("Makefile", "config.yaml", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, project)
    shutil.copy(project / "workflow/tiers/tiny.yaml", project / "workflow/tiers/quick.yaml")
    (project / "results").mkdir()
    (project / ".venv").mkdir()
    (project / ".venv/bin").symlink_to(BIN)
    (project / ".venv/.ready").touch()
    return project


def metrics(project: Path) -> dict[Path, int]:
    """The finished runs, and when each finished."""
    found = project.glob("results/tiny/runs/*/*/metrics.json")
    return {path: path.stat().st_mtime_ns for path in found}


def test_a_dry_run_tells_rows_runs_and_shared_and_writes_nothing(project: Path) -> None:
    write_yaml(project / "config.yaml", {"study": "cbam", "tier": "quick"})
    done = snakemake(project, "--dry-run", "--quiet", "rules")
    assert done.returncode == 0, done.stdout
    assert "7 tables with 59 rows need 54 trainings a seed (7 rows share" in done.stdout
    assert not (project / "results").exists()


ROWS = """table,label,backbone,attention,params_m,gflops,top1_error,top5_error
table1,ResNet50,resnet50,none,25.56,3.86,24.56,7.50
table4,ResNeXt50 + CBAM,resnext50,cbam,27.56,3.774,21.92,5.91
table4,ResNet18,resnet18,none,11.69,1.814,29.60,10.55
table4,ResNet18 again,resnet50,none,25.56,3.858,,
table5,MobileNet,mobilenet,none,4.23,0.569,31.39,11.51
table5,MobileNet + SE,mobilenet,se,5.07,0.570,29.97,10.63
"""


@pytest.fixture
def small_study(project: Path, study: Study) -> Path:
    """The project with six rows of every kind of network, five trainings, and two figures."""
    figures = {name: study.figures[name].model_dump() for name in ("figure4", "figure5")}
    first, second = figures["figure4"]["panels"]
    first["rows"], second["rows"] = ["resnet18", "resnext50+cbam"], ["mobilenet", "mobilenet+se"]
    figures["figure5"]["rows"] = ["resnet18"]
    shrink_study(project, ROWS, figures)
    return project


def test_the_whole_dag_and_what_makes_parts_of_it_again(small_study: Path) -> None:
    project, out = small_study, small_study / "results/tiny/cbam"
    done = snakemake(project, "--verbose")
    assert done.returncode == 0, done.stdout
    # It looks for new jobs at the start and when one has ended, and does not poll.
    jobs = int(re.findall(r"of (\d+) steps", done.stdout)[-1])
    assert 1 < done.stdout.count("Ready jobs: ") <= jobs
    names = {f"{table}.{kind}" for table in ("table1", "table4", "table5") for kind in KINDS}
    assert {path.name for path in (out / "tables").iterdir()} == names
    kinds = {"figure4": ("svg", "png"), "figure5": ("svg", "png", "csv")}
    names = {f"{figure}.{kind}" for figure in kinds for kind in kinds[figure]}
    assert {path.name for path in (out / "figures").iterdir()} == names
    frame = pd.read_csv(out / "tables/table4.csv").set_index("row")
    assert frame["seeds"].tolist() == [1] * 3
    assert frame["top1_error"].between(0, 100).all()
    assert frame["params_m"].tolist() == [27.561496, 11.689512, 25.557032]
    assert not list(out.glob("claims.*"))  # there is no ledger without claims.yaml
    runs = pd.read_csv(out / "runs.csv")
    assert runs["status"].tolist() == ["completed"] * 5
    assert set(runs["rows"]) >= {"table1:resnet50 table4:resnet50"}
    shown = runs["rows"].str.contains("resnet18")
    assert runs["gradcam_target_probability"].notna().tolist() == shown.tolist()
    assert len(list(project.glob("results/tiny/runs/*/*/gradcam.json"))) == 1
    folder = next(iter(metrics(project))).parent
    for name in ("spec.json", "history.csv", "metrics.json", "train.log"):
        assert (folder / name).stat().st_size
    assert "epoch 2/2" in (folder / "train.log").read_text()

    reported = snakemake(project, "--report", "report.zip")
    assert reported.returncode == 0, reported.stdout
    with zipfile.ZipFile(project / "report.zip") as archive:
        held = [Path(name).name for name in archive.namelist()]
        tables = {"table1.csv", "table4.csv", "table5.csv"}
        assert set(held) == {"report.html", "figure4.svg", "figure5.svg", "figure5.csv"} | tables
        # The page that shows the others, and ours.
        page = archive.read("report/report.html").decode()
        assert held.count("report.html") == 2
    for text in ("table4 of the study: our values", "figure5, numbers", "everything on one page"):
        assert text in page
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=.?https?:", page)

    before = metrics(project)
    assert "Nothing to be done" in snakemake(project).stdout
    (out / "figures/figure5.csv").unlink()
    assert snakemake(project, str(out.relative_to(project) / "figures/figure5.csv")).returncode == 0
    assert len(pd.read_csv(out / "figures/figure5.csv")) == 4  # a row in four measures
    more = snakemake(project, "--config", "seeds=[0, 1]")
    assert more.returncode == 0, more.stdout
    assert len(metrics(project)) == 10
    assert pd.read_csv(out / "tables/table4.csv")["seeds"].tolist() == [2] * 3
    fewer = snakemake(project)  # back to one seed
    assert fewer.returncode == 0, fewer.stdout
    assert pd.read_csv(out / "tables/table4.csv")["seeds"].tolist() == [1] * 3
    rows = project / "workflow/studies/cbam/rows.csv"
    rows.write_text(ROWS.replace("ResNet18 again", "ResNet50"))
    assert snakemake(project).returncode == 0
    assert "| ResNet50 " in (out / "tables/table4.md").read_text()
    assert before.items() <= metrics(project).items()  # no finished run was touched


def test_a_killed_run_picks_up_and_loses_no_finished_one(project: Path) -> None:
    process = subprocess.Popen(
        command(), cwd=project, env=environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 600
    while len(metrics(project)) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)  # trainings and all
    process.wait()
    before = {path: path.read_text() for path in metrics(project)}
    assert len(before) >= 2
    done = snakemake(project)
    assert done.returncode == 0, done.stdout
    assert len(metrics(project)) == 4
    # What had finished was not trained again, noted by Snakemake or not.
    for path, text in before.items():
        assert path.read_text() == text
    assert (project / "results/tiny/cbam/tables/table3.md").exists()
    claims = pd.read_csv(project / "results/tiny/cbam/claims.csv").set_index("claim")
    assert set(claims.loc["T3a", "verdict"]) == {"undecided"}
    assert set(claims.loc["T4c", "verdict"]) == {"not run"}  # Table 4 is not selected


def test_a_failed_run_fails_alone_and_the_tables_show_the_rest(project: Path) -> None:
    planned = snakemake(project, "--until", "spec")
    assert planned.returncode == 0, planned.stdout
    victim = sorted(project.glob("results/tiny/runs/*se*/seed-0/spec.json"))[0]
    good = victim.read_text()
    victim.write_text(good.replace('"epochs":2', '"epochs":3'))  # an edited spec is refused
    done = snakemake(project)
    assert done.returncode != 0
    assert len(metrics(project)) == 3
    text = (project / "results/tiny/cbam/tables/table3.md").read_text()
    assert "ResNet50 + channel (SE) n = 0 (failed: results/tiny/runs/resnet50_se" in text
    end = done.stdout.partition("3 of 4 trainings ended with a result.\n")[2]
    path = victim.parent.relative_to(project / "results/tiny/runs")
    assert end.split()[:2] == [f"{path}:", "failed:"]
    assert "RuleException" not in done.stdout
    victim.write_text(good)
    before = metrics(project)
    again = snakemake(project)
    assert again.returncode == 0, again.stdout
    assert before.items() <= metrics(project).items()
    assert len(metrics(project)) == 4
    text = (project / "results/tiny/cbam/tables/table3.md").read_text()
    assert "n = 0" not in text


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("tier=quikc", "config.yaml or --config: unknown tier 'quikc'; did you mean 'quick'?"),
        (
            "tables=[table33]",
            "config.yaml or --config: unknown table 'table33'; did you mean 'table3'?",
        ),
        ("tables=[]", "config.yaml or --config: tables: list should have at least 1 item"),
        (
            "seeds=[0,0]",
            "config.yaml or --config: seeds: expected each value once, got 0 twice; remove one",
        ),
    ],
)
def test_a_mistake_stops_before_any_job_and_without_a_traceback(
    project: Path, setting: str, message: str
) -> None:
    done = snakemake(project, "--config", setting)
    assert done.returncode != 0
    assert message in done.stdout
    assert "Traceback" not in done.stdout
    assert "Snakefile" not in done.stdout  # where there is nothing to mend
    assert not (project / "results").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seeds: [010]", "seeds.0: input should be a valid integer, but got '010'"),
        ("tier: quick", "config.yaml line 2: the key 'tier' is given twice; remove one"),
    ],
)
def test_config_yaml_is_read_as_the_command_reads_it(
    project: Path, line: str, message: str
) -> None:
    (project / "config.yaml").write_text(f"tier: tiny\n{line}\nstudy: cbam\ntables: [table3]\n")
    done = snakemake(project, "--dry-run")
    assert done.returncode != 0
    assert message in done.stdout
    assert "Traceback" not in done.stdout


def test_later_config_files_and_settings_count_more(project: Path) -> None:
    write_yaml(project / "a.yaml", {"tables": ["table1"], "seeds": [3, 4]})
    write_yaml(project / "b.yaml", {"tables": ["table2"], "budget": 1e-5})
    choice = ("--configfile", "a.yaml", "b.yaml", "--config", "seeds=[5]", "hardware=v100")
    done = snakemake(project, *choice, "--dry-run", "--printshellcmds")
    assert done.returncode == 0, done.stdout
    assert """--set 'tables=["table2"]'""" in done.stdout
    assert "--set 'seeds=[5]'" in done.stdout
    assert "--set budget=1e-05" in done.stdout
    assert """--set 'hardware="v100"'""" in done.stdout


def test_a_tier_named_like_a_number_is_rendered_as_itself(project: Path) -> None:
    (project / "workflow/tiers/tiny.yaml").rename(project / "workflow/tiers/nan.yaml")
    done = snakemake(project, "--config", "tier=nan", "--dry-run", "--printshellcmds")
    assert done.returncode == 0, done.stdout
    assert """--set 'tier="nan"'""" in done.stdout
    assert "results/nan/cbam/runs.csv" in done.stdout


@pytest.mark.parametrize(
    ("cores", "message"), [("0", "--cores: expected 1 or more, got 0."), ("two", "must be integer")]
)
def test_no_core_is_a_mistake_and_not_waited_for(project: Path, cores: str, message: str) -> None:
    done = snakemake(project, "--cores", cores)
    assert done.returncode != 0
    assert message in done.stdout
    assert "Traceback" not in done.stdout


def test_a_tier_without_its_data_plans_and_does_not_start(project: Path) -> None:
    planned = snakemake(project, "--dry-run", "--config", "tier=imagenet")
    assert planned.returncode == 0, planned.stdout
    done = snakemake(project, "--config", "tier=imagenet")
    assert done.returncode != 0
    assert "Nothing was started: results/data/imagenet: expected the folders train" in done.stdout
    assert "Traceback" not in done.stdout
    assert not metrics(project)
    assert not (project / "results/imagenet").exists()


def test_a_run_of_before_an_edit_of_the_tier_can_still_be_asked_for(project: Path) -> None:
    plan = load_plan(Config(study="cbam", tier="tiny", tables=["table3"]), project)
    run = next(iter(plan.runs.values()))
    recipe = run.spec.recipe.model_copy(update={"epochs": 3})
    other = Run(seed=0, spec=run.spec.model_copy(update={"recipe": recipe}))
    assert other.path not in plan.runs
    folder = project / "results/tiny/runs" / other.path
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(other.canonical())
    done = snakemake(project, "--dry-run", f"results/tiny/runs/{other.path}/metrics.json")
    assert done.returncode == 0, done.stdout
    assert "rule train" in done.stdout


def test_detection_without_its_data_does_not_train_backbones_first(project: Path) -> None:
    imagenet = project / "results/data/imagenet"
    for split in ("train", "val"):
        (imagenet / split).mkdir(parents=True)
    done = snakemake(project, "--config", "tier=voc", "tables=all")
    assert done.returncode != 0
    assert "Nothing was started: results/data/VOCdevkit: there is no such folder" in done.stdout
    assert not (project / "results/voc").exists()


def test_a_trainings_shell_outlives_every_signal_that_the_training_meets() -> None:
    rule = (ROOT / "workflow/rules/train.smk").read_text()
    (trapped,) = re.findall(r"trap : ([A-Z0-9 ]+) #", rule)
    assert {f"SIG{name}" for name in trapped.split()} == {number.name for number in STOPS}


def test_no_rule_writes_its_output_by_a_redirection() -> None:
    """A shell that is killed would leave a part of it, which could be taken for the whole."""
    rules = [path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk")]
    assert rules
    assert not re.findall(r">\s*\{output[^}]*\}(?!\.part)", "".join(rules))
    assert not re.findall(r"\bcp [^|&;]*\{output[^}]*\}(?!\.part)", "".join(rules))

"""The command's options, each given nonsense; the device; output in another locale."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attention_ablation.base.errors import UserError
from attention_ablation.cli.main import main
from attention_ablation.training.machine import choose_device
from tests.conftest import plan_from, shrink_study, write_yaml

SPEC = "results/tiny/runs/x/seed-0/spec.json"
# A verb with its nonsense, and what the sentence says of it.
NONSENSE: list[tuple[list[str], str]] = [
    *(
        ([verb, SPEC, option, value], f"argument {option}: expected a whole number from {least} to")
        for verb in ("train", "gradcam")
        for option, least, values in (
            ("--threads", 1, ("0", "-1", "two", "1.5", "1" + "0" * 30, "²", "1_0", "")),
            ("--workers", 0, ("-1", "x", "1000000")),
            ("--runs-per-gpu", 1, ("0", "-3", "nan")),
        )
        for value in values
    ),
    (["train", SPEC, "--attempt", "0"], "argument --attempt: expected a whole number from 1"),
    (["train", SPEC, "--attempt", "x"], "argument --attempt: expected a whole number from 1"),
    (["train", SPEC, "--device", "bogus"], "--device: expected auto, cpu, cuda, cuda:0, cuda:1 ..., got 'bogus'"),
    (["gradcam", SPEC, "--device", "mps"], "--device: expected auto, cpu, cuda, cuda:0"),
    (["train", "binary"], "binary: expected text in UTF-8"),
    (["train", "absent"], "absent: there is no such spec"),
    (["train", "workflow"], "workflow: "),
    (["gradcam", "binary"], "binary: expected text in UTF-8"),
    (["gradcam", "workflow"], "workflow: "),
    (["plan", "--gpus", "0"], "argument --gpus: expected a whole number from 1 to 100,000, got '0'"),
    (["plan", "--gpus", "1000000000000"], "argument --gpus: expected a whole number from 1"),
    (["plan", "--gpus", "two"], "argument --gpus: expected a whole number from 1"),
    *(
        (["plan", "--price", value], f"argument --price: expected a number of 0 or more, got '{value}'")
        for value in ("nan", "inf", "-1", "1e999", "two", "", "1_0", "²", "१")
    ),
    (["plan", "--threads", "0"], "argument --threads: expected a whole number"),
    (["plan", "--calibrate", "--device", "meta"], "--device: expected auto, cpu, cuda"),
    *(
        ([verb, *more, "--config", value], message)
        for verb, *more in (
            ("plan",), ("status",), ("render",), ("verify",), ("where", "table3", "resnet50+se", "gflops"),
            ("data", "check"), ("data", "download", "cifar10"), ("export", "rocrate", "a.zip"),
            ("export", "tensorboard", "curves"),
        )
        for value, message in (
            ("workflow", "workflow: "),
            ("absent", "absent: it cannot be read: No such file"),
            ("binary", "binary: expected text in UTF-8"),
        )
    ),
    (["plan", "--set", "tier"], "--set: expected KEY=VALUE with a value in YAML, got 'tier'"),
    (["plan", "--set", "tables=[a"], "--set tables: this is not valid YAML"),
    (["plan", "--set", "=a"], "config.yaml or --config: unknown key ''"),
    (["plan", "--set", "tier="], "config.yaml or --config: tier: input should be a valid string, but got None"),
    (["plan", "--set", "tier={a: 1, a: 2}"], "--set tier line 1: the key 'a' is given twice"),
    (["plan", "--set", "seeds=[010]"], "seeds.0: input should be a valid integer, but got '010'"),
    (["plan", "--set", "seeds=3"], "seeds: input should be a valid list, but got 3"),
    (["plan", "--tier", ""], "tier: expected a name of letters"),
    (["plan", "--tier", "../tiers/tiny"], "tier: expected a name of letters"),
    (["plan", "--tier", "tini"], "unknown tier 'tini'; did you mean 'tiny'?"),
    (["plan", "--study", "cbma"], "unknown study 'cbma'; did you mean 'cbam'?"),
    (["render", "tabel3"], "unknown table or figure 'tabel3'; did you mean 'table3'?"),
    (["where", "table33", "resnet50+se", "gflops"], "'table33'"),
    (["where", "table3", "resnet5", "gflops"], "'resnet5'"),
    (["where", "table3", "resnet50+se", "gflop"], "'gflop'"),
    (["where", "table3", "resnet50+se", "gflops", "--format", "xml"], "argument --format: invalid choice: 'xml'"),
    (["complexity", "--study", "../studies/cbam"], "--study: unknown study '../studies/cbam'"),
    (["check", "own.py:Own", "--channels", "0"], "argument --channels: expected a whole number from 1"),
    (["check", "own.py:Own", "--channels", "8", "x"], "argument --channels: expected a whole number"),
    (["check", "own.py:Own", "--channels", "1000000000000"], "argument --channels: expected a whole"),
    (["check", "own.py:Own", "--options", "{"], "--options: this is not valid JSON"),
    (["check", "own.py:Own", "--options", "[" * 10_000], "--options: this is not valid JSON"),
    (["check", "own.py:Own", "--options", "[1]"], "check: options: input should be a valid dict"),
    (["check", "own.py:Own", "--options", '{"a": NaN}'], "input should be a finite number, but got nan"),
    (["check", "own.py"], "check: module: "),
    (["check", "absent.py:Own"], "absent.py, which cannot be read"),
    (["check", "own.py:Own", "--device", "meta"], "--device: expected auto, cpu, cuda"),
    (["check", "own.py:Own", "--device", "cuda:"], "--device: expected auto, cpu, cuda"),
    (["evaluate", "absent.json"], "absent.json: there is no such spec"),
    (["evaluate", "resnet50"], "resnet50: expected --weights with a row"),
    (["evaluate", "resnet5", "--weights", "binary"], "unknown row 'resnet5'; did you mean 'resnet50'?"),
    (["evaluate", "resnet50", "--weights", "binary", "--tier", "../tiers/quick"], "--tier: unknown tier '../tiers/quick'"),
    (["evaluate", "resnet50", "--weights", "binary", "--study", "cbma"], "did you mean 'cbam'?"),
    (["evaluate", "resnet50", "--weights", "binary", "--stride", "v2"], "argument --stride: invalid choice"),
    (["evaluate", "resnet50", "--weights", "binary", "--threads", "0"], "argument --threads: expected"),
    (["evaluate", "resnet50", "--weights", "binary", "--workers", "-1"], "argument --workers: expected"),
    (["evaluate", "resnet50", "--weights", "binary", "--device", "x"], "--device: expected auto"),
    (["data", "download", "cifar11"], "unknown data set 'cifar11'; did you mean 'cifar10'?"),
    (["data", "check", "--workers", "-1"], "argument --workers: expected a whole number from 0"),
    (["schema", "binary"], "binary/config.schema.json: it cannot be written"),
    (["prepare", "{", "folder"], "prepare: this is not valid JSON"),
    (["tarin"], "invalid choice: 'tarin'"),
]  # fmt: skip


def code(arguments: list[str]) -> int | str | None:
    """Run a verb; its exit code, also where argparse ends the process."""
    try:
        return main(arguments)
    except SystemExit as ended:
        return ended.code


def place_spec() -> str:
    """Write the spec of a run of the project here; its path."""
    run = next(iter(plan_from(Path("config.yaml")).runs.values()))
    path = Path("results/tiny/runs") / run.path / "spec.json"
    path.parent.mkdir(parents=True)
    path.write_text(run.canonical())
    return str(path)


@pytest.mark.parametrize(("arguments", "message"), NONSENSE)
def test_nonsense_is_a_sentence(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(project)
    Path("binary").write_bytes(b"\x80\x02\xff\x00")
    Path("own.py").write_text("class Own: ...")
    if SPEC in arguments:
        path = place_spec()
        arguments = [path if argument == SPEC else argument for argument in arguments]
    assert code(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert not captured.out


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match=r"--device: .* finds, of which there are 2, got cuda:7"):
        choose_device("cuda:7")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=r"--device: .* finds, of which there are 0, got cuda;"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("rank", "size", "local"),
    [
        ("x", "2", "0"), ("2", "2", "0"), ("-1", "2", "0"), ("1", "2", "7"), ("0", "", "0"),
        ("0", "0", "0"), ("1" * 30, "2", "0"), ("²", "3", "0"),
    ],
)  # fmt: skip
def test_ranks_that_make_no_sense_are_named(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rank: str,
    size: str,
    local: str,
) -> None:
    monkeypatch.chdir(project)
    for name, value in (("RANK", rank), ("WORLD_SIZE", size), ("LOCAL_RANK", local)):
        monkeypatch.setenv(name, value)
    assert main(["train", place_spec()]) == 2
    error = capsys.readouterr().err
    assert "expected LOCAL_RANK <= RANK < WORLD_SIZE in the environment" in error
    assert f"got LOCAL_RANK={local}, RANK={rank}, WORLD_SIZE={size};" in error


def test_processes_without_a_place_to_meet_are_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert main(["train", place_spec(), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert "expected the environment that torchrun sets: " in error
    assert "MASTER_ADDR" in error


# As on a machine whose locale is not UTF-8; C stands for all of them, being always there.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_an_option_against_utf8_is_followed_and_not_argued_with() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-m", "attention_ablation.cli.main", "--version"],
        env=os.environ | ASCII, capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["status"], "tier größe: 1 table"),
        (["render", "runs"], ""),
        (["where", "table3", "resnet18+se", "top1_error"], "größe"),
        (["status", "--tier", "größer"], "unknown tier 'größer'; did you mean 'größe'?"),
    ],
)
def test_files_and_output_are_utf8_in_any_locale(
    project: Path, arguments: list[str], expected: str
) -> None:
    rows = "table,label,backbone,attention\ntable3,channel ± größe,resnet18,se\n"
    shrink_study(project, rows)
    (project / "workflow/tiers/tiny.yaml").rename(project / "workflow/tiers/größe.yaml")
    write_yaml(project / "config.yaml", {"study": "cbam", "tier": "größe"})
    done = subprocess.run(
        [sys.executable, "-m", "attention_ablation.cli.main", *arguments],
        cwd=project, env=os.environ | ASCII, capture_output=True, timeout=100,
    )  # fmt: skip
    output = (done.stdout + done.stderr).decode("utf-8")
    assert done.returncode == (2 if "größer" in arguments else 0), output
    assert expected in output
    if "render" in arguments:
        text = (project / "results/größe/cbam/runs.csv").read_text("utf-8")
        assert text.count("table3:resnet18+se") == 1

"""Prove the GPU path on one GPU, in at most eight minutes, without a download.

    make benchmark-gpu

Trains every kind of network at full size on random images, deterministically: ResNet50 and
MobileNet without a gate, with SE and with CBAM, Faster R-CNN and SSD, in fp32, tf32, bf16 and with
compiled gates; checks that gates keep bfloat16, and that a killed training resumes with equal
numbers; times trainings that share the GPU, and what CUDA graphs give to a small network. Writes a
CSV and a page that name the GPU into benchmarks/results. What fails is a row that says why, and the
command then ends with 1; what there was no time for is named. Without a GPU it does nothing.
"""

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch

from attention_ablation.base.errors import brief
from attention_ablation.gates.build import gates_of
from attention_ablation.spec.spec import DetectionSpec, RowSpec, Run, Spec
from attention_ablation.study.expand import load_plan
from attention_ablation.training import calibrate
from attention_ablation.training.machine import Machine
from attention_ablation.training.precision import autocast
from attention_ablation.training.provenance import device_name, peak_memory
from attention_ablation.training.run import seed_everything

RESULTS = Path("benchmarks/results")
SECONDS = 450.0
# What differs from the recipes: fp32 with IEEE's products, and what makes it faster, step by step.
WAYS: tuple[dict[str, Any], ...] = (
    {"precision": "fp32"},
    {"precision": "tf32"},
    {"precision": "bf16"},
    {"precision": "bf16", "compile": "gates"},
    {"precision": "bf16", "compile": "model"},
)
CLASSIFIERS = [
    f"{name}{gate}" for name in ("resnet50", "mobilenet") for gate in ("", "+se", "+cbam")
]
DETECTORS = {"coco": "resnet50+faster-rcnn+cbam", "voc": "vgg16+ssd"}
SHARING = (1, 2, 4)
SHARED_EPOCHS = 20


@dataclass
class Size:
    """How large it is: at full size, or shrunk so that a CPU may try it."""

    batch: int = 128
    scenes: int = 8
    width: float = 1.0
    image: int = 224
    epochs: int = SHARED_EPOCHS


@dataclass
class Report:
    """Rows of what was done, until the time is over."""

    device: torch.device
    size: Size
    until: float
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, what: str, way: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Do one thing, and note what came out, why it failed, or that there was no time."""
        row: dict[str, Any] = {"what": what, "way": way}
        if time.monotonic() > self.until:
            row["outcome"] = "not done: no time left"
        else:
            try:
                row |= {"outcome": "ok"} | measure()
            except Exception as error:
                row["outcome"] = f"failed: {brief(error)}"
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        self.rows.append(row)


def main() -> None:
    """Measure, and write the CSV and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="begin nothing after them")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print(f"torch {torch.__version__} finds no GPU here; nothing was done.")
        return
    device = torch.device("cuda", torch.cuda.current_device())
    report = prove(device, Size(), options.seconds)
    name = "-".join(device_name(device).lower().split())
    write(report, RESULTS / f"gpu-{name}")
    if any(row["outcome"].startswith("failed") for row in report.rows):
        sys.exit(1)


def prove(device: torch.device, size: Size, seconds: float) -> Report:
    """Do everything in the order in which it matters."""
    report = Report(device, size, time.monotonic() + seconds)
    seed_everything(0, device)
    report.add("killed and resumed", "ResNet50 + CBAM, quick", partial(resumed, device, size))
    networks = {key: spec_of("imagenet", "table4" if "resnet" in key else "table5", key)
                for key in CLASSIFIERS}  # fmt: skip
    for way in WAYS:
        for key, spec in networks.items():
            if way.get("compile") == "gates" and key in ("resnet50", "mobilenet"):
                continue
            report.add(key, named(way), partial(trained, spec, way, device, size))
    for tier, key in DETECTORS.items():
        spec = spec_of(tier, "table6" if tier == "coco" else "table7", key)
        for way in WAYS[1:4] if "cbam" in key else WAYS[1:3]:
            report.add(key, named(way), partial(trained, spec, way, device, size))
    small = spec_of("quick", "table4", "resnet50+cbam")
    for way in ({}, {"compile": "gates"}, {"compile": "model"}):
        report.add("resnet50+cbam, quick", named(way), partial(trained, small, way, device, size))
    report.add("resnet50+cbam, quick", "CUDA graphs", partial(graphs, small, device, size))
    for runs in SHARING:
        share = partial(sharing, runs, device, size)
        report.add("resnet50+cbam, quick", f"{runs} at a time", share)
    return report


def spec_of(tier: str, table: str, key: str) -> RowSpec:
    """Return a row's spec, a detector's without the training that it starts from."""
    spec = load_plan({"study": "cbam", "tier": tier}).specs[table, key]
    alone = {"initial": None} if isinstance(spec, DetectionSpec) else {}
    return spec.model_copy(update=alone)


def named(way: dict[str, Any]) -> str:
    compiled = f", compiled {way['compile']}" if "compile" in way else ""
    return f"{way.get('precision', 'fp32')}{compiled}"


def sized(spec: RowSpec, way: dict[str, Any], size: Size) -> RowSpec:
    """Return a spec trained in another way, of another size."""
    recipe = spec.recipe
    if recipe.dataset.in_memory:  # the quick tier is small by itself
        return spec.model_copy(update={"recipe": recipe.model_copy(update=way)})
    batch = size.batch if isinstance(spec, Spec) else size.scenes
    change: dict[str, Any] = {**way, "batch_size": batch}
    if size.image != Size.image:
        change["dataset"] = recipe.dataset.model_copy(update={"image_size": size.image})
    backbone = spec.backbone.model_copy(update={"width": size.width})
    changed = recipe.model_copy(update=change)
    return spec.model_copy(update={"recipe": changed, "backbone": backbone})


def trained(spec: RowSpec, way: dict[str, Any], device: torch.device, size: Size) -> dict[str, Any]:
    """Train on random images; raise where a gate does not keep half precision."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    loop, rate = calibrate.measured_loop(sized(spec, way, size), Machine(str(device)))
    model, recipe = loop.task.model, loop.recipe
    if recipe.precision == "bf16" and isinstance(spec, Spec):
        dtypes: set[torch.dtype] = set()
        hooks = [
            gate.register_forward_hook(lambda _, __, out: dtypes.add(out.dtype))
            for gate in gates_of(model)
        ]
        with torch.no_grad(), autocast(device, recipe):
            model(next(loop.task.batches(1))[0])
        for hook in hooks:
            hook.remove()
        if dtypes - {torch.bfloat16}:
            raise TypeError(f"expected every gate to return bfloat16, got {dtypes}")
    compiled = loop.task.compiled
    if compiled and not compiled.works:
        raise RuntimeError("it could not be compiled; the warning above says why")
    peak = peak_memory(device).get("peak_device_memory_mb")
    return {"images_per_second": rate, "memory_gib": peak and round(peak / 1024, 2)}


def graphs(spec: RowSpec, device: torch.device, size: Size) -> dict[str, Any]:
    """Train with a whole network compiled into CUDA graphs."""
    fewer = partial(torch.compile, mode="reduce-overhead")
    with patch.object(torch, "compile", fewer):
        return trained(spec, {"compile": "model"}, device, size)


# Trainings as the workflow starts them


def write_run(folder: Path, seed: int, epochs: int) -> Path:
    """Write the spec of a quick training of ResNet50 with CBAM, and return its path."""
    spec = spec_of("quick", "table4", "resnet50+cbam")
    recipe = spec.recipe.model_copy(update={"epochs": epochs})
    run = Run(seed=seed, spec=spec.model_copy(update={"recipe": recipe}))
    path = folder / run.path / "spec.json"
    path.parent.mkdir(parents=True)
    path.write_text(run.canonical())
    return path


def start(spec: Path, device: torch.device, slots: int = 1) -> subprocess.Popen[str]:
    chosen = "auto" if device.type == "cuda" else str(device)
    command = [sys.executable, "-m", "attention_ablation.cli.main", "train", str(spec)]
    command += ["--data", str(spec.parents[3] / "data"), "--device", chosen]
    return subprocess.Popen(
        [*command, "--runs-per-gpu", str(slots)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finished(process: subprocess.Popen[str], code: int = 0) -> None:
    """Wait for a training. Raises RuntimeError where it ends in another way."""
    output = process.communicate(timeout=600)[0]
    if process.returncode != code:
        last = " ".join(output.strip().splitlines()[-1:])
        raise RuntimeError(f"expected exit code {code}, got {process.returncode}: {last}")


def resumed(device: torch.device, size: Size) -> dict[str, Any]:
    """Train a run twice, once killed between its epochs; raise where the numbers differ."""
    with folders(2) as places:
        whole, killed = (write_run(place, 0, size.epochs) for place in places)
        finished(start(whole, device))
        process = start(killed, device)
        while process.poll() is None and not (killed.parent / "history.csv").exists():
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        finished(process, 128 + signal.SIGTERM)
        finished(start(killed, device))
        histories = [pd.read_csv(spec.parent / "history.csv") for spec in (whole, killed)]
        columns = [str(column) for column in histories[0]]
        columns = [c for c in columns if not c.endswith(("seconds", "per_second"))]
        first, second = (history[columns] for history in histories)
        if not first.equals(second):
            differ = [c for c in columns if not first[c].equals(second[c])]
            raise ValueError(f"expected equal numbers after a kill, but {', '.join(differ)} differ")
    return {}


def sharing(runs: int, device: torch.device, size: Size) -> dict[str, Any]:
    """Train several runs at a time; return the images/s of all together, start-up included."""
    with folders(runs) as places:
        specs = [write_run(place, seed, size.epochs) for seed, place in enumerate(places)]
        begun = time.monotonic()
        for process in [start(spec, device, runs) for spec in specs]:
            finished(process)
        wall = time.monotonic() - begun
        metrics = [json.loads((spec.parent / "metrics.json").read_text()) for spec in specs]
        images = runs * size.epochs * 2400  # of the quick tier
        alone = sum(m["images_per_second"] for m in metrics)
    return {"images_per_second": round(alone), "with_start": round(images / wall)}


@contextlib.contextmanager
def folders(count: int) -> Iterator[list[Path]]:
    """Yield folders for runs, beside one for their data."""
    with tempfile.TemporaryDirectory() as name:
        yield [Path(name) / str(number) for number in range(count)]


def write(report: Report, path: Path) -> None:
    """Write every row as CSV, and a page with gates' costs beside them."""
    frame = pd.DataFrame(report.rows)
    frame.to_csv(path.with_suffix(".csv"), index=False)
    path.with_suffix(".md").write_text(page(report), encoding="utf-8")


def page(report: Report) -> str:
    """Return the rows as Markdown; a gate's cost is the bare network's images/s over its own."""
    rates = {(r["what"], r["way"]): r.get("images_per_second") for r in report.rows}
    lines = [
        f"# {device_name(report.device)}",
        "",
        f"Measured on {time.strftime('%Y-%m-%d')} by `make benchmark-gpu`, torch "
        f"{torch.__version__}: random images, deterministic algorithms, images/s of training.",
        "",
        "| network | way | images/s | time over no gate | memory, GiB | outcome |",
        "|---|---|--:|--:|--:|---|",
    ]
    for row in report.rows:
        plain = row["what"].partition("+")[0]
        bare = rates.get((plain, row["way"].replace(", compiled gates", "")))
        rate = row.get("images_per_second")
        factor = f"{bare / rate:.2f}" if bare and rate and "," not in row["what"] else ""
        shown = "" if rate is None else f"{rate:,.0f}"
        outcome = row["outcome"]
        if "with_start" in row:
            outcome += f"; {row['with_start']:,} images/s with the processes' start"
        lines.append(
            f"| {row['what']} | {row['way']} | {shown} | {factor} | "
            f"{row.get('memory_gib') or ''} | {outcome.replace('|', '/')} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

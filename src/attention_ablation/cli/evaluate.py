"""Errors of a finished run's weights, or of published ones."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attention_ablation.base.errors import UserError, unknown
from attention_ablation.cli.options import add_device, add_study, add_workers, chosen_study
from attention_ablation.networks.record import Backbone
from attention_ablation.runs.folder import METRICS, read_outcome
from attention_ablation.spec.spec import Run, Spec
from attention_ablation.study.config import Row, Study
from attention_ablation.study.files import load_tier

ERRORS = {"top1_error": "top-1 error (%)", "top5_error": "top-5 error (%)"}


def add_options(evaluate: argparse.ArgumentParser) -> None:
    """Add the weights, their network, the validation set and the device."""
    evaluate.add_argument(
        "what", help="a finished run's spec.json, or a row of the study, e.g. resnet50+cbam"
    )
    evaluate.add_argument(
        "--weights",
        metavar="FILE",
        help="of a row: a file, or torchvision:ResNet50_Weights.IMAGENET1K_V1 (downloaded)",
    )
    evaluate.add_argument(
        "--tier", default="imagenet", help="of a row: whose validation set; default: imagenet"
    )
    add_study(evaluate)
    evaluate.add_argument(
        "--stride",
        choices=["v1", "v1.5"],
        default="v1.5",
        help="of a row: where bottlenecks stride; default: v1.5, as published weights do",
    )
    evaluate.add_argument(
        "--data",
        type=Path,
        default=Path("results/data"),
        metavar="FOLDER",
        help="where data sets are; default: results/data",
    )
    add_device(evaluate)
    add_workers(evaluate)


def run(options: argparse.Namespace) -> None:
    """Print the errors beside those that are published."""
    finished = options.what.endswith(".json")
    if finished and options.weights:
        raise UserError(
            "--weights: a finished run has its own; name a row to evaluate other weights."
        )
    if not finished and not options.weights:
        raise UserError(
            f"{options.what}: expected --weights with a row, a file or "
            "torchvision:ResNet50_Weights.IMAGENET1K_V1; a finished run is named by its spec.json."
        )
    row: Row | None = None
    run: Run | None = None
    if not finished:
        study = chosen_study(options)
        row = _row(study, options.what)
        run = _full_size(row, study, options)

    import torch

    from attention_ablation.training.device import choose_device
    from attention_ablation.training.evaluate import evaluate, evaluate_run

    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    columns: dict[str, Mapping[str, Any]] = {}
    notes = []
    if run is None or row is None:
        path = Path(options.what)
        run, found = evaluate_run(path, options.data, device, options.workers)
        metrics = read_outcome(path.parent).metrics
        numbers = metrics.numbers if metrics else {}
        columns[METRICS] = {name: numbers.get(f"validation_{name}") for name in ERRORS}
    else:
        found = evaluate(run, options.weights, options.data, device, options.workers)
        if found.published:
            columns["published"] = vars(found.published)
            notes.append(f"published: {found.published.title}; {found.published.source}.")
        columns["the paper's table"] = {str(name): cell for name, cell in row.printed.items()}
    dataset = run.spec.recipe.dataset
    resize = getattr(dataset, "resize", None)
    if found.published and found.published.resize not in (None, resize):
        notes.append(
            f"published with images resized to {found.published.resize} px before the crop, and "
            f"not to {resize} px; evaluate on a tier with that size to compare."
        )
    print(
        f"{options.what} on {dataset.name}, {dataset.image_size} px: {found.images:,} validation "
        f"images, loss {found.loss:.4f}"
    )
    from tabulate import tabulate

    lines = [
        [
            title,
            f"{getattr(found, name):.3f}",
            *(_text(values.get(name)) for values in columns.values()),
        ]
        for name, title in ERRORS.items()
    ]
    print(tabulate(lines, ["", "ours", *columns], disable_numparse=True, stralign="right"))
    for note in notes:
        print(note)


def _row(study: Study, key: str) -> Row:
    """Return the row of a key, the one with most printed values where several tables have it."""
    same = [row for row in study.rows if row.key == key]
    if not same:
        keys = dict.fromkeys(row.key for row in study.rows)
        raise unknown("row", key, keys, f"study {study.name}")
    return max(same, key=lambda row: len(row.printed))


def _full_size(row: Row, study: Study, options: argparse.Namespace) -> Run:
    """Return a run of a row's network at full size with the data set of a tier."""
    tier = load_tier(Path("workflow/tiers"), options.tier, "--tier").classification
    spec = Spec(
        backbone=Backbone(name=row.backbone, stride=options.stride),
        attention=study.attentions[row.attention],
        recipe=tier.sizing(row.backbone).recipe,
    )
    return Run(seed=0, spec=spec)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.3f}"

"""Errors of a finished run's weights, or of published ones."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_ablation.base.errors import UserError, unknown
from attention_ablation.cli.options import (
    add_device,
    add_study,
    add_workers,
    chosen_study,
    folders,
    machine,
)

if TYPE_CHECKING:
    from attention_ablation.spec.spec import Run

ERRORS = {"top1_error": "top-1 error (%)", "top5_error": "top-5 error (%)"}


def add_options(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("what", help="a finished run's spec.json, or a row of the study, e.g. resnet50+cbam")
    option(
        "--weights",
        metavar="FILE",
        help="of a row: a file, or torchvision:ResNet50_Weights.IMAGENET1K_V1 (downloaded)",
    )
    option("--tier", default="imagenet", help="of a row: whose validation set; default: imagenet")
    add_study(parser)
    option(
        "--stride",
        choices=["v1", "v1.5"],
        default="v1.5",
        help="of a row: where bottlenecks stride; default: v1.5, as published weights do",
    )
    option(
        "--data",
        type=Path,
        default=Path("results/data"),
        metavar="FOLDER",
        help="where data sets are; default: results/data",
    )
    add_device(parser)
    add_workers(parser)


def run(options: argparse.Namespace) -> None:
    """Print the errors beside those that are recorded, published or printed."""
    from tabulate import tabulate

    from attention_ablation.runs.folder import METRICS, WEIGHTS, read_outcome, read_run
    from attention_ablation.training.evaluate import evaluate

    what, weights = options.what, options.weights
    if finished := what.endswith(".json"):
        if weights:
            raise UserError(
                "--weights: a finished run has its own; name a row to evaluate other weights."
            )
        run, weights = read_run(Path(what)), str(Path(what).parent / WEIGHTS)
        metrics = read_outcome(Path(what).parent).metrics
        numbers = metrics.numbers if metrics else {}
        beside: Any = {METRICS: {name: numbers.get(f"validation_{name}") for name in ERRORS}}
    elif weights:
        run, printed = _row(options)
        beside = {"the paper's table": printed}
    else:
        raise UserError(
            f"{what}: expected --weights with a row, a file or "
            "torchvision:ResNet50_Weights.IMAGENET1K_V1; a finished run is named by its spec.json."
        )

    found, images, published = evaluate(run, weights, folders(options), machine(options))
    notes = []
    if published and not finished:
        beside = {"published": vars(published)} | beside
        notes.append(f"published: {published.title}; {published.source}.")
    dataset = run.spec.recipe.dataset
    resize = getattr(dataset, "resize", None)
    if published and published.resize not in (None, resize):
        notes.append(
            f"published with images resized to {published.resize} px before the crop, and "
            f"not to {resize} px; evaluate on a tier with that size to compare."
        )
    columns = {"ours": found} | beside
    lines = [
        [title, *(_text(values.get(name)) for values in columns.values())]
        for name, title in ERRORS.items()
    ]
    print(
        f"{what} on {dataset.name}, {dataset.image_size} px: {images:,} validation "
        f"images, loss {found['loss']:.4f}",
        tabulate(lines, ["", *columns], disable_numparse=True, stralign="right"),
        *notes,
        sep="\n",
    )


def _row(options: argparse.Namespace) -> tuple["Run", dict[str, str]]:
    """Return a row's network at full size with a tier's data set, and what the paper prints."""
    from attention_ablation.networks.record import Backbone
    from attention_ablation.spec.spec import FrontEndSpec, Run, Spec
    from attention_ablation.study.files import load_tier

    study = chosen_study(options)
    same = [row for row in study.rows if row.key == options.what]
    if not same:
        keys = dict.fromkeys(row.key for row in study.rows)
        raise unknown("row", options.what, keys, f"study {study.name}")
    row = max(same, key=lambda row: len(row.printed))  # several tables may have it
    tier = load_tier(Path("workflow/tiers"), options.tier, "--tier").classification
    recipe = tier.sizing(row.backbone).recipe
    front_end = row.front_end
    spec = Spec(
        backbone=Backbone(name=row.backbone, stride=options.stride, front_end=front_end),
        attention=study.attentions[row.attention],
        recipe=recipe,
        initial=FrontEndSpec(front_end=front_end, recipe=recipe) if front_end else None,
    )
    return Run(seed=0, spec=spec), dict(row.printed)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.3f}"

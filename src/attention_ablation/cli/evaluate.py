"""The verb `evaluate`: given weights on a validation set, beside what is published for them."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attention_ablation.base.errors import UserError, unknown
from attention_ablation.cli.options import add_device, add_workers, folders, machine
from attention_ablation.networks.record import Backbone
from attention_ablation.runs.folder import METRICS, WEIGHTS, read_outcome, read_run
from attention_ablation.spec.spec import Run, Spec
from attention_ablation.study.config import Config, Row, Study
from attention_ablation.study.files import load_study, load_tier, merged, parse

ERRORS = {"top1_error": "top-1 error (%)", "top5_error": "top-5 error (%)"}


def add_evaluate(verbs: Any) -> None:
    """Add the verb to the command's."""
    evaluate = verbs.add_parser(
        "evaluate", help="errors of a finished run's weights, or of published ones"
    )
    option = evaluate.add_argument
    option("what", help="a finished run's spec.json, or a row of the study, e.g. resnet50+cbam")
    option(
        "--weights",
        metavar="FILE",
        help="of a row: a file, or torchvision:ResNet50_Weights.IMAGENET1K_V1 (downloaded)",
    )
    option("--tier", default="imagenet", help="of a row: whose validation set; default: imagenet")
    option("--study", help="of a row; default: that of the config")
    option(
        "--config",
        type=Path,
        default=Path("config.yaml"),
        metavar="FILE",
        help="of a row: what names its study; default: config.yaml",
    )
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
    add_device(evaluate)
    add_workers(evaluate)
    evaluate.set_defaults(verb=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
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
    columns: dict[str, Mapping[str, Any]] = {}  # beside ours
    if finished:
        path = Path(options.what)
        run, weights = read_run(path), str(path.parent / WEIGHTS)
        metrics = read_outcome(path.parent).metrics
        numbers = metrics.numbers if metrics else {}
        columns[METRICS] = {name: numbers.get(f"validation_{name}") for name in ERRORS}
    else:
        run, row = _full_size(options)
        weights = options.weights

    from attention_ablation.training.evaluate import evaluate

    found = evaluate(run, weights, folders(options), machine(options))
    dataset, published = run.spec.recipe.dataset, found.published
    notes = []
    if not finished:
        if published:
            columns["published"] = vars(published)
            notes.append(f"published: {published.title}; {published.source}.")
        columns["the paper's table"] = row.printed
    resize = getattr(dataset, "resize", None)
    if published and published.resize not in (None, resize):
        notes.append(
            f"published with images resized to {published.resize} px before the crop, and "
            f"not to {resize} px; evaluate on a tier with that size to compare."
        )
    print(
        f"{options.what} on {dataset.name}, {dataset.image_size} px: {found.images:,} validation "
        f"images, loss {found.loss:.4f}"
    )
    from tabulate import tabulate

    lines = [
        [title, *(_text(values.get(name)) for values in (vars(found), *columns.values()))]
        for name, title in ERRORS.items()
    ]
    print(tabulate(lines, ["", "ours", *columns], disable_numparse=True, stralign="right"))
    for note in notes:
        print(note)


def _full_size(options: argparse.Namespace) -> tuple[Run, Row]:
    """Return a run of a row's network at full size with the data set of a tier, and the row."""
    name, where = options.study, "--study"
    if name is None:
        where = str(options.config)
        name = parse(Config, merged([options.config], {}), where).study
    study = load_study(Path("workflow/studies"), name, where)
    row = _row(study, options.what)
    tier = load_tier(Path("workflow/tiers"), options.tier, "--tier").classification
    spec = Spec(
        backbone=Backbone(name=row.backbone, stride=options.stride),
        attention=study.attentions[row.attention],
        recipe=tier.sizing(row.backbone).recipe,
    )
    return Run(seed=0, spec=spec), row


def _row(study: Study, key: str) -> Row:
    """Return the row of a key, the one with most printed values where several tables have it."""
    same = [row for row in study.rows if row.key == key]
    if not same:
        keys = dict.fromkeys(row.key for row in study.rows)
        raise unknown("row", key, keys, f"study {study.name}")
    return max(same, key=lambda row: len(row.printed))


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.3f}"

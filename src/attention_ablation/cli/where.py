"""Say which trainings a table's cell came from."""

import argparse

from attention_ablation.cli.options import add_choice, chosen_plan


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", help="e.g. table4")
    parser.add_argument("row", help="backbone, and gate where there is one, e.g. resnet50+cbam")
    parser.add_argument("metric", help="a column: params_m, gflops, top1_error, map_50 ...")
    parser.add_argument("--format", choices=["text", "json"], default="text")
    add_choice(parser)


def run(options: argparse.Namespace) -> None:
    from attention_ablation.report.where import as_json, as_text, find_cell

    plan = chosen_plan(options)
    cell = find_cell(plan, options.table, options.row, options.metric)
    print(as_json(cell) if options.format == "json" else as_text(cell))

"""Regenerate a paper's tables: the verbs that the workflow calls, and a person may."""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from attention_ablation import __version__
from attention_ablation.base.errors import UserError
from attention_ablation.cli import verbs
from attention_ablation.cli.check import add_check
from attention_ablation.cli.data import add_data
from attention_ablation.cli.evaluate import add_evaluate
from attention_ablation.cli.options import add_choice, add_device, add_run, amount, count


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit code: 0, 1 for a bad finding, 2 for a user's mistake."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.verb(options) or 0)
    except UserError as error:
        print(f"attention-ablation: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="attention-ablation", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="VERB")

    train = commands.add_parser("train", help="train one run, whose spec.json is given")
    add_run(train)
    train.add_argument(
        "--attempt",
        type=count(1),
        default=1,
        metavar="N",
        help="above 1, do not try again what failed by itself before; default: 1",
    )
    train.set_defaults(verb=verbs.train)

    gradcam = commands.add_parser("gradcam", help="write where a finished run looks: Grad-CAM")
    add_run(gradcam)
    gradcam.set_defaults(verb=verbs.gradcam)

    render = commands.add_parser(
        "render", help="write runs.csv, tables, figures, claims and report from what is there"
    )
    render.add_argument(
        "names",
        nargs="*",
        help="runs, table1, figure4, claims, report ...; default: everything but `complexity`, "
        "which counts every row's network",
    )
    add_choice(render)
    render.set_defaults(verb=verbs.render)

    plan = commands.add_parser("plan", help="say what the runs will cost, before any is started")
    add_choice(plan)
    plan.add_argument(
        "--gpus",
        type=count(1, 100_000),
        default=1,
        metavar="N",
        help="runs at a time, a GPU each; default: 1",
    )
    plan.add_argument("--price", type=amount, metavar="MONEY", help="of an hour of one GPU")
    plan.add_argument("--runs", action="store_true", help="list every run, too")
    plan.add_argument(
        "--calibrate",
        action="store_true",
        help="first measure every network that was not yet, a few steps each, on --device",
    )
    add_device(plan)
    plan.set_defaults(verb=verbs.plan_cost)

    status = commands.add_parser("status", help="say which runs are done, running, failed, missing")
    add_choice(status)
    status.set_defaults(verb=verbs.status)

    where = commands.add_parser("where", help="say which trainings a table's cell came from")
    where.add_argument("table", help="e.g. table4")
    where.add_argument("row", help="backbone, and gate where there is one, e.g. resnet50+cbam")
    where.add_argument("metric", help="a column: params_m, gflops, top1_error, map_50 ...")
    where.add_argument("--format", choices=["text", "json"], default="text")
    add_choice(where)
    where.set_defaults(verb=verbs.where)

    verify = commands.add_parser("verify", help="hold every number to the folder of its run")
    add_choice(verify)
    verify.set_defaults(verb=verbs.verify)

    complexity = commands.add_parser("complexity", help="count parameters and GFLOPs; compare")
    complexity.add_argument(
        "--study", default="cbam", help="a folder in workflow/studies; default: cbam"
    )
    complexity.set_defaults(verb=verbs.complexity)

    add_evaluate(commands)
    add_check(commands)

    prepare = commands.add_parser("prepare", help="compose a data set into a file")
    prepare.add_argument("dataset", help="a recipe's 'dataset', as JSON")
    prepare.add_argument("folder", type=Path)
    prepare.set_defaults(verb=verbs.prepare)

    add_data(commands)

    schema = commands.add_parser(
        "schema", help="write the JSON schemas of config, study, claims and tier files"
    )
    schema.add_argument("folder", type=Path, nargs="?", default=Path("workflow/schemas"))
    schema.set_defaults(verb=verbs.schema)
    return parser


def script() -> None:
    """Run one verb as a command, and leave at once, however it ends.

    Python's own end waits for other processes, and takes torch apart, which takes 0.7 s.
    """
    # In a locale of old: all files and output are UTF-8.
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    code = 1
    try:
        code = _code()
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # the disk is full, or the reader, such as `head`, has had enough
        code = 1
    finally:
        os._exit(code)


def _code() -> int:
    try:
        return main()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        raise
    except BaseException:
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    script()

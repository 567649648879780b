"""Options that several verbs have, and the types of options' values.

Nothing is imported above that takes long: the help of every verb waits for this module.
"""

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from attention_ablation.base.errors import UserError

if TYPE_CHECKING:
    from attention_ablation.datasets.contract import Folders
    from attention_ablation.study.config import Study
    from attention_ablation.study.expand import Plan
    from attention_ablation.training.machine import Machine

NAMED = ("study", "tier")  # keys of the config with an option of their own


def count(least: int, most: int = 1024) -> Callable[[str], int]:
    """Return a type of option: a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        number = int(text) if re.fullmatch("[0-9]{1,18}", text) else -1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f"expected a whole number from {least} to {most:,}, got '{text}'"
            )
        return number

    return parse


def amount(text: str) -> float:
    """Return a number of 0 or more: a type of option."""
    plain = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", text)
    number = float(text) if plain else -1
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of 0 or more, got '{text}'")
    return number


def _add_config(parser: argparse.ArgumentParser) -> None:
    default = Path("config.yaml")
    text = f"default: {default}"
    parser.add_argument("--config", type=Path, default=default, metavar="FILE", help=text)


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Add what chooses a plan."""
    _add_config(parser)
    option, text = parser.add_argument, "override a key of the config, such as tier=imagenet"
    option("--set", action="append", default=[], metavar="KEY=VALUE", help=text)
    for key in NAMED:
        option(f"--{key}", metavar="NAME", help=f"the same as --set {key}=NAME")


def chosen_plan(options: argparse.Namespace) -> "Plan":
    """Return the plan that the options of `add_choice` choose."""
    from attention_ablation.base.yaml import parse_yaml
    from attention_ablation.study.expand import load_plan
    from attention_ablation.study.files import merged

    settings = {}
    for setting in options.set:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"--set: expected KEY=VALUE with a value in YAML, got '{setting}'.")
        settings[key] = parse_yaml(value, f"--set {key}")
    settings |= {key: name for key in NAMED if (name := getattr(options, key)) is not None}
    return load_plan(merged([options.config], settings))


def add_study(parser: argparse.ArgumentParser) -> None:
    """Add what chooses a study, whatever the tier."""
    _add_config(parser)
    text = "a folder in workflow/studies; default: the config's"
    parser.add_argument("--study", metavar="NAME", help=text)


def chosen_study(options: argparse.Namespace) -> "Study":
    """Return the study that the options of `add_study` choose."""
    from attention_ablation.study.config import Config
    from attention_ablation.study.files import load_study, merged, parse

    name, where = options.study, "--study"
    if name is None:
        where = str(options.config)
        name = parse(Config, merged([options.config], {}), where).study
    return load_study(Path("workflow/studies"), name, where)


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add a run, where its data are, and what computes it."""
    option, default = parser.add_argument, Path("results/data")
    option("spec", type=Path, help="results/<tier>/runs/<run id>/seed-<n>/spec.json")
    text = f"where composed data sets and lists of files are; default: {default}"
    option("--data", type=Path, default=default, metavar="FOLDER", help=text)
    text = "where the other data sets are, each by its name; default: the same"
    option("--datasets", type=Path, metavar="FOLDER", help=text)
    add_workers(parser)
    add_device(parser)
    text = "runs that share a GPU; one that finds all taken waits; default: 1"
    option("--runs-per-gpu", type=count(1), default=1, metavar="N", help=text)


def add_workers(parser: argparse.ArgumentParser) -> None:
    text = "processes that decode image files; default: 1"
    parser.add_argument("--workers", type=count(0), default=1, metavar="N", help=text)


def add_device(parser: argparse.ArgumentParser) -> None:
    option, text = parser.add_argument, "cpu, cuda, cuda:1 ...; default: a GPU if any"
    option("--device", default="auto", help=text)
    option("--threads", type=count(1), default=1, metavar="N", help="CPU threads; default: 1")


def machine(options: argparse.Namespace) -> "Machine":
    """Return what computes, as the options say; some verbs have fewer of them."""
    from attention_ablation.training.machine import Machine

    names = {"threads", "workers", "runs_per_gpu"} & vars(options).keys()
    return Machine(options.device, **{name: getattr(options, name) for name in names})


def folders(options: argparse.Namespace) -> "Folders":
    from attention_ablation.datasets.contract import Folders

    return Folders(options.data, getattr(options, "datasets", None) or options.data)

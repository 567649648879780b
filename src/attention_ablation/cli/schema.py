"""Write the JSON schemas of config, study, claims and tier files."""

import argparse
import json
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, nargs="?", default=Path("workflow/schemas"))


def run(options: argparse.Namespace) -> None:
    from attention_ablation.base.io import write_text
    from attention_ablation.study.claims import ClaimsFile
    from attention_ablation.study.config import Config, StudyFile, Tier

    for model in (Config, StudyFile, ClaimsFile, Tier):
        name = model.__name__.removesuffix("File").lower()
        text = json.dumps(model.model_json_schema(), indent=2)
        write_text(options.folder / f"{name}.schema.json", text + "\n")

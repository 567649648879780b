"""Write the JSON schemas of config, study, claims and tier files."""

import argparse
import json
from pathlib import Path

from attention_ablation.base.io import write_text
from attention_ablation.base.model import Model
from attention_ablation.study.claims import ClaimsFile
from attention_ablation.study.config import Config, StudyFile, Tier

MODELS: dict[str, type[Model]] = {
    "config": Config,
    "study": StudyFile,
    "claims": ClaimsFile,
    "tier": Tier,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, nargs="?", default=Path("workflow/schemas"))


def run(options: argparse.Namespace) -> None:
    for name, model in MODELS.items():
        text = json.dumps(model.model_json_schema(), indent=2)
        write_text(options.folder / f"{name}.schema.json", text + "\n")

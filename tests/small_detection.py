"""A study with a row or two of each detector, which trains in seconds."""

from pathlib import Path

import torch

from attention_ablation.datasets.contract import load
from attention_ablation.runs.folder import initial_weights
from attention_ablation.spec.spec import Run
from attention_ablation.study.config import Config
from attention_ablation.study.expand import Plan, load_plan
from attention_ablation.training.detect import Detection
from tests.conftest import shrink_study
from tests.machines import ONE_CPU, in_one

CPU = torch.device("cpu")
ROWS = """table,label,backbone,detector,attention,params_m,map_50,map_75,map
table5,MobileNet,mobilenet,,none,4.23,,,
table6,ResNet18,resnet18,faster-rcnn,none,,,,
table6,ResNet18 + CBAM,resnet18,faster-rcnn,cbam,,48.2,29.2,28.1
table7,MobileNet SSD,mobilenet,ssd,none,5.81,68.1,,
table7,MobileNet StairNet + SE,mobilenet,stairnet,se,5.99,70.0,,
"""
FIGURES = {
    "detections": {
        "kind": "detections", "title": "Boxes", "section": "4.4", "table": "table6",
        "rows": ["resnet18+faster-rcnn", "resnet18+faster-rcnn+cbam"],
    }
}  # fmt: skip


def alone(plan: Plan, table: str, key: str) -> Run:
    """A row's run, from random weights."""
    (run,) = plan.row_runs(table, key)
    return run.model_copy(update={"spec": run.spec.model_copy(update={"initial": None})})


def task(plan: Plan, run: Run) -> Detection:
    data = load(run.spec.recipe.dataset, in_one(plan.data_folder))
    made = Detection(run, data, ONE_CPU)
    if initial := initial_weights(run, plan.runs_folder / run.path):
        made.start_from(initial)
    return made


def folder_of(plan: Plan, run: Run) -> Path:
    folder = plan.runs_folder / run.path
    folder.mkdir(parents=True)
    return folder


def detection_plan(project: Path) -> Plan:
    """Leave the project these rows, which train for eight steps, and plan them."""
    shrink_study(project, ROWS, FIGURES)
    return load_plan(Config(study="cbam", tier="tiny"))

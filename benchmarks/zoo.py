"""Time a training step of the networks of a study's tables over one without a gate.

    python -m benchmarks.zoo [--study zoo] [--rounds 5]

Networks of full size at 224 px with one thread, not compiled. A step with each gate and one without
are timed in turns, and the fastest of both compared, because what else a machine does only adds. It
writes `times.csv` in the study's folder, which the study's tables show: backbone, attention,
time_over_bare, and the fastest step without and with the gate in seconds.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from attention_ablation.gates.record import Attention
from attention_ablation.networks.record import Backbone
from attention_ablation.study.config import Study
from attention_ablation.study.files import load_study
from attention_ablation.training.run import seed_everything
from benchmarks.gates import BATCH, SIZE, step_of
from benchmarks.quick import header

CPU = torch.device("cpu")
STUDIES = Path("workflow/studies")


def main() -> None:
    """Write the file, a network after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", default="zoo")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    header()
    torch.set_num_threads(1)
    seed_everything(0, CPU)
    study = load_study(STUDIES, options.study, "benchmarks.zoo")
    lines: list[dict[str, Any]] = []
    shown = {
        name
        for name, table in study.tables.items()
        if any(study.metrics[column].source == "time_over_bare" for column in table.columns)
    }
    timed = [row for row in study.rows if row.table in shown and not row.detector]
    for backbone in dict.fromkeys(row.backbone for row in timed):
        named = dict.fromkeys(row.attention for row in timed if row.backbone == backbone)
        lines += compare(study, backbone, [*named], options.rounds)
    path = STUDIES / options.study / "times.csv"
    pd.DataFrame(lines).to_csv(path, index=False)
    print(path.read_text())


def compare(study: Study, backbone: str, named: list[str], rounds: int) -> list[dict[str, Any]]:
    """Return a line for each named attention of a backbone."""
    # A gate takes as long whatever it starts as.
    attentions = {name: study.attentions[name].model_copy(update={"start": None}) for name in named}
    host = Backbone(name=backbone)
    bare, _ = step_of(host, Attention(), CPU, False, BATCH, SIZE)
    lines: list[dict[str, Any]] = []
    found: dict[Attention, tuple[float, float]] = {}
    for name, attention in attentions.items():
        if attention.method:
            continue  # the critic is not a part of the network
        if attention not in found:
            step, _ = step_of(host, attention, CPU, False, BATCH, SIZE)
            step()
            pairs = [(bare(), step()) for _ in range(rounds)]
            plain, gated = (min(times) for times in zip(*pairs, strict=True))
            found[attention] = plain, plain if attention == Attention() else gated
        plain, gated = found[attention]
        lines.append(
            {"backbone": backbone, "attention": name}
            | {"time_over_bare": round(gated / plain, 3)}
            | {"bare_s": round(plain, 4), "step_s": round(gated, 4)}
        )
        print(lines[-1], flush=True)
    return lines


if __name__ == "__main__":
    main()

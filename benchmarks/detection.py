"""Print how fast detectors train on a CPU: ours beside torchvision's, round by round.

    python -m benchmarks.detection [--write]

All train at full size on the same scenes, in turns, so that what else the machine does meets all;
the median of the rounds' ratios counts. torchvision's run in the loop of its detection references.
Faster R-CNN has two of them: `fasterrcnn_resnet50_fpn`, which is another network, and torchvision's
class with the parts of the C4 form, which is the same work as ours. `--write` keeps every round in
benchmarks/results/detection.csv. benchmarks/README.md holds its output.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet50
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn, ssd300_vgg16
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign, misc

from attention_ablation.datasets.contract import Folders, load
from attention_ablation.detectors.record import Detector
from attention_ablation.gates.record import Attention
from attention_ablation.networks.record import Backbone
from attention_ablation.spec.recipes import DetectionRecipe
from attention_ablation.spec.spec import DetectionSpec, Run
from attention_ablation.training.detect import Detection
from attention_ablation.training.loop import Loop
from attention_ablation.training.machine import Machine
from attention_ablation.training.run import seed_everything
from benchmarks.quick import header

CPU = torch.device("cpu")
ROUNDS, STEPS = 3, 2
CLASSES = 10
# Ours, its backbone, the shorter side in px, images in a step, and torchvision's beside it.
PAIRS = {
    "faster-rcnn": ("resnet50", 600, 1, ("fasterrcnn_resnet50_fpn", "torchvision's class, C4")),
    "ssd": ("vgg16", 300, 4, ("ssd300_vgg16",)),
}
TARGET = 0.95  # at equal work


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep every round as CSV")
    options = parser.parse_args()
    header()
    rounds = [row for detector in PAIRS for row in compare(detector)]
    table(rounds)
    if options.write:
        pd.DataFrame(rounds).to_csv("benchmarks/results/detection.csv", index=False)


def run(detector: str) -> Run:
    """Return a training of a detector at full size on scenes that are composed here."""
    backbone, size, batch, _ = PAIRS[detector]
    recipe = {
        "dataset": {
            "name": "cluttered-scenes",
            "image_size": size,
            "smallest": size // 8,
            "largest": size // 2,
            "digits": 5,
            "fragments": 5,
            "train_images": batch * STEPS,
            "validation_images": 1,
        },
        "augmentation": "none",
        "metric": "voc",
        "epochs": ROUNDS + 2,  # the last one is not run, because it evaluates
        "evaluate_every": ROUNDS + 2,
        "batch_size": batch,
        "learning_rate": 1e-5,  # from random weights; nothing is meant to be learned here
        "weight_decay": 5e-4,
        "schedule": {"name": "step", "every": 100},
    }
    spec = DetectionSpec(
        backbone=Backbone(name=backbone),
        attention=Attention(),
        detector=Detector(name=detector),  # type: ignore[arg-type]
        recipe=DetectionRecipe.model_validate(recipe),
    )
    return Run(seed=0, spec=spec)


def theirs(name: str, size: int) -> nn.Module:
    """Return a detector of torchvision with random weights, conv1 and layer1 fixed."""
    anything: dict[str, Any] = {"weights": None, "weights_backbone": None}
    classes = CLASSES + 1
    longest = round(size * 5 / 3)
    if name == "ssd300_vgg16":
        model: nn.Module = ssd300_vgg16(num_classes=classes, **anything)
    elif name == "fasterrcnn_resnet50_fpn":
        pyramid: Any = fasterrcnn_resnet50_fpn(
            num_classes=classes, min_size=size, max_size=longest, **anything
        )
        fix(pyramid.backbone.body)
        model = pyramid
    else:
        model = c4(classes, size, longest)
    return model


def c4(classes: int, size: int, longest: int) -> nn.Module:
    """Return torchvision's Faster R-CNN with ResNet50's layer4 on every region."""
    network = resnet50(weights=None, norm_layer=misc.FrozenBatchNorm2d)
    for block in network.layer4:
        block.conv1.stride = block.conv2.stride = (1, 1)
    network.layer4[0].downsample[0].stride = (1, 1)
    fix(network)
    stages = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
    shared = nn.Sequential(*(getattr(network, stage) for stage in stages))
    shared.out_channels = 1024  # type: ignore[assignment]
    model: nn.Module = FasterRCNN(
        shared,
        min_size=size,
        max_size=longest,
        rpn_anchor_generator=AnchorGenerator(((64, 128, 256, 512),), ((0.5, 1.0, 2.0),)),
        rpn_pre_nms_top_n_train=12000,
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=7, sampling_ratio=2),
        box_head=nn.Sequential(network.layer4, nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        box_predictor=FastRCNNPredictor(2048, classes),
        box_batch_size_per_image=256,
    )
    return model


def fix(network: nn.Module) -> None:
    """Leave conv1 and layer1 as they are, as with weights from ImageNet."""
    for stage in ("conv1", "layer1"):
        getattr(network, stage).requires_grad_(False)


def compare(detector: str) -> list[dict[str, Any]]:
    """Return every round's images/s of ours and of torchvision's, after one that warms up."""
    _, size, batch, others = PAIRS[detector]
    own = run(detector)
    assert isinstance(own.spec, DetectionSpec)
    folder = Path("results/benchmark")
    data = load(own.spec.recipe.dataset, Folders(folder, folder))
    gc.collect()
    models = {name: theirs(name, size).train() for name in others}
    loops = {name: reference(model, data.train, batch) for name, model in models.items()}
    seed_everything(0, CPU)
    task = Detection(own, data, Machine("cpu"))
    loop = Loop(task)
    rates: dict[str, Callable[[], float]] = {"ours": lambda: loop.epoch()["images_per_second"]}
    rates |= loops
    work = {"ours": flops(task.model.train(), data.train, batch)}
    work |= {name: flops(model, data.train, batch) for name, model in models.items()}
    rounds = []
    for number in range(ROUNDS + 1):
        measured = {}
        for name, rate in rates.items():
            torch.use_deterministic_algorithms(name == "ours")
            measured[name] = rate()
        for name in others if number else ():
            rounds.append(
                {"detector": detector, "reference": name, "batch": batch, "round": number}
                | {"ours": round(measured["ours"], 4), "theirs": round(measured[name], 4)}
                | {"gflops_ours": round(work["ours"]), "gflops_theirs": round(work[name])}
            )
    return rounds


def reference(model: nn.Module, scenes: Any, batch: int) -> Callable[[], float]:
    """Return what trains an epoch in the way of torchvision's references, and gives images/s."""

    def collate(pairs: list[Any]) -> tuple[list[Any], list[Any]]:
        return [image.float() / 255 for image, _ in pairs], [target for _, target in pairs]

    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=1e-5, momentum=0.9, weight_decay=5e-4)
    loader: DataLoader[Any] = DataLoader(scenes, batch, shuffle=True, collate_fn=collate)

    def epoch() -> float:
        start = time.perf_counter()
        for images, targets in loader:
            losses = model(images, targets)
            total = sum(losses.values())
            assert torch.isfinite(total), losses
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
        return len(scenes) / (time.perf_counter() - start)

    return epoch


def flops(model: nn.Module, scenes: Any, batch: int) -> float:
    """Return the GFLOPs of an image's training step, multiply and add counted as two.

    Without those of the crops, which are matrix products in ours and not counted in RoIAlign.
    """
    pairs = [scenes[i] for i in range(batch)]
    with FlopCounterMode(display=False) as counter:
        losses = model([i.float() / 255 for i, _ in pairs], [t for _, t in pairs])
        sum(losses.values()).backward()
    model.zero_grad()
    crops = sum(
        sum(operations.values())
        for module, operations in counter.get_flop_counts().items()
        if module.endswith("box_roi_pool")
    )
    return float(counter.get_total_flops() - crops) / batch / 1e9


def table(rounds: list[dict[str, Any]]) -> None:
    """Print the medians."""
    print("| ours | torchvision's | images/s, ours | theirs | ratio | lowest and highest |"
          " GFLOPs an image, ours | theirs | ratio at equal work | target |")  # fmt: skip
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for detector, name in dict.fromkeys((r["detector"], r["reference"]) for r in rounds):
        chosen = [r for r in rounds if (r["detector"], r["reference"]) == (detector, name)]
        ours, other = (statistics.median(r[key] for r in chosen) for key in ("ours", "theirs"))
        ratios = [r["ours"] / r["theirs"] for r in chosen]
        ratio, (own, its) = statistics.median(ratios), (
            statistics.median(r[key] for r in chosen) for key in ("gflops_ours", "gflops_theirs")
        )  # fmt: skip
        print(
            f"| {detector} | {name} | {ours:.3f} | {other:.3f} | {ratio:.2f} | "
            f"{min(ratios):.2f}, {max(ratios):.2f} | {own:,.0f} | {its:,.0f} | "
            f"{ratio * own / its:.2f} | {TARGET} |"
        )


if __name__ == "__main__":
    main()

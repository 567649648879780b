"""Print how fast a ResNet50 trains at 224 px: our trainer beside torchvision's and timm's loops.

    pip install timm; python -m benchmarks.trainer [--rounds 5] [--write]

All train the same network at full size with the same batch on the same JPEG files, one thread each
and one worker that reads them, in turns; the median of the rounds' ratios counts. torchvision's
loop is that of its classification reference, with torchvision's network or, with CBAM, ours as the
authors' code computes it; timm's is that of its training script, with its own network, loader and
optimiser, channels last. "Compute" repeats one batch that lies in memory. `--write` keeps every
round in benchmarks/results/trainer.csv. benchmarks/README.md holds its output.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, max_pool2d
from torchvision import models

from attention_ablation.datasets.image_folders import list_files
from attention_ablation.gates.record import Attention
from attention_ablation.networks.build import build, initialise
from attention_ablation.networks.record import Backbone
from attention_ablation.spec.spec import Run, Spec
from attention_ablation.training.classify import Classification
from attention_ablation.training.loop import Loop
from attention_ablation.training.machine import Machine
from attention_ablation.training.run import seed_everything
from benchmarks.loader import CPU, OWN, recipe, reference_loader, write_photos
from benchmarks.quick import header

BATCH, STEPS = 4, 2
GATES = {"none": Attention(), "CBAM": Attention(pooling="avg&max", descriptor="pool")}
RATE = 1e-4


class Trained:
    """A way to train: an epoch of batches from files, and steps on one batch in memory."""

    def __init__(
        self, step: Callable[[Tensor, Tensor], None], epoch: Callable[[], Iterable[Any]]
    ) -> None:
        self.step, self.epoch = step, epoch
        self.batch = next(iter(epoch()))

    def rates(self) -> dict[str, float]:
        """Return images/s from files and of compute alone."""
        batches = iter(self.epoch())
        self.step(*next(batches))  # the workers start before
        start = time.perf_counter()
        for _ in range(STEPS):
            self.step(*next(batches))
        whole = time.perf_counter() - start
        start = time.perf_counter()
        for _ in range(STEPS):
            self.step(*self.batch)
        alone = time.perf_counter() - start
        return {"files": STEPS * BATCH / whole, "compute": STEPS * BATCH / alone}


def ours(folder: Path, gate: str, compile: str | None) -> Trained:
    """Our loop, feed and network."""
    spec = Spec(
        backbone=Backbone(name="resnet50", stride="v1.5"),
        attention=GATES[gate],
        recipe=recipe(OWN.model_dump(), "crop-flip", BATCH).model_copy(
            update={"compile": compile, "learning_rate": RATE}
        ),
    )
    data = list_files(OWN, folder)
    loop = Loop(Classification(Run(seed=0, spec=spec), data, Machine("cpu", workers=1)))
    loop.task.model.train()
    numbers = iter(range(1, 1000))
    return Trained(
        lambda images, labels: loop._step((images, labels)),
        lambda: loop.task.batches(next(numbers)),
    )


def torchvisions(folder: Path, gate: str) -> Trained:
    """The loop of torchvision's reference, channels first, its metrics read in every step."""
    if gate == "none":
        model: nn.Module = models.resnet50(num_classes=OWN.classes)
    else:
        model = build(Backbone(name="resnet50", stride="v1.5"), GATES[gate], OWN.classes)
        initialise(model, 0)
        as_the_authors(model)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=1e-4)

    def step(images: Tensor, labels: Tensor) -> None:
        output = model(images)
        loss = nn.functional.cross_entropy(output, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for k in (1, min(5, OWN.classes)):
            hits = output.topk(k, dim=1).indices.eq(labels[:, None])
            hits.any(dim=1).float().mean().item()
        loss.item()

    loader = reference_loader(folder, 1, BATCH)
    return Trained(step, lambda: loader)


def timms(folder: Path, gate: str) -> Trained:
    """timm's network, loader, optimiser and the steps of its training script."""
    import timm
    from timm.data import create_dataset, create_loader
    from timm.optim import create_optimizer_v2
    from timm.utils import AverageMeter

    blocks = {"block_args": {"attn_layer": "cbam"}} if gate == "CBAM" else {}
    model = timm.create_model("resnet50", num_classes=OWN.classes, **blocks)
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = create_optimizer_v2(model, opt="sgd", lr=RATE, momentum=0.9, weight_decay=1e-4)
    files = create_dataset("", root=str(folder / "own/train"))
    loader = create_loader(
        files, input_size=(3, 224, 224), batch_size=BATCH, is_training=True, num_workers=1,
        use_prefetcher=False, device=CPU, persistent_workers=True,
    )  # fmt: skip
    losses = AverageMeter()

    def step(images: Tensor, labels: Tensor) -> None:
        images = images.contiguous(memory_format=torch.channels_last)
        loss = cross_entropy(model(images), labels)
        losses.update(loss.item(), images.size(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return Trained(step, lambda: loader)


def as_the_authors(model: nn.Module) -> None:
    """Let channel attention pool and add as the authors' code does: an MLP pass for each pool."""

    def forward(self: Any, x: Tensor) -> Tensor:
        size = x.shape[2:]
        pools = (avg_pool2d(x, size, stride=size), max_pool2d(x, size, stride=size))
        first, second = (self.mlp(pool.flatten(1)) for pool in pools)
        scale: Tensor = (first + second)[:, :, None, None].expand_as(x)
        return scale

    for module in model.modules():
        if type(module).__name__ == "ChannelAttention":
            module.forward = forward.__get__(module)


SYSTEMS: dict[str, dict[str, Callable[[Path], Trained]]] = {
    "none": {
        "ours": lambda folder: ours(folder, "none", None),
        "ours, compile: model": lambda folder: ours(folder, "none", "model"),
        "torchvision's loop": lambda folder: torchvisions(folder, "none"),
        "timm's loop": lambda folder: timms(folder, "none"),
    },
    "CBAM": {
        "ours": lambda folder: ours(folder, "CBAM", None),
        "ours, compile: gates": lambda folder: ours(folder, "CBAM", "gates"),
        "torchvision's loop": lambda folder: torchvisions(folder, "CBAM"),
        "timm's loop": lambda folder: timms(folder, "CBAM"),
    },
}
OTHERS = ("torchvision's loop", "timm's loop")


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="keep every round as CSV")
    options = parser.parse_args()
    torch.set_num_threads(1)
    header()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = write_photos(Path(name))
        for gate in SYSTEMS:
            gc.collect()
            rows += compare(folder, gate, options.rounds)
    print(table(rows))
    if options.write:
        pd.DataFrame(rows).to_csv("benchmarks/results/trainer.csv", index=False)


def compare(folder: Path, gate: str, rounds: int) -> list[dict[str, Any]]:
    """Return every round's images/s, after one that warms up."""
    seed_everything(0, CPU)
    trained = {name: make(folder) for name, make in SYSTEMS[gate].items()}
    rows = []
    for number in range(rounds + 1):
        for name, way in trained.items():
            torch.use_deterministic_algorithms(name not in OTHERS)
            rates = way.rates()
            if number:
                rounded = {key: round(rate, 4) for key, rate in rates.items()}
                rows.append({"gate": gate, "trainer": name, "round": number} | rounded)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return the medians, and of the ratios round by round, as Markdown."""
    lines = [
        "| gate | trainer | images/s from files | compute alone "
        "| over torchvision's, files | compute | over timm's, files | compute |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for gate, systems in SYSTEMS.items():
        for name in systems:
            mine = of(rows, gate, name)
            cells = [gate, name, *(f"{middle(mine, key):.2f}" for key in ("files", "compute"))]
            for other in OTHERS:
                beside = of(rows, gate, other)
                for key in ("files", "compute"):
                    ratios = [a[key] / b[key] for a, b in zip(mine, beside, strict=True)]
                    cells.append(f"{statistics.median(ratios):.2f}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def of(rows: list[dict[str, Any]], gate: str, trainer: str) -> list[dict[str, Any]]:
    return [row for row in rows if (row["gate"], row["trainer"]) == (gate, trainer)]


def middle(rows: list[dict[str, Any]], key: str) -> float:
    return float(statistics.median(row[key] for row in rows))


if __name__ == "__main__":
    main()

"""Print what gates cost in a training step at 224 px, run as they are and compiled.

    python -m benchmarks.gates [--backbone resnet50] [--rounds 7] [--device cpu] [--write]

A step is forward, loss, backward and update of the whole network at full size, channels last, with
one thread. Each round times a step of every row right after one of the network without gates, so
that what else the machine does meets both; the median of a row's ratios counts. The bytes that the
forward pass keeps for the backward pass are counted, not estimated. On a machine that others share
steps of seconds scatter more than gates cost: so a second table times the network's gates alone,
forward and backward, many times, and compares the fastest. `--write` keeps every round in
benchmarks/results/gates.csv. benchmarks/README.md holds its output.
"""

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from attention_ablation.gates.build import build_gate, gates_of
from attention_ablation.gates.record import Attention
from attention_ablation.networks.build import build, initialise
from attention_ablation.networks.record import Backbone
from attention_ablation.training.compiled import Compiled
from attention_ablation.training.run import seed_everything
from benchmarks.quick import header

RESULTS = Path("benchmarks/results/gates.csv")
SIZE, CLASSES, BATCH = 224, 1000, 8
TIMES, WARM, BARE_STEPS = 25, 2, 9
GATES = {
    "none": Attention(),
    "SE": Attention(pooling="avg"),
    "channel": Attention(pooling="avg&max"),
    "CBAM": Attention(pooling="avg&max", descriptor="pool"),
    "CBAM, parallel": Attention(pooling="avg&max", descriptor="pool", arrangement="parallel"),
    "times 1/2": Attention(gate="scale"),
}


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", nargs="+", default=["resnet50", "resnet18"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--write", action="store_true", help="keep every round as CSV")
    options = parser.parse_args()
    header()
    torch.set_num_threads(1)
    seed_everything(0, options.device)
    rows = [
        row for name in options.backbone for row in compare(name, options.device, options.rounds)
    ]
    print(table(rows), end="\n\n")
    gates_alone = [row for name in options.backbone for row in alone(name, options.device)]
    print(pd.DataFrame(gates_alone).to_markdown(index=False, floatfmt=".3f"))
    if options.write:
        pd.DataFrame(rows).to_csv(RESULTS, index=False)
        pd.DataFrame(gates_alone).to_csv(RESULTS.with_name("gates-alone.csv"), index=False)


def compare(
    backbone: str, device: torch.device, rounds: int, batch: int = BATCH, size: int = SIZE
) -> list[dict[str, Any]]:
    """Return the seconds of every row's step in every round, and of the bare one's before it."""
    steps, facts = {}, {}
    for name, attention in GATES.items():
        for compiled in (False, True) if name != "none" else (False,):
            start = time.perf_counter()
            step, kept = step_of(Backbone(name=backbone), attention, device, compiled, batch, size)
            step()
            steps[name, compiled] = step
            facts[name, compiled] = {"kept_mb": kept, "first_s": time.perf_counter() - start}
    rows = []
    for number in range(rounds + 1):
        for (name, compiled), step in steps.items():
            bare, seconds = steps["none", False](), step()
            if number:  # the first round warms up
                rows.append(
                    {"backbone": backbone, "gate": name, "compiled": compiled, "round": number}
                    | {"batch": batch, "bare_s": round(bare, 5), "step_s": round(seconds, 5)}
                    | {k: round(v, 2) for k, v in facts[name, compiled].items()}
                )
    return rows


def step_of(
    backbone: Backbone,
    attention: Attention,
    device: torch.device,
    compiled: bool,
    batch: int = BATCH,
    size: int = SIZE,
) -> tuple[Callable[[], float], float]:
    """Return a training step that gives its seconds, and the MB that it keeps for backward."""
    model = build(backbone, attention, CLASSES)
    initialise(model, 0)
    model.to(device).to(memory_format=torch.channels_last)
    if compiled:
        Compiled(model, "gates")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, fused=True)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, size, size, generator=generator).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % CLASSES

    def step() -> float:
        wait(device)
        start = time.perf_counter()
        loss = cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wait(device)
        return time.perf_counter() - start

    return step, kept_for_backward(model, images)


def alone(
    backbone: str, device: torch.device, batch: int = BATCH, size: int = SIZE, times: int = TIMES
) -> list[dict[str, Any]]:
    """Return the fastest forward and backward pass of all gates of a network, and its bare step's.

    Each distinct shape is timed once and counted as often as it stands in the network.
    """
    bare, _ = step_of(Backbone(name=backbone), Attention(), device, False, batch, size)
    step_s = min(bare() for _ in range(BARE_STEPS))
    rows = []
    for name, attention in GATES.items():
        if name == "none":
            continue
        shapes = Counter(shapes_of(Backbone(name=backbone), attention, batch, size))
        seconds = {False: 0.0, True: 0.0}
        for shape, places in shapes.items():
            passes = {fast: pass_of(attention, shape, device, fast) for fast in seconds}
            found: dict[bool, list[float]] = {fast: [] for fast in seconds}
            for _ in range(times):
                for fast, run in passes.items():
                    found[fast].append(run())
            for fast in seconds:
                seconds[fast] += places * min(found[fast][WARM:])
        rows.append(
            {"batch": batch, "network": backbone, "gate": name, "bare step, s": step_s}
            | {"gates, s": seconds[False], "over no gate": 1 + seconds[False] / step_s}
            | {"compiled, s": seconds[True], "compiled over no gate": 1 + seconds[True] / step_s}
        )
    return rows


def shapes_of(
    backbone: Backbone, attention: Attention, batch: int, size: int
) -> list[tuple[int, ...]]:
    """Return the shape of every gate's map in a network, in turn."""
    model = build(backbone, attention, CLASSES)
    shapes: list[tuple[int, ...]] = []
    for gate in gates_of(model):
        gate.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape)))
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, size, size))
    return [(batch, *shape[1:]) for shape in shapes]


def pass_of(
    attention: Attention, shape: tuple[int, ...], device: torch.device, compiled: bool
) -> Callable[[], float]:
    """Return a forward and backward pass of one gate, which gives its seconds."""
    gate = build_gate(attention, shape[1])
    initialise(gate, 0)
    gate.to(device)
    holder = nn.Sequential(gate, nn.BatchNorm2d(1)).to(device)  # a gate may have no parameters
    if compiled:
        Compiled(holder, "gates")
    x, towards = (
        torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    )
    x.requires_grad_()

    def run() -> float:
        wait(device)
        start = time.perf_counter()
        gate(x).backward(towards)
        wait(device)
        seconds = time.perf_counter() - start
        for tensor in (x, *gate.parameters()):
            tensor.grad = None  # as before a step: nothing is added up
        return seconds

    return run


def kept_for_backward(model: nn.Module, images: Tensor) -> float:
    """Return the MB (2**20 bytes) of activations that a forward pass keeps, weights apart."""
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    kept: dict[int, tuple[int, Tensor]] = {}  # held, so that no address is used twice

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(images)
    return sum(size for size, _ in kept.values()) / 2**20


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the medians of the ratios to the network without gates, as Markdown."""
    lines = [
        "| network | gate | step, ms | over no gate | compiled, ms | over no gate "
        "| lowest and highest | kept for backward over no gate | compiled | first step, s |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for backbone in dict.fromkeys(row["backbone"] for row in rows):
        times = {
            (name, compiled): [r for r in rows if key(r) == (backbone, name, compiled)]
            for name in GATES
            for compiled in (False, True)
        }
        bare = times["none", False]
        for name in GATES:
            cells = [backbone, name]
            kept = []
            for compiled in (False, True):
                if mine := times[name, compiled]:
                    found = [row["step_s"] / row["bare_s"] for row in mine]
                    cells.append(f"{1000 * statistics.median(r['step_s'] for r in mine):.0f}")
                    cells.append(f"{statistics.median(found):.3f}")
                    kept.append(f"{mine[0]['kept_mb'] / bare[0]['kept_mb']:.2f}")
                else:
                    cells += ["", ""]
                    kept.append("")
            spread = f"{min(found):.2f}, {max(found):.2f}" if times[name, True] else ""
            first = f"{mine[0]['first_s']:.0f}" if mine else ""
            lines.append(f"| {' | '.join([*cells, spread, *kept, first])} |")
    return "\n".join(lines)


def key(row: dict[str, Any]) -> tuple[str, str, bool]:
    return row["backbone"], row["gate"], row["compiled"]


if __name__ == "__main__":
    main()

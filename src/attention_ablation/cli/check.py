"""Try a gate of your own: shapes, gradients, saving ..."""

import argparse
from pathlib import Path

from attention_ablation.cli.options import count


def add_options(check: argparse.ArgumentParser) -> None:
    """Add the gate, and on what it is tried."""
    check.add_argument("module", help="its file and class, e.g. my_module.py:MyGate")
    check.add_argument(
        "--channels",
        type=count(1, 65_536),
        nargs="+",
        metavar="C",
        help="numbers of channels; default: several",
    )
    check.add_argument(
        "--options", default="{}", metavar="JSON", help="""its options, e.g. '{"reduction": 8}'"""
    )
    check.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ...; default: cpu")


def run(options: argparse.Namespace) -> int:
    """Print what is found; 1 where a check failed."""
    from attention_ablation.base.io import parse_json
    from attention_ablation.gates.record import Attention, seal
    from attention_ablation.study.files import parse

    given = parse_json(options.options, "--options")
    attention = parse(Attention, {"module": options.module, "options": given}, "check")
    attention = seal(attention, Path(), "check")
    from attention_ablation.check.gate import CHANNELS, check_gate
    from attention_ablation.check.subject import Subject
    from attention_ablation.training.machine import choose_device

    subject = Subject(attention, options.channels or CHANNELS, choose_device(options.device))
    failed = 0
    for result in check_gate(subject):
        print(f"{'ok  ' if result.ok else 'FAIL'}  {result.name}: {result.text}", flush=True)
        failed += not result.ok
    print(f"{options.module}: " + (f"{failed} failed." if failed else "all checks passed."))
    return int(failed > 0)

"""Write where a finished run looks: Grad-CAM."""

import argparse

from attention_ablation.cli.options import add_run, folders, machine

add_options = add_run


def run(options: argparse.Namespace) -> None:
    """Explain it, and print what was found."""
    chosen = machine(options)
    # Before torch, which then sees the GPU of the slot only.
    with chosen.slot():
        from attention_ablation.evidence.explain import explain
        from attention_ablation.training.run import seed_everything

        seed_everything(0, chosen.device)
        found = explain(options.spec, folders(options), chosen)
        print(found.model_dump_json(indent=2, exclude_unset=True))

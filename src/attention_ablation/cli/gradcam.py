"""Write where a finished run looks: Grad-CAM."""

import argparse
from contextlib import nullcontext

from attention_ablation.cli.options import add_run

add_options = add_run


def run(options: argparse.Namespace) -> None:
    """Explain it, and print what was found."""
    from attention_ablation.training.slots import gpu_slot

    # Before torch, which then sees the GPU of the slot only.
    with gpu_slot(options.runs_per_gpu) if options.device == "auto" else nullcontext():
        import torch

        from attention_ablation.evidence.explain import explain
        from attention_ablation.training.device import choose_device
        from attention_ablation.training.run import seed_everything

        torch.set_num_threads(options.threads)
        device = choose_device(options.device)
        seed_everything(0, device)
        found = explain(
            options.spec,
            options.data,
            device,
            datasets=options.datasets,
            workers=options.workers,
        )
        print(found.model_dump_json(indent=2, exclude_unset=True))

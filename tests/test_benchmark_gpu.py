"""The GPU benchmark as far as a CPU can try it: a small network, its report, and no GPU at all."""

import time
from functools import partial

import pytest
import torch

from attention_ablation.training import calibrate
from benchmarks import gpu

CPU = torch.device("cpu")
SMALL = gpu.Size(batch=2, width=0.25, image=32)


def test_without_a_gpu_it_says_so_and_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["gpu"])
        gpu.main()
    assert "finds no GPU here; nothing was done" in capsys.readouterr().out


def test_a_network_trains_and_a_gate_that_leaves_half_precision_is_found(
    monkeypatch: pytest.MonkeyPatch, deterministic: None
) -> None:
    monkeypatch.setattr(calibrate, "LEAST_SECONDS", 0.01)
    monkeypatch.setattr(calibrate, "STEPS", 1)
    spec = gpu.spec_of("imagenet", "table4", "resnet18+cbam")
    found = gpu.trained(spec, {"precision": "bf16"}, CPU, SMALL)
    assert found["images_per_second"] > 0

    from attention_ablation.gates.cbam import Gate

    monkeypatch.setattr(Gate, "forward", lambda self, x: x.float())
    with pytest.raises(TypeError, match=r"expected every gate to return bfloat16, got .*float32"):
        gpu.trained(spec, {"precision": "bf16"}, CPU, SMALL)


def test_every_row_is_of_the_tiers_at_full_size() -> None:
    keys = [("imagenet", "table4", "resnet50+se"), ("imagenet", "table5", "mobilenet+cbam")]
    keys += [("coco", "table6", gpu.DETECTORS["coco"]), ("voc", "table7", gpu.DETECTORS["voc"])]
    for key in keys:
        for way in gpu.WAYS[:3]:
            spec = gpu.sized(gpu.spec_of(*key), way, gpu.Size())
            assert (spec.backbone.width, spec.recipe.precision) == (1.0, way["precision"])
            assert spec.recipe.dataset.image_size >= 224


def test_what_fails_or_finds_no_time_is_a_row_and_costs_are_over_the_bare_network() -> None:
    report = gpu.Report(CPU, SMALL, time.monotonic() + 60)
    rates = {"resnet50": 300.0, "resnet50+cbam": 200.0}
    for what, rate in rates.items():
        report.add(what, "bf16", partial(dict, images_per_second=rate))
    report.add("resnet50+cbam", "bf16, compiled gates", partial(dict, images_per_second=290.0))

    def fails() -> dict[str, float]:
        raise RuntimeError("no deterministic implementation")

    report.add("mobilenet", "bf16", fails)
    report.until = 0
    report.add("vgg16+ssd", "bf16", fails)
    lines = gpu.page(report).splitlines()[-5:]
    assert [line.split(" | ")[3] for line in lines] == ["1.00", "1.50", "1.03", "", ""]
    assert "failed: RuntimeError: no deterministic implementation" in lines[3]
    assert "not done: no time left" in lines[4]

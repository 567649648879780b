"""Trainings on image files: the same images whatever the workers, processes and kills."""

import json
import os
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch

from attention_ablation.base.errors import UserError
from attention_ablation.cli.main import main
from attention_ablation.datasets.contract import Folders
from attention_ablation.datasets.image_folders import list_files
from attention_ablation.datasets.reading.decode import read_image
from attention_ablation.evidence.explain import explain
from attention_ablation.feed.augment import evaluation_crop
from attention_ablation.study.expand import Plan
from tests.machines import ONE_CPU
from tests.own_images import OWN, file_source, own_run
from tests.photos import encoded, photo
from tests.test_training import history, spec_file


def test_neither_workers_nor_processes_nor_a_resume_change_an_image(tiny: Plan, own: Path) -> None:
    run = own_run(tiny)
    alone = list(file_source(run, own).training(1, 0))
    assert len(alone) == 3
    source = file_source(run, own, workers=2)
    halves = [list(file_source(run, own, 0, rank, 2).training(1, 0)) for rank in (0, 1)]
    for attempt in (0, 1):  # the workers stay for the second
        for mine, other, *parts in zip(alone, source.training(1, 0), *halves, strict=True):
            for k in (0, 1):
                assert torch.equal(mine[k], other[k])
                assert torch.equal(mine[k], torch.cat([part[k] for part in parts]))
        next(source.training(2, 0))  # abandoned
        resumed = list(source.training(1, 2))
        assert torch.equal(resumed[0][0], alone[2][0])
        assert attempt or len(active_children()) == 2
    source.close()
    assert not active_children()
    labels = torch.cat([of for _, of in alone])
    assert labels.bincount().tolist() == [4, 4, 4]


NOT_CLOSED = """
import sys
from pathlib import Path
import torch
from attention_ablation.feed.image_files import FileSource
from attention_ablation.feed.order import Part
from attention_ablation.datasets.image_folders import list_files
from attention_ablation.spec.spec import Run

recipe = Run.model_validate_json(sys.argv[1]).spec.recipe
files = list_files(recipe.dataset, Path(sys.argv[2]))
source = FileSource(files, Part(recipe, 0, 0, 1), torch.device("cpu"), workers=2)
batches = source.training(1, 0)
next(batches)
print("ends")
raise SystemExit(3)
"""


def test_a_process_that_closes_nothing_ends_all_the_same(tiny: Plan, own: Path) -> None:
    text = own_run(tiny).model_dump_json()
    command = [sys.executable, "-c", NOT_CLOSED, text, str(own)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (3, "ends\n"), done.stderr


def test_every_validation_image_is_evaluated_once(tiny: Plan, own: Path) -> None:
    run = own_run(tiny)
    files = list_files(OWN, own).validation
    expected = [evaluation_crop(read_image(files.path(i)), 32, 40) for i in range(7)]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for size in (1, 2, 3):
        found, labels = [], []
        for rank in range(size):
            for pixels, of in file_source(run, own, 0, rank, size).validation():
                found += [bytes(_bytes(image, mean, std)) for image in pixels]
                labels += of.tolist()
        assert sorted(found) == sorted(bytes(image.numpy().tobytes()) for image in expected)
        assert sorted(labels) == sorted(files.labels.tolist())


def _bytes(image: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> bytes:
    back = (image * std[:, None, None] + mean[:, None, None]) * 255
    return back.round().byte().contiguous().numpy().tobytes()


def test_a_file_that_does_not_decode_ends_the_training_with_its_name(
    tiny: Plan, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = own / "own/train/n02102040/n02102040_2.JPEG"
    victim.write_bytes(victim.read_bytes()[:200])
    spec = spec_file(own_run(tiny))
    command = ["train", str(spec), "--datasets", str(own), "--workers", "1"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"attention-ablation: {victim}: expected an image, but it does not")
    assert "Traceback" not in error
    reason = json.loads((spec.parent / "failure.json").read_text())["reason"]
    assert reason.startswith(str(victim))
    assert not active_children()


def test_killed_while_it_trains_on_files_it_ends_as_if_it_never_was(tiny: Plan, own: Path) -> None:
    spec = spec_file(own_run(tiny, epochs=6))
    command = ["train", str(spec), "--datasets", str(own), "--workers", "2"]
    assert main([*command[:-1], "0"]) == 0
    expected = history(spec.parent)
    weights = (spec.parent / "weights.pt").read_bytes()
    assert json.loads((spec.parent / "metrics.json").read_text())["dataset_fingerprint"] == (
        list_files(OWN, own).fingerprint
    )
    for path in spec.parent.iterdir():
        if path != spec:
            path.unlink()
    for number in (signal.SIGKILL, signal.SIGTERM):
        before = set(spec.parent.glob("checkpoint-*.pt"))
        # A group of its own, to which the signal goes as a terminal or a scheduler sends it.
        process = subprocess.Popen(
            [sys.executable, "-m", "attention_ablation.cli.main", *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            if set(spec.parent.glob("checkpoint-*.pt")) - before:
                break
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, number)
        output = process.communicate(timeout=300)[0]
        if process.returncode == 128 + number:
            assert "the next call goes on from there" in output
        else:
            assert process.returncode in (-number, 0), output
    assert main(command) == 0
    assert history(spec.parent) == expected
    assert (spec.parent / "weights.pt").read_bytes() == weights


def test_gradcam_looks_at_files_batch_by_batch(tiny: Plan, own: Path, tmp_path: Path) -> None:
    spec = spec_file(own_run(tiny))
    assert main(["train", str(spec), "--datasets", str(own)]) == 0
    found = explain(spec, Folders(tmp_path / "results/data", own), ONE_CPU)
    assert found.images == 7
    assert found.hit_rate is None  # there are no boxes
    with np.load(spec.parent / "gradcam.npz") as shown:
        assert shown["index"].tolist() == [0, 2, 4]
        assert shown["image"].shape == (3, 3, 32, 32)
        files = list_files(OWN, own).validation
        for image, index in zip(shown["image"], shown["index"], strict=True):
            expected = evaluation_crop(read_image(files.path(index)), 32, 40)
            assert np.array_equal(image, expected.numpy())
    (own / "own/val/n01440764/n01440764_0.JPEG").write_bytes(encoded(photo(5)))
    (own / "own/val/n01440764/touched").touch()  # so that the folder has changed
    with pytest.raises(UserError, match=f"{own}/own: expected the data set that"):
        explain(spec, Folders(tmp_path / "results/data", own), ONE_CPU)

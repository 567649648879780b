"""A data set of a newcomer's own: one new file in the package, and nothing else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import torch
import yaml

from attention_ablation.base.errors import UserError
from attention_ablation.datasets.contract import Dataset, Folders, load
from attention_ablation.datasets.reading.data import ImageData, ImageSet
from tests.conftest import ROOT, write_yaml

# The one file: a data set for each task.
NEW = '''
"""Squares on black: which half of the image, and where."""

from pathlib import Path
from typing import ClassVar, Literal

from attention_ablation.datasets.contract import Dataset, DetectionDataset


class Squares(Dataset):
    """Squares on the left or on the right."""

    augmentations: ClassVar = ("none", "pad-crop-flip")
    in_memory: ClassVar = True
    image_size: ClassVar = 32
    classes: ClassVar = 2
    train_images: ClassVar = 8
    validation_images: ClassVar = 4

    name: Literal["squares"]

    def load(self, folders):
        import numpy as np
        import torch

        from attention_ablation.datasets.reading.data import ImageData, ImageSet, fingerprint

        pixels = np.load(self.place(folders) / "pixels.npy")
        images, labels = torch.from_numpy(pixels), torch.arange(12) % 2
        train, validation = ImageSet(images[:8], labels[:8]), ImageSet(images[8:], labels[8:])
        return ImageData(train, validation, self.classes, 0.5, 0.25, fingerprint(pixels))


class BoxedSquares(DetectionDataset):
    """The same squares with a box around each."""

    in_memory: ClassVar = True
    lists: ClassVar = ("squares/pixels.npy",)
    image_size: ClassVar = 64
    classes: ClassVar = 1
    train_images: ClassVar = 8
    validation_images: ClassVar = 4

    name: Literal["boxed-squares"]

    def place(self, folders):
        return folders.datasets / "squares"

    def load(self, folders):
        import numpy as np
        import torch

        from attention_ablation.datasets.reading.boxes import SceneSet
        from attention_ablation.datasets.reading.data import DetectionData, fingerprint

        pixels = np.load(self.place(folders) / "pixels.npy")
        images, box = torch.from_numpy(pixels[:, 0]).repeat(1, 2, 2), torch.tensor([[4, 4, 44, 44]])

        def split(images):
            n = len(images)
            return SceneSet.of(images, torch.arange(n + 1), box.repeat(n, 1), torch.ones(n).long())

        grey = (0.5, 0.5, 0.5)
        sets = split(images[:8]), split(images[8:])
        return DetectionData(*sets, ("square",), grey, grey, fingerprint(pixels))
'''

USED = """
import sys
from pathlib import Path

import numpy as np

from attention_ablation.base.errors import UserError
from attention_ablation.cli.main import main
from attention_ablation.datasets.contract import require_dataset
from attention_ablation.study.expand import load_plan

own = {"study": "cbam", "tier": "own", "seeds": [0]}
plan = load_plan(own | {"tables": ["table3", "table7"]})
keys = [("table3", "resnet50+se"), ("table7", next(k for t, k in plan.specs if t == "table7"))]
runs = [plan.row_runs(*key)[0] for key in keys]
specs = []
for run, change in zip(runs, ({}, {"initial": None}), strict=True):
    run = run.model_copy(update={"spec": run.spec.model_copy(update=change)})
    specs.append(plan.runs_folder / run.path / "spec.json")
    specs[-1].parent.mkdir(parents=True)
    specs[-1].write_text(run.model_dump_json())
    try:
        require_dataset(run.spec.recipe.dataset, plan.datasets_folder)
    except UserError as error:
        print(error)
assert "torch" not in sys.modules
pixels = np.arange(12 * 3 * 32 * 32, dtype=np.uint8).reshape(12, 3, 32, 32)
Path("results/data/squares").mkdir(parents=True)
np.save("results/data/squares/pixels.npy", pixels)
for run, spec in zip(runs, specs, strict=True):
    require_dataset(run.spec.recipe.dataset, plan.datasets_folder)
    assert main(["train", str(spec), "--device", "cpu"]) == 0
assert main(["data", "check", "--tier", "own", "--set", "tables=[table3, table7]"]) == 0
"""


def test_a_data_set_is_one_new_file(project: Path, tmp_path: Path) -> None:
    package = tmp_path / "package/attention_ablation"
    shutil.copytree(ROOT / "src/attention_ablation", package)
    (package / "datasets/squares.py").write_text(NEW)
    tier = yaml.safe_load((project / "workflow/tiers/tiny.yaml").read_text())
    changes = {"epochs": 1, "batch_size": 8}
    tier["classification"]["recipe"] |= changes | {"dataset": {"name": "squares"}}
    for detector in tier["detection"].values():
        detector["recipe"] |= changes | {"dataset": {"name": "boxed-squares"}}
    write_yaml(project / "workflow/tiers/own.yaml", tier)
    done = subprocess.run(
        [sys.executable, "-c", USED],
        cwd=project, env=os.environ | {"PYTHONPATH": str(package.parent)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second, *said = done.stdout.splitlines()
    missing = "results/data/squares: there is no such folder; "
    assert first == missing + "docs/datasets.md shows how it must lie."
    assert second == missing + "docs/detection-data.md says how the data lie."
    text = "\n".join(said)
    assert text.count("epoch 1/1") == 2
    assert "\nsquares: 2 classes, 8 training and 4 validation images, fingerprint " in text
    assert "\nboxed-squares: 1 classes, 8 training and 4 validation images, fingerprint " in text


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((4, 3, 8, 8), [0, 1, 0, 1], None),
        ((4, 1, 8, 8), [0, 1, 0, 1], None),
        (
            (4, 3, 4, 16),
            [0, 1, 0, 1],
            r"expected 4 images, \(1 or 3, 8, 8\), .* got \(4, 3, 4",
        ),
        ((3, 3, 8, 8), [0, 1, 0], r"expected 4 images, .* got \(3, 3, 8, 8\) and 3 labels"),
        ((4, 3, 8, 8), [0, 1, 0, 7], "expected labels from 0 to 1, got some from 0 to 7"),
        ((4, 3, 8, 8), None, "nowhere/toys: reading it failed with AssertionError.*; see above"),
    ],
)
def test_what_is_loaded_is_what_the_record_says(
    shape: tuple[int, ...], labels: list[int] | None, message: str | None
) -> None:
    class Toys(Dataset):
        augmentations: ClassVar = ("none",)
        in_memory: ClassVar = True
        image_size: ClassVar = 8
        classes: ClassVar = 2
        train_images: ClassVar = 4
        validation_images: ClassVar = 4
        name: Literal["toys"]

        def load(self, folders: Folders) -> ImageData:
            assert labels
            split = ImageSet(torch.zeros(shape, dtype=torch.uint8), torch.tensor(labels))
            return ImageData(split, split, 2, 0.5, 0.25, "toys")

    class Listed(Toys):
        def load(self, folders: Folders) -> ImageData:
            return ImageData([], [], 2, 0.5, 0.25, "toys")

    nowhere = Folders(Path("nowhere"), Path("nowhere"))
    with pytest.raises(UserError, match="expected an ImageSet in memory, got list"):
        load(Listed(name="toys"), nowhere)
    if message is None:
        assert len(load(Toys(name="toys"), nowhere).train) == 4
    else:
        with pytest.raises(UserError, match=message):
            load(Toys(name="toys"), nowhere)

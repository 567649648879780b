"""Recipes: everything beside the network that changes a result."""

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from attention_ablation.base.model import Fraction, Model, Positive
from attention_ablation.datasets import contract
from attention_ablation.spec.schedules import Schedule

if TYPE_CHECKING:
    from attention_ablation.datasets.contract import Dataset, DetectionDataset
else:
    Dataset, DetectionDataset = map(contract.by_name, (contract.Dataset, contract.DetectionDataset))


def _times(value: Any, times: float) -> Any:
    if isinstance(value, list):
        return [_times(each, times) for each in value]
    # As decimal numbers, so that 10 epochs times 1.1 are 11 and no bit more.
    product = Decimal(str(value)) * Decimal(str(times))
    return int(product) if isinstance(value, int) and product == int(product) else float(product)


class Recipe(Model):
    """What classification and detection share: the optimiser, its schedule, steps, evaluations."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1, description="Images in a step, over all devices.")
    learning_rate: Positive
    momentum: Fraction = 0.9
    nesterov: bool | None = Field(None, description="Nesterov's momentum; null: no.")
    weight_decay: float = Field(
        ge=0, description="On all parameters, as in the paper, but for the next two keys' ones."
    )
    decay_norms: bool | None = Field(
        None, description="false: no weight decay on BatchNorm's parameters; null: on all."
    )
    decay_biases: bool | None = Field(
        None, description="false: no weight decay on other layers' biases; null: on all."
    )
    schedule: Schedule
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = Field(
        "fp32",
        description="'tf32': as fp32, but a GPU that can rounds what it multiplies to 10 bits "
        "(cuDNN, cuBLAS); others compute in fp32. 'bf16', 'fp16': autocast.",
    )
    compile: Literal["gates"] | None = Field(
        None,
        description="'gates': torch.compile makes code of each gate, which passes over its map "
        "fewer times, and rounds otherwise; null: nothing is compiled.",
    )
    dataset: Any  # each task has its own, and its own augmentations
    augmentation: Any

    @model_validator(mode="after")
    def _trains(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("expected a momentum above 0 with nesterov, got 0")
        warmup = getattr(self.schedule, "warmup_epochs", 0)
        if warmup >= self.epochs:
            raise ValueError(f"expected schedule.warmup_epochs below {self.epochs}, got {warmup}")
        self.dataset.check_augmentation(self.augmentation)
        images, batch = self.dataset.train_images, self.batch_size
        if images < batch:
            raise ValueError(
                f"expected a batch_size of at most dataset.train_images ({images}), got {batch}"
            )
        return self

    def multiplied(self, key: str, times: float) -> dict[str, Any]:
        """Return the recipe's keys, one of them multiplied; a schedule is stretched with epochs."""
        data = self.model_dump(mode="json")
        places = [(data, key)]
        if key == "epochs":
            places += [(data["schedule"], name) for name in ("every", "at", "warmup_epochs")]
        for keys, name in places:
            if (value := keys.get(name)) is not None:
                keys[name] = _times(value, times)
        return data

    @property
    def steps(self) -> int:
        """Steps of the whole training; a last batch that is not full is left out."""
        full: int = self.dataset.train_images // self.batch_size
        return self.epochs * (getattr(self, "steps_per_epoch", None) or full)

    def evaluates(self, epoch: int) -> bool:
        """Whether an epoch, counted from 1, ends with an evaluation; the last one does."""
        return epoch == self.epochs or epoch % getattr(self, "evaluate_every", 1) == 0

    @property
    def evaluations(self) -> int:
        return math.ceil(self.epochs / getattr(self, "evaluate_every", 1))


class ClassificationRecipe(Recipe):
    """Everything beside the network that changes a classification result."""

    dataset: Dataset
    compile: Literal["gates", "model"] | None = Field(  # type: ignore[assignment]
        None,
        description="'gates': torch.compile makes code of each gate, which passes over its map "
        "fewer times, and rounds otherwise; 'model': of the whole network; null: of nothing.",
    )
    augmentation: Literal["none", "crop-flip", "pad-crop-flip"] = Field(
        description="'crop-flip': RandomResizedCrop and horizontal flip, as on ImageNet. "
        "'pad-crop-flip': 4 px of black around, a random crop of the old size, and flip, as on "
        "CIFAR."
    )
    label_smoothing: Fraction = 0.0
    zero_init_residual: bool = Field(
        False,
        description="Start the last BatchNorm of each residual block at 0 (Goyal et al. 2017); "
        "the authors' code does not, and short trainings of deep networks need it.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.batch_size < 2:
            raise ValueError(
                "expected a batch_size of at least 2, because BatchNorm normalises over a step's "
                f"images, got {self.batch_size}"
            )
        return self


class DetectionRecipe(Recipe):
    """Everything beside the network that changes a detection result."""

    dataset: DetectionDataset
    augmentation: Literal["none", "flip", "ssd"] = Field(
        description="'flip': horizontal. 'ssd': photometric distortion, zoom out, IoU crop and "
        "flip (Liu et al. 2016, 2.2)."
    )
    steps_per_epoch: int | None = Field(
        None, ge=1, description="null: as many as there are full batches in the training images."
    )
    metric: Literal["voc", "coco"] = Field(
        description="'voc': VOC 2007's 11-point mAP@.5. 'coco': mAP@.5, @.75 and @[.5, .95]."
    )
    evaluate_every: int = Field(1, ge=1, description="Epochs from one evaluation to the next.")

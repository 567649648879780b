"""How fast a network trains: measured on a device and kept, or estimated from published rates."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from attention_ablation.base.errors import UserError, unknown
from attention_ablation.base.io import read_json
from attention_ablation.base.model import Model, Positive, canonical_json, short_hash
from attention_ablation.base.yaml import read_yaml
from attention_ablation.spec.spec import DetectionSpec, Spec
from attention_ablation.study.files import parse

PUBLISHED = Path("workflow/throughput.yaml")
LEAST_STEP_SECONDS = 0.02


class Hardware(Model):
    """A device's published rate for ResNet50 at 224 px, images/s, by precision."""

    title: str
    resnet50: dict[str, Positive]
    source: str


class Relative(Model):
    """A network's images/s over ResNet50's."""

    relative: Positive
    source: str


class Gate(Model):
    """A step's time with a gate over one without."""

    factor: float = Field(ge=1)
    source: str


class Published(Model):
    """workflow/throughput.yaml: published rates and what is assumed beside them."""

    hardware: dict[str, Hardware]
    backbones: dict[str, Relative]
    gates: dict[str, Gate]
    assumptions: list[str]


@dataclass(frozen=True)
class PublishedRates:
    """Estimates for one device from published rates, at 224 px without reading images."""

    table: Published
    hardware: str

    unit = "GPU-hours"
    memory_mb = 0  # not published

    @property
    def title(self) -> str:
        """What the rates are of."""
        return f"{self.table.hardware[self.hardware].title}, published rates"

    def images_per_second(self, spec: Spec | DetectionSpec) -> float | None:
        """Return the estimate; None for a network without a published rate, such as a detector."""
        if not self._published(spec):
            return None
        recipe = spec.recipe
        rates = self.table.hardware[self.hardware].resnet50
        pixels = (recipe.dataset.image_size / 224) ** 2
        if spec.backbone.stem == "cifar":
            pixels *= 16  # every map is four times as high and as wide
        plain = rates[recipe.precision] * self.table.backbones[spec.backbone.name].relative
        rate = plain / (pixels * spec.backbone.width * self._gate_factor(spec))
        return min(rate, recipe.batch_size / LEAST_STEP_SECONDS)

    def sources(self, specs: Sequence[Spec | DetectionSpec]) -> list[str]:
        """Return where the figures that `specs` need come from, a line each."""
        known = [spec for spec in specs if self._published(spec)]
        backbones = dict.fromkeys(spec.backbone.name for spec in known)
        entry = self.table.hardware[self.hardware]
        return [
            f"ResNet50: {entry.source}",
            *(
                f"{name} at {self.table.backbones[name].relative:g} x ResNet50: "
                f"{self.table.backbones[name].source}"
                for name in backbones
                if name != "resnet50"
            ),
            *(f"{name}, time x {g.factor:g}: {g.source}" for name, g in self.table.gates.items()),
            *(f"assumed: {line}" for line in self.table.assumptions),
        ]

    def _published(self, spec: Spec | DetectionSpec) -> bool:
        return isinstance(spec, Spec) and spec.backbone.name in self.table.backbones

    def _gate_factor(self, spec: Spec | DetectionSpec) -> float:
        if spec.attention.descriptor or spec.attention.source:
            return self.table.gates["cbam"].factor
        return self.table.gates["se"].factor if spec.attention.pooling else 1.0


class Measured(Model):
    """One network's measurement."""

    network: str = Field(description="For people: backbone and gate.")
    images_per_second: Positive | None = Field(description="None where it did not fit the device.")
    note: str = ""


class Calibration(Model):
    """What `plan --calibrate` measured on one device, kept in results/calibration."""

    title: str
    unit: Literal["GPU-hours", "CPU-hours"]
    measured: dict[str, Measured] = Field(default_factory=dict)
    memory_mb: int = Field(0, description="Most host memory that any of the networks took.")

    def images_per_second(self, spec: Spec | DetectionSpec) -> float | None:
        """Return what was measured; None for a network that was not or did not fit."""
        found = self.measured.get(network_key(spec))
        return found.images_per_second if found else None


def network_key(spec: Spec | DetectionSpec) -> str:
    """Return a name for all that a training's speed depends on."""
    recipe = spec.recipe
    size = [recipe.dataset.image_size, recipe.batch_size, recipe.precision, recipe.dataset.classes]
    # Fields that are unset are left out, so that keys stay what they are when one is added.
    parts = [spec.backbone, spec.attention]
    network = [*(part.model_dump(exclude_none=True) for part in parts), size]
    if isinstance(spec, DetectionSpec):
        network.append(spec.detector.model_dump(exclude_none=True))
    return short_hash(canonical_json(network))


def load_published(root: Path = Path()) -> Published:
    """Read workflow/throughput.yaml below `root`. Raises UserError for a mistake in it."""
    return parse(Published, read_yaml(root / PUBLISHED), root / PUBLISHED)


def load_calibration(path: Path) -> Calibration:
    """Read a calibration. Raises UserError where it is not one."""
    return parse(Calibration, read_json(path), path)


Rates = Calibration | PublishedRates


def choose_rates(
    name: str | None, folder: Path, specs: Sequence[Spec | DetectionSpec], root: Path = Path()
) -> Rates:
    """Return the rates to plan with.

    Args:
        name: a calibration in `folder`, or published hardware; None takes the latest calibration
            that knows every network, and the published A100 where none does.
        folder: where calibrations are kept.
        specs: what is to be trained.
        root: holds `workflow/`.

    Raises UserError for an unknown name, and for a precision without a published rate.
    """
    paths = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    if name in [path.stem for path in paths]:
        return load_calibration(folder / f"{name}.json")
    for calibration in map(load_calibration, paths if name is None else []):
        if all(network_key(spec) in calibration.measured for spec in specs):
            return calibration
    published = load_published(root)
    name = name or "a100"
    if name not in published.hardware:
        raise unknown("hardware", name, [*(p.stem for p in paths), *published.hardware], "plan")
    valid = published.hardware[name].resnet50
    for precision in sorted({spec.recipe.precision for spec in specs} - valid.keys()):
        raise UserError(
            f"{root / PUBLISHED}: there is no {precision} rate of {name}; valid are: "
            f"{', '.join(valid)}. Choose other hardware, or measure with plan --calibrate."
        )
    return PublishedRates(published, name)

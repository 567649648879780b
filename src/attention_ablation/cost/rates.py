"""How fast a network trains: measured on a device and kept, or estimated from published rates."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from attention_ablation.base.io import read_json
from attention_ablation.base.model import Model, Positive, canonical_json, short_hash
from attention_ablation.base.yaml import read_yaml
from attention_ablation.gates.record import Attention
from attention_ablation.spec.spec import AnySpec, DetectionSpec, FrontEndSpec, Spec
from attention_ablation.study.files import parse

PUBLISHED = Path("workflow/throughput.yaml")
# A step takes at least so long for each convolution and each branch of a gate, whose kernels are
# launched one by one; see the assumptions in PUBLISHED.
LAUNCH_SECONDS = 0.0004
FRONT_END_CONVOLUTIONS = 12  # of its training
DETECTOR_STEPS = 8  # a detector's step over one of its backbone's classification, roughly
METHOD_STEPS = 4 / 3  # a step with a method, which has another forward pass, over one without
OTHER_BRANCHES = 4  # of a gate whose inside the plan does not know, as a user's: as many as CBAM's

# What an assumption concerns.
Assumed = Literal["gates", "methods", "ratios", "sizes", "launches", "order", "detectors"]


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
    assumptions: dict[Assumed, str]


@dataclass(frozen=True)
class PublishedRates:
    """Estimates for one device from published rates, at 224 px without reading images."""

    table: Published
    hardware: str

    unit = "GPU-hours"
    memory_mb = 0  # not published

    @property
    def title(self) -> str:
        device = self.table.hardware[self.hardware].title
        return f"{device} by published rates, whatever this machine has"

    def images_per_second(self, spec: AnySpec) -> float | None:
        """Return the estimate; None without a published rate, as of detectors and front-ends."""
        relative = self._relative(spec)
        if relative is None or not isinstance(spec, Spec):
            return None
        work = _work(spec)
        if gate := _rated_as(spec.attention):
            work *= self.table.gates[gate].factor
        if spec.attention.method:
            work *= METHOD_STEPS
        plain = self.table.hardware[self.hardware].resnet50[spec.recipe.precision]
        return min(plain * relative.relative / work, fastest(spec))

    def sources(self, specs: Iterable[AnySpec]) -> list[str]:
        """Return where the figures that `specs` need come from and what is assumed, a line each."""
        specs = list(specs)
        known = [spec for spec in specs if isinstance(spec, Spec) and self._relative(spec)]
        unknown = len(known) < len(specs)
        networks = {spec.backbone.name for spec in known} - {"resnet50"}
        gates = {_rated_as(spec.attention) for spec in known} - {None}
        concerned: dict[Assumed, bool] = {
            "gates": bool(gates),
            "methods": any(spec.attention.method for spec in known),
            "ratios": bool(networks or gates),
            "sizes": any(_work(spec) != 1 for spec in known),
            "launches": unknown
            or any(self.images_per_second(spec) == fastest(spec) for spec in known),
            "order": unknown,
            "detectors": any(isinstance(spec, DetectionSpec) for spec in specs),
        }
        table = self.table
        lines = [f"ResNet50: {table.hardware[self.hardware].source}"] * bool(known)
        lines += [
            f"{name} at {n.relative:g} x ResNet50: {n.source}"
            for name, n in table.backbones.items()
            if name in networks
        ]
        lines += [
            f"{name}, time x {gate.factor:g}: {gate.source}"
            for name, gate in table.gates.items()
            if name in gates
        ]
        return lines + [
            f"assumed: {text}" for about, text in table.assumptions.items() if concerned[about]
        ]

    def _relative(self, spec: AnySpec) -> Relative | None:
        if not isinstance(spec, Spec) or spec.backbone.front_end:
            return None
        return self.table.backbones.get(spec.backbone.name)


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

    def images_per_second(self, spec: AnySpec) -> float | None:
        """Return what was measured; None for a network that was not or did not fit."""
        found = self.measured.get(network_key(spec))
        return found.images_per_second if found else None

    def sources(self, specs: Iterable[AnySpec]) -> list[str]:
        return []


def _work(spec: Spec) -> float:
    """Return a plain network's work for an image over that at full size and 224 px."""
    work = (spec.recipe.dataset.image_size / 224) ** 2 * spec.backbone.width
    # With that stem every map is four times as high and as wide.
    return work * 16 if spec.backbone.stem == "cifar" else work


def _rated_as(gate: Attention) -> Literal["se", "cbam"] | None:
    """Return the gate whose published time a gate takes."""
    if gate == Attention():
        return None
    return "se" if gate.pooling and not gate.descriptor else "cbam"


def fastest(spec: AnySpec) -> float:
    """Return the images/s that the launches of a step's kernels allow, which bind small networks.

    Where no rate is known this stands for it, but only to order the runs.
    """
    if isinstance(spec, FrontEndSpec):
        return spec.recipe.batch_size / (LAUNCH_SECONDS * FRONT_END_CONVOLUTIONS)
    network, attention = spec.backbone.network, spec.attention
    branches = len(attention.pooling.split("&")) if attention.pooling else 0
    branches += 2 * (attention.descriptor is not None)
    if attention != Attention():
        branches = branches or OTHER_BRANCHES
    gates = len(network.gated_channels(spec.backbone.width, attention.position))
    launches = network.convolutions * (1.5 if network.grouped else 1) + gates * branches
    steps = METHOD_STEPS if attention.method else 1.0
    steps *= DETECTOR_STEPS if isinstance(spec, DetectionSpec) else 1
    steps *= 2 if spec.backbone.front_end else 1  # it has two networks
    return spec.recipe.batch_size / (LAUNCH_SECONDS * launches * steps)


def network_key(spec: AnySpec) -> str:
    """Return a name for all that a training's speed depends on."""
    recipe: Any = spec.recipe
    dataset = recipe.dataset
    size = [dataset.image_size, recipe.batch_size, recipe.precision, dataset.classes]
    size += [recipe.compile] if recipe.compile else []
    if isinstance(spec, FrontEndSpec):
        return short_hash(canonical_json([spec.front_end, size]))
    detector = [spec.detector] if isinstance(spec, DetectionSpec) else []
    # Fields that are unset are left out, so that keys stay what they are when one is added.
    first, gate, *last = (
        part.model_dump(exclude_none=True) for part in (spec.backbone, spec.attention, *detector)
    )
    return short_hash(canonical_json([first, gate, size, *last]))


def load_published(root: Path = Path()) -> Published:
    """Read workflow/throughput.yaml below `root`. Raises UserError for a mistake in it."""
    return parse(Published, read_yaml(root / PUBLISHED), root / PUBLISHED)


def load_calibration(path: Path) -> Calibration:
    """Read a calibration. Raises UserError where it is not one."""
    return parse(Calibration, read_json(path), path)

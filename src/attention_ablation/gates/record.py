"""A gate as a study names it: CBAM's parts and how they are arranged, or a class in a file."""

import hashlib
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from attention_ablation.base.errors import UserError
from attention_ablation.base.model import Model
from attention_ablation.gates.packages import imported_packages
from attention_ablation.gates.source import Place, builtin_gates, declared, with_defaults

# What is filled in beside a key that is given.
DEFAULTS: dict[str, dict[str, Any]] = {
    "pooling": {"reduction": 16},
    "descriptor": {"kernel": 7, "norm": True},
    "module": {"options": {}},
}


class Attention(Model):
    """A gate: channel attention, spatial attention, and how the two are arranged; or a class.

    Keys without meaning for a gate (a kernel where there is no descriptor) are refused, and
    those left out are filled in, so that equal gates are equal records.
    """

    pooling: Literal["avg", "max", "avg&max"] | None = Field(
        None, description="Channel attention's pooling (paper 3, eq. 2); 'avg' alone is SE."
    )
    reduction: int | None = Field(None, ge=1, description="The shared MLP's reduction r; 16.")
    descriptor: Literal["pool", "conv1x1"] | None = Field(
        None,
        description="Spatial attention's input: max and mean over the channels, or a learned "
        "1x1 convolution (Table 2).",
    )
    kernel: int | None = Field(None, ge=1, description="Spatial attention's kernel size, odd; 7.")
    norm: bool | None = Field(
        None,
        description="BatchNorm after the spatial convolution, its weight starting at 0, as in the "
        "authors' code and not in the paper's formula; true.",
    )
    arrangement: Literal["channel-first", "spatial-first", "parallel"] | None = Field(
        None, description="Order of the two gates (Table 3); channel-first."
    )
    start: Literal["half", "identity"] | None = Field(
        None,
        description="What each gate starts as: 'half', the authors' sigmoid, which halves its map "
        "before anything is learned; or 'identity', twice that sigmoid. null: what the tier sets, "
        "else 'half'.",
    )
    method: Literal["dreal"] | None = Field(
        None,
        description="What trains channel attention beside the loss, in classification: 'dreal', "
        "our reconstruction of DREAL (arXiv:2007.06156), whose critic is dropped at the end; null: "
        "nothing.",
    )
    gate: str | None = Field(
        None,
        description="Another gate of the package, instead of all that: its file's name in gates/.",
    )
    module: str | None = Field(
        None,
        description="A gate of your own, instead of all that: 'my_module.py:MyGate', a file in the "
        "project's folder and the class in it.",
    )
    options: dict[str, JsonValue] | None = Field(
        None, description="gate, module: what the class is made with beside the channels."
    )
    place: Place | None = Field(
        None,
        description="gate, module: where the class stands, filled in from its file; null: at a "
        "block's end.",
    )
    module_sha256: str | None = Field(
        None,
        description="module: SHA-256 of the file, filled in; where it is given the file is held "
        "to it.",
    )
    packages: dict[str, str] | None = Field(
        None,
        description="module: versions of the packages that the file imports beside torch, "
        "torchvision and numpy, filled in; where they are given those installed are held to them.",
    )

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int | None) -> int | None:
        if kernel is not None and kernel % 2 == 0:
            raise ValueError(f"expected an odd kernel so that the map keeps its size, got {kernel}")
        return kernel

    @field_validator("module")
    @classmethod
    def _file_and_class(cls, module: str | None) -> str | None:
        if module is None:
            return None
        path, _, name = module.partition(":")
        if not re.fullmatch(r"[\w./-]+\.py", path) or not (name.isascii() and name.isidentifier()):
            raise ValueError(
                f"expected a file and a class in it, such as my_module.py:MyGate, got '{module}'"
            )
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ValueError(
                f"expected a path from the project's folder and inside of it, because it is part "
                f"of the run's identity, got '{path}'"
            )
        return module

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        given = {key: value for key, value in given.items() if value is not None}
        named = "gate" if "gate" in given else "module"
        fields = [name for name in cls.model_fields if name != "reduction"]
        others = [key for key in given if not get_close_matches(str(key), fields, 1)]
        if named in given and others:
            raise ValueError(f"expected '{others[0]}' below 'options' of a {named}; put it there")
        defaults = {k: v for key in given for k, v in DEFAULTS.get(key, {}).items()}
        if "pooling" in given and "descriptor" in given:
            defaults["arrangement"] = "channel-first"
        gate, options = given.get("gate"), given.get("options", {})
        if isinstance(gate, str) and isinstance(options, dict):
            try:
                given |= with_defaults(gate, options, given.get("place"))
            except UserError as error:
                raise ValueError(str(error)) from None
        return defaults | given

    @model_validator(mode="after")
    def _meaningful(self) -> Self:
        named = self.module or self.gate
        needs = {
            "reduction": ("pooling", self.pooling),
            "kernel": ("descriptor", self.descriptor),
            "norm": ("descriptor", self.descriptor),
            "arrangement": ("pooling and descriptor", self.pooling and self.descriptor),
            "start": ("pooling, descriptor or a gate that starts with a sigmoid", self.has_start),
            "method": ("pooling, which is channel attention", self.pooling),
            "options": ("module or gate", named),
            "place": ("module or gate", named),
            "module_sha256": ("module", self.module),
            "packages": ("module", self.module),
        }
        for key, (needed, present) in needs.items():
            if getattr(self, key) is not None and not present:
                raise ValueError(f"'{key}' has no meaning without {needed}; remove it")
        beside = "module" if self.module else "gate"
        for key in ("pooling", "descriptor", "gate"):
            if named and key != beside and getattr(self, key):
                raise ValueError(
                    f"'{key}' has no meaning beside {beside}, a gate by itself; remove it"
                )
        return self

    def sized(self, reduction: int | None, start: str | None) -> Self:
        """Return the gate as a tier trains it.

        The tier's reduction stands in place of the default and of no other, its start where the
        study says nothing. The authors' start is left out, so that it is one gate however it came.
        """
        default = DEFAULTS["pooling"]["reduction"]
        if self.gate:
            default = (builtin_gates()[self.gate].options or {}).get("reduction")
        update: dict[str, Any] = {}
        if reduction is not None and self.ratio is not None and self.ratio == default:
            options = {**(self.options or {}), "reduction": reduction}
            update = {"options": options} if self.gate else {"reduction": reduction}
        if self.has_start:
            started = self.start or start
            update["start"] = None if started == "half" else started
        return self.model_copy(update=update) if update else self

    @property
    def ratio(self) -> int | None:
        """The reduction of CBAM's MLP, or the option of that name of another gate here."""
        option = (self.options or {}).get("reduction") if self.gate else None
        return option if isinstance(option, int) else self.reduction

    @property
    def has_start(self) -> bool:
        """Whether it has a sigmoid that may start as the identity."""
        if self.gate:
            return builtin_gates()[self.gate].has_start
        return bool(self.pooling or self.descriptor)

    @property
    def position(self) -> Place:
        """Where the gate stands."""
        return self.place or "block-end"

    @property
    def source(self) -> str | None:
        """What names a class in a file, of the package or a user."""
        return self.module or self.gate

    @property
    def module_file(self) -> str | None:
        """The file of a user's own gate, from the project's folder."""
        return self.module.rpartition(":")[0] if self.module else None

    @property
    def slug(self) -> str:
        """A short name derived from the gate itself, in the manner of the paper's row labels."""
        identity = "-identity" * (self.start == "identity")
        if self.source:
            return self.source.rpartition(":")[2].lower() + identity
        channel = {None: "", "avg&max": "channel", "avg": "se", "max": "channel-max"}[self.pooling]
        spatial = f"spatial-{self.descriptor}-k{self.kernel}" if self.descriptor else ""
        parts = [part for part in (channel, spatial) if part]
        if self.arrangement == "spatial-first":
            parts.reverse()
        joined = ("-parallel-" if self.arrangement == "parallel" else "+").join(parts) or "none"
        return joined + identity + (f"-{self.method}" if self.method else "")


def seal(attention: Attention, root: Path, where: object) -> Attention:
    """Return a user's gate with what identifies it, from its file below `root`, which is not run.

    That is the file's hash, the class's place, and the versions of packages that the file imports.

    Raises UserError where there is no such file or class, the class does not take the options, or
    file or packages are not those that are given.
    """
    if attention.module is None:
        return attention
    file, _, name = attention.module.partition(":")
    module = read_module(attention, root / file, where)
    found = declared(module.source, name, root / file)
    place = found.recorded_place(attention.options or {}, attention.place, where)
    update = {"module_sha256": module.digest, "place": place, "packages": module.packages or None}
    return attention.model_copy(update=update)


class ModuleFile(NamedTuple):
    """A gate's file: its content, SHA-256, and the packages that it imports, with versions."""

    source: bytes
    digest: str
    packages: dict[str, str]


def read_module(attention: Attention, path: Path, where: object) -> ModuleFile:
    """Return a gate's file. Raises UserError if it cannot be read, or was changed.

    That holds for the packages that it imports, too.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{where}: expected the gate's class in {path}, which cannot be read: "
            f"{error.strerror}. Its path counts from the working folder, a study's from the "
            "project's, where workflow/ is."
        ) from None
    expected, digest = attention.module_sha256, hashlib.sha256(source).hexdigest()
    if expected not in (None, digest):
        raise UserError(
            f"{where}: expected {attention.module_file} with the SHA-256 {expected[:10]}..., got "
            f"{digest[:10]}...; it was changed since. Plan the run again, which makes it another "
            "run, or put the file back as it was."
        )
    packages = imported_packages(source, path)
    if attention.packages not in (None, packages):
        raise UserError(
            f"{where}: expected {_listed(attention.packages)}, which {attention.module_file} was "
            f"planned with, got {_listed(packages)}. Plan the run again, which makes it another "
            "run, or install those versions."
        )
    return ModuleFile(source, digest, packages)


def _listed(packages: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in packages.items()) or "no packages"

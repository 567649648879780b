"""What every record of the project's files is: strict, frozen, and hashed by its JSON."""

import hashlib
import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


class Model(BaseModel):
    """A strict record: unknown keys and wrong types are errors, and nothing changes it later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    def __hash__(self) -> int:
        # Not pydantic's own, which cannot hash the lists and mappings of a record.
        return hash(canonical_json(self.model_dump(mode="json")))


Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
# An epoch's order is drawn from 1,000,003 times the seed, in 64 bits.
Seed = Annotated[int, Field(ge=0, lt=2**44)]


def _plain(name: str) -> str:
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise ValueError(f"expected a name of letters, digits, '.', '_', '+' and '-', got '{name}'")
    return name


def _text(name: Any) -> Any:
    # YAML and Snakemake's --config take a name such as 2024 or nan for a number.
    return str(name) if type(name) in (int, float) else name


# What files, rules of the workflow and arguments of the command are named after.
Name = Annotated[str, BeforeValidator(_text), AfterValidator(_plain)]


def one_line(text: str) -> str:
    """Return text with spaces for other white space and without what no page or font shows."""
    return "".join(char if char.isprintable() else " " * char.isspace() for char in text)


def _shown_as_typed(text: str) -> str:
    if not text.strip():
        raise ValueError("expected a text, got an empty one; write it")
    if odd := next((char for char in text if not char.isprintable()), None):
        name = "a line break" if odd in "\r\n" else f"the character {odd!a}"
        raise ValueError(f"expected one line of printable characters, got {name}; take it out")
    return text


# A text that every format shows as it was typed: a label, a title, the name of a claim.
Line = Annotated[str, AfterValidator(_shown_as_typed)]
# Sentences: their lines are one, however YAML folds them.
Prose = Annotated[
    str, AfterValidator(lambda text: " ".join(text.split())), AfterValidator(_shown_as_typed)
]


def canonical_json(data: Any) -> str:
    """Return `data` as JSON with sorted keys and without spaces."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


def short_hash(text: str) -> str:
    """Return the first 10 hexadecimal digits of the SHA-256 of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def no_duplicates(values: list[Any]) -> list[Any]:
    """Return a list as it is. Raises ValueError where it has a value twice."""
    repeated = [value for i, value in enumerate(values) if value in values[:i]]
    if repeated:
        raise ValueError(f"expected each value once, got {repeated[0]!r} twice; remove one")
    return values


Names = Annotated[list[str], Field(min_length=1), AfterValidator(no_duplicates)]


def _number(value: Any) -> Any:
    # Snakemake's --config hands the items of a list on as text.
    plain = isinstance(value, str) and re.fullmatch(r"-?(0|[1-9][0-9]{0,99})", value)
    return int(value) if plain else value


def _no_wildcards(folder: str) -> str:
    # Snakemake takes braces for them.
    if not folder or set("{}\0") & set(folder):
        raise ValueError(f"expected a folder without braces in its name, got '{folder}'")
    return folder


Seeds = Annotated[
    list[Annotated[Seed, BeforeValidator(_number)]],
    Field(min_length=1),
    AfterValidator(no_duplicates),
]
Folder = Annotated[str, AfterValidator(_no_wildcards)]

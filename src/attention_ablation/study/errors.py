"""A user's mistakes, told as sentences: what was expected, what came, what to do."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


class UserError(Exception):
    """A mistake in the user's input; its text is the whole message, shown without a traceback."""


def unknown(what: str, name: object, valid: Iterable[str], where: object) -> UserError:
    """Build the error for a name that is not among `valid`, with the nearest valid spelling."""
    names = list(valid)
    if not names:
        return UserError(
            f"{where}: unknown {what} '{name}'; there are none here. Run it in the "
            "project's folder, where workflow/ is."
        )
    near = get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"valid are: {', '.join(names)}."
    return UserError(f"{where}: unknown {what} '{name}'; {hint}")


def invalid(error: ValidationError, model: type[BaseModel], where: object) -> UserError:
    """Turn pydantic's findings about `where` into one sentence for each key."""
    sentences = []
    for found in error.errors():
        loc = [part for part in found["loc"] if not _is_tag(part)]
        key = ".".join(map(str, loc))
        if found["type"] == "extra_forbidden":
            sentences.append(str(unknown("key", key, _sibling_keys(model, loc), where)))
        elif found["type"] == "missing":
            sentences.append(f"{where}: the key '{key}' is missing; add it.")
        elif found["type"] == "value_error":
            reason = str(found["ctx"]["error"])
            sentences.append(f"{where}: {key}: {reason}" if key else f"{where}: {reason}")
        else:
            reason = found["msg"][0].lower() + found["msg"][1:]
            sentences.append(f"{where}: {key}: {reason}, but got {found['input']!r}.")
    return UserError("\n".join(sentences))


def _is_tag(part: str | int) -> bool:
    # Pydantic puts the branch of a union into the path; no such key stands in the file.
    tags = {"step", "one-cycle", "cosine", "cluttered-digits", "imagenet"}
    return part in tags or "[" in str(part)


def _sibling_keys(model: type[BaseModel], loc: list[Any]) -> list[str]:
    """Return the dotted keys that are valid where the unknown key `loc` stands."""
    models = [model]
    for part in loc[:-1]:
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        models = [m for field in fields for m in _models_in(field.annotation)] or models
    prefix = ".".join(map(str, loc[:-1]))
    names = dict.fromkeys(name for m in models for name in m.model_fields)
    return [f"{prefix}.{name}" if prefix else name for name in names]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for arg in get_args(annotation) for m in _models_in(arg)]

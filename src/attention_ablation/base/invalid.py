"""Pydantic's findings about a file, as sentences."""

import re
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from attention_ablation.base.errors import UserError, shortened, unknown


def invalid(error: ValidationError, model: type[BaseModel], where: object) -> UserError:
    """Turn pydantic's findings about `where` into one sentence for each key."""
    sentences = []
    for found in error.errors():
        keys, siblings = _locate(model, found["loc"])
        key = ".".join(keys)
        if found["type"] == "extra_forbidden":
            sentences.append(str(unknown("key", key, siblings, where)))
        elif found["type"] == "missing":
            sentences.append(f"{where}: the key '{key}' is missing; add it.")
        elif found["type"] in ("union_tag_not_found", "union_tag_invalid"):
            sentences.append(_tag(found["ctx"], key, where))
        elif found["type"] == "value_error":
            reason = str(found["ctx"]["error"])
            sentences.append(f"{where}: {key}: {reason}" if key else f"{where}: {reason}")
        else:
            reason = found["msg"][0].lower() + found["msg"][1:]
            place = f"{where}: {key}" if key else where
            sentences.append(f"{place}: {reason}, but got {shortened(found['input'])}.")
    return UserError("\n".join(sentences))


def _tag(context: dict[str, Any], key: str, where: object) -> str:
    """Return the sentence about the key that says which of several records this one is."""
    quoted = context["discriminator"].strip("'")
    # Without a tag pydantic does not say which there are.
    if "tag" not in context:
        return f"{where}: the key '{key}.{quoted}' is missing; add it."
    valid = re.findall(r"'([^']+)'", context["expected_tags"])
    return str(unknown(f"{key}.{quoted}", context["tag"], valid, where))


def _locate(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[list[str], list[str]]:
    """Return the keys of pydantic's `loc` that stand in the file, and the valid last keys.

    Pydantic puts the branches of unions into the path, too; those are left out.
    """
    keys: list[str] = []
    siblings: list[str] = []
    here: list[Any] = [model]
    for position, part in enumerate(loc):
        models = [m for annotation in here for m in _models_in(annotation)]
        tagged = [m for m in models if part in _tags(m)]
        if len(models) > 1 and tagged:
            here = tagged  # the branch of that name, even where a field is called like it
            continue
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        last = position == len(loc) - 1
        siblings = [".".join([*keys, name]) for m in models for name in m.model_fields]
        if fields:
            here = [field.annotation for field in fields]
        elif not (last or isinstance(part, int) or any(_is_mapping(a) for a in here)):
            continue  # a branch
        elif "[" in str(part):
            continue  # a branch that pydantic names by its type
        else:
            here = [arg for annotation in here for arg in get_args(annotation)] or here
        keys.append(str(part))
    return keys, list(dict.fromkeys(siblings))


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    """Return the names that distinguish a record from the others of a union."""
    name = model.model_fields.get("name")
    return get_args(name.annotation) if name and get_origin(name.annotation) is Literal else ()


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is dict


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if _is_mapping(annotation) or get_origin(annotation) is list:
        return []
    return [m for arg in get_args(annotation) for m in _models_in(arg)]

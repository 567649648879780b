"""COCO's annotation files: the keys that are read of them, and what may stand there."""

import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import FailFast, Field, TypeAdapter, ValidationError

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import read_bytes

Id = Annotated[int, Field(ge=0, lt=2**63)]
Number = Annotated[float, Field(ge=-1e12, le=1e12)]
Side = Annotated[int, Field(ge=1, le=10**6)]


@dataclass(slots=True)
class ListedImage:
    """An image of a list, of which only the id is read."""

    id: Id


@dataclass(slots=True)
class Image(ListedImage):
    """An image: the name of its file, width and height in px."""

    file_name: Annotated[str, Field(pattern=r"^[^/\x00]+$")]
    width: Side
    height: Side


@dataclass(slots=True)
class Object:
    """An object: x, y, width and height of its box and the area of its outline, px."""

    id: Id
    image_id: Id
    category_id: Id
    bbox: tuple[Number, Number, Number, Number]
    area: Number
    iscrowd: Annotated[int, Field(ge=0, le=1)] = 0


@dataclass(slots=True)
class Category:
    """A class of objects."""

    id: Id
    name: str


@dataclass(slots=True)
class Listed:
    """A file that says which images are in a split."""

    images: Annotated[list[ListedImage], FailFast()]


@dataclass(slots=True)
class Instances:
    """A file of images and the objects on them."""

    images: Annotated[list[Image], FailFast()]
    annotations: Annotated[list[Object], FailFast()]
    categories: Annotated[list[Category], FailFast()]


T = TypeVar("T", Listed, Instances)


def read_instances(path: Path, form: type[T]) -> T:
    """Return an annotation file; raises UserError that says where it is not one."""
    try:
        return TypeAdapter(form).validate_json(read_bytes(path), strict=True)
    except ValidationError as error:
        first: Any = error.errors(include_url=False)[0]
        if first["type"] == "json_invalid":
            reason = f"expected JSON, got: {first['ctx']['error']}"
        else:
            place = "".join(f"{step}." for step in first["loc"])[:-1] or "the whole"
            expected = first["msg"][0].lower() + first["msg"][1:]
            reason = f"{place}: {expected}, but got {reprlib.repr(first['input'])}"
        raise UserError(f"{path}: {reason}. Fetch it again.") from None

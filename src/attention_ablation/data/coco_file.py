"""COCO's annotation files: the keys that are read of them, and what may stand there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import FailFast, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from attention_ablation.study.errors import UserError
from attention_ablation.study.io import read_bytes

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


# Of each list: what one of it is called, and what it has.
_PARTS = {
    "images": ("image", "id, a file_name without folders, width and height"),
    "annotations": (
        "annotation",
        "bbox of x, y, width and height, area, id, image_id and category_id",
    ),
    "categories": ("category", "id and name"),
}
T = TypeVar("T", Listed, Instances)


def read_instances(path: Path, form: type[T]) -> T:
    """Return an annotation file; raises UserError where it is not one."""
    content = read_bytes(path)
    try:
        return TypeAdapter(form).validate_json(content, strict=True)
    except ValidationError as error:
        raise UserError(f"{path}: {_reason(error, content)} Fetch it again.") from None


def _reason(error: ValidationError, content: bytes) -> str:
    first: Any = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid":
        return f"expected JSON, got: {first['ctx']['error']}."
    if len(first["loc"]) < 2:
        return f"expected the keys {', '.join(_PARTS)}; is it an instances file?"
    part, index, *key = first["loc"]
    one, has = _PARTS[part]
    # Its own id where it has one, by which it is found in a file of one line.
    record = from_json(content)[part][index]
    number = record.get("id", f"at {index}") if isinstance(record, dict) else f"at {index}"
    where = "".join(f"{step}: " for step in [".".join(map(str, key))] if step)
    return f"{one} {number}: expected {has}; {where}{first['msg'][0].lower()}{first['msg'][1:]}."

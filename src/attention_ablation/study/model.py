"""What every record of the project's files is: strict, frozen, and hashed by its JSON."""

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Model(BaseModel):
    """A strict record: unknown keys and wrong types are errors, and nothing changes it later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def __hash__(self) -> int:
        # Not pydantic's own, which cannot hash the lists and mappings of a record.
        return hash(canonical_json(self.model_dump(mode="json")))


Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


def canonical_json(data: Any) -> str:
    """Return `data` as JSON with sorted keys and without spaces."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


def short_hash(text: str) -> str:
    """Return the first 10 hexadecimal digits of the SHA-256 of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]

"""Where data lie."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Folders:
    """composed: made data sets and lists of files. datasets: each other data set by its name."""

    composed: Path
    datasets: Path

"""Where data are on this machine; never part of a spec, because it changes no result."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Folders:
    """composed: composed data sets and lists of files. datasets: the others, each by its name."""

    composed: Path
    datasets: Path

"""What is found by its name because its file is there: one new thing is one new file."""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType


def modules(package: str) -> Iterator[ModuleType]:
    """Import every module that lies directly in a package, by name; sub-packages hold parts."""
    for found in iter_modules(import_module(package).__path__):
        if not found.ispkg:
            yield import_module(f"{package}.{found.name}")

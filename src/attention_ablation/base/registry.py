"""What is found by its name because its file is there: one new thing is one new file."""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union

if TYPE_CHECKING:
    from pydantic import BaseModel

R = TypeVar("R", bound="BaseModel")


def modules(package: str) -> Iterator[ModuleType]:
    """Import every module that lies directly in a package, by name; sub-packages hold parts."""
    for found in iter_modules(import_module(package).__path__):
        if not found.ispkg:
            yield import_module(f"{package}.{found.name}")


def records(package: str, of: type[R], key: str) -> list[type[R]]:
    """Return the records of a class that a package's modules define and that have a key."""
    return [
        value
        for module in modules(package)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, of)
        if value.__module__ == module.__name__ and key in value.model_fields
    ]


def any_of(package: str, of: type[R], key: str) -> Any:
    """Return the type of a field that holds any of these records; the key says which."""
    from pydantic import Field  # not above: the help of the command waits for this module

    return Annotated[Union[tuple(records(package, of, key))], Field(discriminator=key)]  # noqa: UP007

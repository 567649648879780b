"""What the file of a gate says of it, read without importing it: its class, place and options."""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from attention_ablation.base.errors import UserError, brief, unknown

# Where a gate stands: on each block's output before the shortcut is added; among the convolutions
# of a block; over the outputs of a stage's blocks; on the output of every stage but the last.
Place = Literal["block-end", "inside-block", "over-stage", "stage-end"]
# The channels of the map that a gate gets; inside a block and over a stage, of each of its maps.
Channels = int | list[int]
PLACES: tuple[Place, ...] = get_args(Place)
GAIN = "gain"  # the option that a study's `start` sets


@dataclass(frozen=True)
class Declared:
    """A gate's class as its file declares it."""

    name: str
    place: Place = "block-end"
    label: str = ""  # what it is of its paper's gate: 'exact', 'reading' or 'reconstruction'
    paper: str = ""
    # What it is made with beside the channels, with its default, `...` where that is computed or
    # there is none; None: not known.
    options: Mapping[str, Any] | None = None
    required: tuple[str, ...] = ()  # the options without a default

    @property
    def has_start(self) -> bool:
        """Whether it may start as the identity: a gate here that takes the gain of its sigmoid."""
        return GAIN in (self.options or {})

    def recorded_place(
        self, options: Mapping[str, Any], place: str | None, where: object
    ) -> Place | None:
        """Return its place as a record has it.

        Raises UserError for options that the class does not take, or another place than its.
        """
        for option in options:
            if self.options is not None and option not in self.options:
                raise unknown("option", option, self.options, where)
        if missing := [option for option in self.required if option not in options]:
            raise UserError(f"{where}: {self.name} needs the option '{missing[0]}'; add it.")
        if place not in (None, self.place):
            raise UserError(
                f"{where}: expected the place '{self.place}', which {self.name} declares, got "
                f"'{place}'; leave it out."
            )
        return None if self.place == "block-end" else self.place


def declared(source: bytes, name: str, path: object) -> Declared:
    """Return what a file says of the class called `name`.

    Raises UserError where the file is not Python, has no such class, or names no known place.
    """
    classes = _classes(source, path)
    if name in classes:
        return _describe(classes[name], classes, path)
    if re.search(rf"\b{name}\b|import \*", source.decode(errors="replace")):
        return Declared(name)  # assigned or imported there: only running the file says more
    raise unknown("class", name, classes, path)


@cache
def builtin_gates() -> dict[str, Declared]:
    """Return the gates of the package by name: the files here with one class made with channels.

    Of several it is the one that is called like its file.
    """
    gates = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        classes = _classes(path.read_bytes(), path)
        made = [
            node
            for node in classes.values()
            for part in node.body
            if isinstance(part, ast.FunctionDef) and part.name == "__init__"
            if ast.unparse(part.args).startswith("self, channels")
        ]
        called = [node for node in made if node.name.lower() == path.stem.replace("_", "")]
        if len(called or made) == 1:
            gates[path.stem] = _describe((called or made)[0], classes, path)
    return gates


def with_defaults(gate: str, options: Mapping[str, Any], place: str | None) -> dict[str, Any]:
    """Return the options of a gate of the package, defaults filled in, and its place.

    Raises UserError for an unknown gate, and as `Declared.recorded_place`.
    """
    if gate not in builtin_gates():
        if (path := Path(__file__).with_name(f"{gate}.py")).is_file():
            there = ", ".join(_classes(path.read_bytes(), path)) or "none"
            raise UserError(
                f"{path}: expected one class whose __init__ begins with self, channels; of several "
                f"one that is called like the file. Its classes are: {there}."
            )
        raise unknown("gate", gate, builtin_gates(), "gates")
    found = builtin_gates()[gate]
    if GAIN in options:
        raise UserError(f"{gate}: expected no '{GAIN}' among the options; set 'start', which does.")
    place = found.recorded_place(options, place, gate)
    known = {k: v for k, v in (found.options or {}).items() if v is not ... and k != GAIN}
    # By way of JSON, which has lists for tuples, as the run's file gives them back.
    return {"options": json.loads(json.dumps({**known, **options})), "place": place}


def parsed(source: bytes, path: object) -> ast.Module:
    """Return a file's syntax tree. Raises UserError where it is not Python."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path}: it does not run: {brief(error)}") from None


def _classes(source: bytes, path: object) -> dict[str, ast.ClassDef]:
    body = parsed(source, path).body
    return {node.name: node for node in body if isinstance(node, ast.ClassDef)}


def _describe(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef], path: object) -> Declared:
    """Return what a class says, with what it inherits from classes of the same file."""
    statements = [part for each in _lineage(node, classes) for part in each.body]
    said = {key: _assigned(statements, key) for key in ("place", "label", "paper")}
    said = {key: value for key, value in said.items() if value is not None}
    if said.get("place", PLACES[0]) not in PLACES:
        raise unknown("place", said["place"], PLACES, f"{path}: {node.name}")
    for part in statements:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            options, required = _options(part.args)
            return Declared(node.name, **said, options=options, required=required)
    return Declared(node.name, **said)


def _lineage(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    yield node
    others = {name: other for name, other in classes.items() if name != node.name}
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in others:
            yield from _lineage(others[base.id], others)


def _assigned(statements: list[ast.stmt], name: str) -> Any:
    """Return what a class attribute is set to, None where it is not."""
    for part in statements:
        targets = part.targets if isinstance(part, ast.Assign) else [getattr(part, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return _literal(part.value)  # type: ignore[attr-defined]
    return None


def _options(args: ast.arguments) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """Return the options with their defaults, None where all are taken, and those without one."""
    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + args.defaults
    pairs = [*zip(positional, defaults, strict=True)][2:]  # after self and channels
    pairs += zip(args.kwonlyargs, args.kw_defaults, strict=True)
    required = tuple(arg.arg for arg, default in pairs if default is None)
    if args.kwarg:
        return None, required
    return {arg.arg: _literal(default) for arg, default in pairs}, required


def _literal(node: ast.expr | None) -> Any:
    try:
        return ... if node is None else ast.literal_eval(node)
    except ValueError:
        return ...

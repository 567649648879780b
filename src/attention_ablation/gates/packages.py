"""The third-party packages that a user's file imports, which are part of its run's identity."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec

from attention_ablation.base.errors import UserError
from attention_ablation.gates.source import parsed

# Every run records their versions beside its numbers; an id does not depend on them.
RECORDED = {"attention_ablation", "numpy", "torch", "torchvision"}
providers = cache(packages_distributions)  # reads what all installed packages hold: 0.4 s


def imported_packages(source: bytes, path: object) -> dict[str, str]:
    """Return the version of each package that a file imports anywhere, by its name on an index.

    Left out are Python's own modules, `RECORDED`, what is for type checkers only, and what belongs
    to no installed package, such as another file of the user's. Raises UserError for what is not
    there, unless `try` surrounds it.
    """
    tree = parsed(source, path)
    nodes = list(ast.walk(tree))
    tried = {n for t in nodes if isinstance(t, ast.Try) for n in _imports(t)}
    checked = [t.body for t in nodes if isinstance(t, ast.If) and _type_checking(t.test)]
    unused = {n for body in checked for statement in body for n in _imports(statement)}
    used = [n for n in _imports(tree) if n not in unused]
    names = {name for n in used for name in _top_level(n)}
    names -= RECORDED | sys.stdlib_module_names
    for name in sorted(names):
        if name not in providers() and not find_spec(name):
            needing = [n for n in used if name in _top_level(n) and n not in tried]
            if needing:
                raise UserError(
                    f"{path}: it imports '{name}' (line {needing[0].lineno}), which is not "
                    "installed; install it, or take the import out."
                )
    found = {package for name in names for package in providers().get(name, ())}
    return {package: version(package) for package in sorted(found)}


def _imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))


def _type_checking(test: ast.expr) -> bool:
    """Whether it is `TYPE_CHECKING`, or that of `typing`, which is false where the file is run."""
    return "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))


def _top_level(node: ast.Import | ast.ImportFrom) -> set[str]:
    """Return the first parts of the names that a statement imports; none of a relative one."""
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    return {node.module.partition(".")[0]} if node.module and not node.level else set()

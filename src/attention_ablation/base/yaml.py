"""YAML as people write it: a key is given once, and only what is plainly a number is one."""

import re
from pathlib import Path
from typing import Any

import yaml

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import read_text


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds. Raises as `read_text` and `parse_yaml`."""
    return parse_yaml(read_text(path), path)


def parse_yaml(text: str, where: object) -> Any:
    """Return what YAML holds. Raises UserError, about `where`, for other text and equal keys.

    Plain values are those of YAML 1.2: 1e-4 is a number, and yes, no, on and off are text. So is
    what its reader may take for another number than its writer, such as 010, 0x10, 1_000 and 1:30,
    and what is no number to compute with, .inf and .nan.
    """
    try:
        loader = _Loader(text)
        loader.name = str(where)
        return loader.get_single_data()
    # What stands behind a tag, such as `!!int x`, is not checked by PyYAML.
    except (yaml.YAMLError, ArithmeticError, ValueError, LookupError, AttributeError,
            RecursionError) as error:  # fmt: skip
        raise UserError(f"{where}: this is not valid YAML: {error}") from None


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                line = key.start_mark.line + 1
                raise UserError(
                    f"{self.name} line {line}: the key '{key.value}' is given twice; remove one."
                )
            seen.add(key.value)
        return node


_WHOLE = "(0|[1-9][0-9]*)"
for _tag, _pattern, _first in (
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", "<<", ["<"]),
    ("bool", "true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", f"[-+]?{_WHOLE}", list("-+0123456789")),
    (
        "float",
        rf"[-+]?({_WHOLE}?\.[0-9]+|{_WHOLE}\.?)([eE][-+]?[0-9]+)?",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first
    )

"""YAML as configuration needs it: plain values, and nothing that grows. PyYAML's safe loader, with three refusals; and
1:30:00 is what is written, as in YAML 1.2, not a number of base 60.

Aliases are refused: a file of a few lines can name a billion of values with them, which show where one is printed. So
are files that are too large or nested too deep, and keys that stand twice, of which YAML would quietly take the last.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from benchmarks.errors import InputError

LARGEST = 4 << 20  # bytes of a file
DEEPEST = 64


class _Loader(yaml.SafeLoader):
    """The safe loader: strings, numbers, dates, lists and mappings."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it refers to another place by an alias; write the value out")
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.YAMLError(f"it is nested more than {DEEPEST} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value)[:1000]) if isinstance(key, yaml.ScalarNode) else ("", "")
            if name[0] and name in seen:
                raise yaml.YAMLError(f"{name[1][:60]!r} stands twice; keep one of them")
            seen.add(name)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """A number, or the text where it has colons."""
        if ":" in node.value:
            return node.value
        return self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)


def parse(text: str) -> Any:
    """The value of one YAML document; yaml.YAMLError for whatever cannot be read."""
    if len(text) > LARGEST:
        raise yaml.YAMLError(f"{len(text)} characters, at most {LARGEST} are read")
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        # PyYAML lets through what its constructors raise: dates that are none, numbers with too many digits
        raise yaml.YAMLError(f"{type(error).__name__}: {str(error)[:200]}") from None


def read(path: Path, remedy: str = "correct the file") -> Any:
    """The value of a file; InputError, in one line with the remedy, where it cannot be read."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())[:400]}); {remedy}") from None

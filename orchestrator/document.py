"""YAML in and out: text to plain mappings and back, and overrides (`key.path=value`) on the way.

The loader reads what people mean rather than YAML 1.1: `1e-3` is a number; `on`, `yes` and `2026-01-01` are
strings; a key given twice is refused. The dumper quotes whatever either reading would change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from actors.storage import local_file
from orchestrator.problems import ConfigError, shown

_NOT_STRINGS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(?:0|[1-9](?:_?[0-9])*|0x[0-9a-fA-F]+|0o[0-7]+)",
    "float": r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.inf)|\.nan",
    "merge": "<<",
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        assert node is not None
        lines: dict[tuple[str, str], int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if (key.tag, key.value) in lines:
                message = f"the key {key.value!r} is given twice (first on line {lines[key.tag, key.value]})"
                raise yaml.MarkedYAMLError(problem=message, problem_mark=key.start_mark)
            lines[key.tag, key.value] = line
        return node


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _teach_numbers_and_words() -> None:
    for kind, pattern in _NOT_STRINGS.items():
        for each in (_Loader, _Dumper):
            each.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(rf"(?:{pattern})\Z"), None)


_teach_numbers_and_words()


def load(text: str, origin: str) -> Any:
    """The plain data of one YAML text; `origin` names it in errors."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{origin}, line {mark.line + 1}" if mark else origin
        raise ConfigError([f"{where}: {error.problem or error.context}"]) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError([f"{origin}: not readable as YAML: {error}"]) from error


def read(path: str | Path) -> Mapping[str, Any]:
    """The mapping that a YAML file holds."""
    try:
        text = Path(local_file(str(path))).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError([f"{path}: there is no such file"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error
    document = load(text, str(path))
    if not isinstance(document, Mapping):
        raise ConfigError([f"{path}, line 1: expected a mapping of keys to values, got {shown(document)}"])
    return document


def override(document: Mapping[str, Any], overrides: Sequence[str]) -> Mapping[str, Any]:
    """A copy of the document in which each `key.path=value` is set; the value is YAML."""
    for text in overrides:
        path, equals, value = text.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError([f"override {text!r}: expected key.path=value, as in student.epochs=3"])
        document = _with_value(document, keys, load(value, f"override {text!r}"), done=())
    return document


def _with_value(node: Any, keys: Sequence[str], value: Any, done: tuple[str, ...]) -> Any:
    # Copied along the path and never changed in place: two places of a document may share a YAML anchor.
    if not keys:
        return value
    key, *rest = keys
    if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
        changed = _with_value(node[int(key)], rest, value, (*done, key))
        return [changed if i == int(key) else item for i, item in enumerate(node)]
    if node is None or isinstance(node, Mapping):
        node = node or {}
        return {**node, key: _with_value(node.get(key), rest, value, (*done, key))}
    here, below = ".".join(done), ".".join(keys)
    problem = f"{here} is {shown(node)}, which has no {key!r} in it; override {here} as a whole"
    raise ConfigError([f"override {here}.{below}: {problem}"])


def dump(document: Mapping[str, Any]) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)

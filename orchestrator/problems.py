"""What is wrong with a document: `ConfigError`, and pydantic's errors as lines `key.path: expected, got`."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Collection, Iterable, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ValidationError

UNION_TAGS = frozenset({"(word)", "(tap pair)", "(number)", "(ramp)", "(range)"})

_EXPECTED = {
    "string_type": "a string",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
    "float_type": "a number",
    "int_type": "an integer",
    "string_too_short": "at least one character",
    "too_short": "at least one entry",
}


class ConfigError(ValueError):
    """A document that cannot be honoured; `problems` holds one line for each thing that is wrong with it."""

    def __init__(self, problems: Sequence[str], origin: str = "") -> None:
        self.problems, self.origin = tuple(problems), origin
        heading = [f"{origin}: {len(problems)} problem{'s' if len(problems) > 1 else ''}"] if origin else []
        super().__init__("\n".join([*heading, *self.problems]))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems, self.origin)


def shown(value: Any) -> str:
    """A value as YAML would spell it, cut short."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` ; did you mean 'x'?`, or nothing where no known name is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def unknown(name: str, known: Collection[str], what: str) -> str:
    """`no slice 'studnet'; did you mean 'student'?`, or the list of those there are."""
    return f"no {what} {name!r}" + (did_you_mean(name, known) or f"; there is {', '.join(known) or 'none'}")


def problems_of(error: ValidationError, document: type[BaseModel]) -> list[str]:
    """One line per problem. The paths are those that overrides use, without pydantic's own words."""
    return [line for detail in error.errors(include_url=False) for line in _lines(detail, document)]


def _lines(detail: Any, document: type[BaseModel]) -> list[str]:
    keys = [key for key in detail["loc"] if key not in UNION_TAGS and key != "[key]"]
    text = _text(detail, keys, document)
    return [f"{'.'.join(map(str, keys))}: {text}"] if keys else text.splitlines()


def _text(detail: Any, keys: Sequence[Any], document: type[BaseModel]) -> str:
    kind, got = detail["type"], shown(detail["input"])
    if kind == "extra_forbidden":
        known = list(_section(document, keys[:-1]).model_fields)
        return "unknown key" + (did_you_mean(str(keys[-1]), known) or f"; known here: {', '.join(known)}")
    if kind == "missing":
        return "is missing; it has no default"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind == "literal_error":
        return f"expected {detail['ctx']['expected']}, got {got}"
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, got {got}"
    return f"{detail['msg']}, got {got}"


def _section(document: type[BaseModel], path: Sequence[Any]) -> type[BaseModel]:
    """The model that validates what stands at the path."""
    annotation: Any = document
    for key in path:
        annotation = _plain(annotation)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            annotation = annotation.model_fields[key].annotation
        elif typing.get_origin(annotation) is dict:
            annotation = typing.get_args(annotation)[1]
    return _plain(annotation)


def _plain(annotation: Any) -> Any:
    """Without Annotated; of a union, the member that has keys of its own."""
    if typing.get_origin(annotation) is Annotated:
        return _plain(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [_plain(member) for member in typing.get_args(annotation)]
        keyed = [
            m for m in members if typing.get_origin(m) is dict or (isinstance(m, type) and issubclass(m, BaseModel))
        ]
        return (keyed or members)[0]
    return annotation

"""Makes the pages that are read from the code: docs/methods.md and docs/config.md.

`pages` gives their texts, `Reference` walks the JSON schema of a config for the second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestrator.config import ExperimentConfig
from orchestrator.rungs import INHERITED

DOCS = Path(__file__).parents[1] / "docs"
Schema = Mapping[str, Any]
SECTIONS = ("data", "teachers.<name>", "student", "assistants.<name>", "losses.<name>")
NESTED_LOSSES = "assistants.<name>.losses"
HEADINGS = ("key", "type", "default", "what it is")
PREFACE = """\
# Every key of a config

Made from the JSON schema by `make docs`; `collegium check --schema` prints the schema itself, for editors.

A dotted path names a key everywhere: in files, in overrides (`student.epochs=3`), in errors. `<name>` is a name of your
own. `null` is "left out". An *import* is `{target: "module:attribute", kwargs: {...}}`, or the bare
`"module:attribute"`: `target` is importable where it runs, `kwargs` (default `{}`) are the keyword arguments that it is
called with, so `data.views.kwargs.padding` is a path too. Keys that are not here are refused.
"""


@dataclass(frozen=True)
class Row:
    """One key: where it stands, what it takes, what it is where it is left out."""

    path: str
    type: str
    default: str
    about: str

    @property
    def section(self) -> str:
        return next((one for one in SECTIONS if f"{self.path}.".startswith(f"{one}.")), "")


class Reference:
    """The keys of a JSON schema, depth first."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._parts: Schema = schema["$defs"]

    def rows(self) -> Iterator[Row]:
        yield from self._of_section(self._schema, "")

    def about(self, part: str) -> str:
        """What the section says of itself."""
        [section] = [one for one in self._branches(self._parts[part]) if "properties" in one]
        return section["description"]

    def _of_section(self, section: Schema, prefix: str) -> Iterator[Row]:
        required = section.get("required", ())
        for key, schema in section["properties"].items():
            path = f"{prefix}{key}"
            if is_import(section) and key in ("target", "kwargs"):
                continue
            about = schema["description"]
            if path == NESTED_LOSSES:
                yield Row(path, self._type(schema), "`null`", f"{about} Each has the keys of a loss, below.")
                continue
            yield Row(path, self._type(schema), default_of(schema, path, key in required), about)
            yield from self._below(schema, path)

    def _below(self, schema: Schema, path: str) -> Iterator[Row]:
        for branch in self._branches(schema):
            if "properties" in branch:
                yield from self._of_section(branch, f"{path}.")
            for named in branch.get("patternProperties", {}).values():
                yield from self._below(named, f"{path}.<name>")

    def _branches(self, schema: Schema) -> Iterator[Schema]:
        """The alternatives of a schema, its references followed."""
        if "$ref" in schema:
            schema = self._parts[schema["$ref"].rpartition("/")[2]]
        alternatives = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
        if not alternatives:
            yield schema
        for alternative in alternatives:
            yield from self._branches(alternative)

    def _type(self, schema: Schema) -> str:
        branches = list(self._branches(schema))
        if any(is_import(branch) for branch in branches):
            branches = [branch for branch in branches if branch.get("type") != "string"]
        return " or ".join(dict.fromkeys(self._branch_type(branch) for branch in branches))

    def _branch_type(self, branch: Schema) -> str:
        if "enum" in branch or "const" in branch:
            return " or ".join(f"`{value}`" for value in branch.get("enum", [branch.get("const")]))
        match branch["type"]:
            case "object":
                return self._object_type(branch)
            case "array" if "prefixItems" in branch:
                return f"[{', '.join(self._type(item) for item in branch['prefixItems'])}]"
            case "array":
                return f"[{self._type(branch['items'])}, ...]"
            case [*several]:
                return " or ".join(self._branch_type({**branch, "type": one}) for one in several)
            case "integer" | "number":
                return branch["type"] + bounds(branch)
            case "string":
                return "text"
            case "boolean":
                return "`true` or `false`"
        return f"`{branch['type']}`"

    def _object_type(self, branch: Schema) -> str:
        if is_import(branch):
            return "a rule's name or import" if branch.get("title") == "EnsembleConfig" else "import"
        if "properties" in branch:
            return "section"
        values = [*branch.get("patternProperties", {}).values(), branch.get("additionalProperties")]
        value = self._type(values[0]) if isinstance(values[0], Mapping) else "any value"
        return f"{value}, by name"


def is_import(branch: Schema) -> bool:
    return "target" in branch.get("properties", {})


def bounds(branch: Schema) -> str:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}
    given = [f"{sign} {branch[name]}" for name, sign in signs.items() if name in branch]
    return f" {', '.join(given)}" if given else ""


def default_of(schema: Schema, path: str, required: bool) -> str:
    if required:
        return "required"
    if path in {f"assistants.<name>.{key}" for key in INHERITED}:
        return "the student's"
    if "default" in schema:
        default = schema["default"]
        is_section = isinstance(default, Mapping) and "target" not in default
        return "see below" if is_section and default else f"`{flow(default)}`"
    return "`{}`" if schema.get("type") == "object" or "$ref" in schema else "`null`"


def flow(value: Any) -> str:
    """As it would stand in a config."""
    if isinstance(value, Mapping) and not value.get("kwargs"):
        value = value.get("target", value)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")


def config_page() -> str:
    reference = Reference(ExperimentConfig.json_schema())
    rows = list(reference.rows())
    parts = ("DataConfig", "TeacherConfig", "StudentConfig", "AssistantConfig", "LossConfig")
    own = [row for row in rows if not row.section]
    text = [PREFACE, section("The experiment", ExperimentConfig.__doc__ or "", own)]
    for title, part in zip(SECTIONS, parts, strict=True):
        own = [row for row in rows if row.section == title and row.path != title]
        text.append(section(f"`{title}`", reference.about(part), own))
    return "\n".join(text)


def section(title: str, about: str, rows: Sequence[Row]) -> str:
    lines = [f"## {title}\n", f"{about}\n", table_row(HEADINGS), table_row(["---"] * len(HEADINGS))]
    lines += [table_row([f"`{row.path}`", row.type, row.default, row.about.replace("<", r"\<")]) for row in rows]
    return "\n".join(lines) + "\n"


def table_row(cells: Sequence[str]) -> str:
    escaped = (cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def pages() -> dict[Path, str]:
    from orchestrator.methods import as_markdown

    return {DOCS / "methods.md": as_markdown(), DOCS / "config.md": config_page()}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")

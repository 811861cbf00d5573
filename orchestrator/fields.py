"""What the config is made of: `Section`, the base of every part, and scalars that say what they expect."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from actors.buckets import ANONYMOUS, CREDENTIALS, address_of
from actors.storage import is_uri

RESERVED_NAMES = ("student", "ensemble", "alone", "label")
MODELS_FOLDER = "models"
ARTIFACTS_FOLDER = "mlartifacts"
STORE_FOLDER = "store"
STORAGE_FOLDERS = {
    MODELS_FOLDER: "trained teachers",
    ARTIFACTS_FOLDER: "MLflow's files",
    STORE_FOLDER: "knowledge of teachers",
}
REGISTERED = re.compile(r"models:/[^/@]+(@[^/@]+|/\d+)")
"""A registered model in MLflow, by alias or version."""
LARGEST_SEED = 2**63 - 1


class Section(BaseModel):
    """A part of the config: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True)


def expects(what: str) -> WrapValidator:
    """Any failure inside becomes `expected <what>, got <the whole value>`, at this key's own path."""

    def check(value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise PydanticCustomError("expected", "expected {what}", {"what": what}) from None

    return WrapValidator(check)


def each_filled(sections: Any, defaults: Mapping[str, Any]) -> Any:
    """Raw sections by name, each given the defaults of the keys that it lacks. No mapping: left as it is."""
    if not isinstance(sections, Mapping):
        return sections
    return {name: {**defaults, **s} if isinstance(s, Mapping) else s for name, s in sections.items()}


def _unreserved(name: str) -> str:
    if name in RESERVED_NAMES:
        raise ValueError(f"the name {name!r} is taken: reports use it for something else; choose another")
    return name


def _no_folder_of_ours(name: str) -> str:
    if name in STORAGE_FOLDERS:
        raise ValueError(f"the name {name!r} is taken: {STORAGE_FOLDERS[name]} are kept there; choose another")
    return name


def _local(path: str) -> str:
    if is_uri(path):
        raise ValueError(f"expected a local path, got {path!r}; URIs are not supported yet")
    return path


def _storage(place: str) -> str:
    if not is_uri(place):
        return place
    try:
        named = address_of(place)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("storage: ")) from None
    if named.user not in ("", ANONYMOUS):
        raise ValueError(
            f"expected no keys in the URI; they are read from the environment: {CREDENTIALS[named.scheme]}"
        )
    return place


def _local_or_registered(path: str) -> str:
    if path.startswith("models:/") and not REGISTERED.fullmatch(path):
        raise ValueError(f"expected models:/NAME@ALIAS or models:/NAME/VERSION, got {path!r}")
    return path if REGISTERED.fullmatch(path) else _local(path)


def _tracking_uri(uri: str) -> str:
    if uri != "databricks" and not re.match(r"(https?|sqlite|postgresql|mysql|mssql|databricks)(\+\w+)?://", uri):
        raise ValueError(f"expected a tracking server (http://host:5000) or a database (sqlite:///file), got {uri!r}")
    return uri


def _distinct(items: tuple[Any, ...]) -> tuple[Any, ...]:
    repeated = sorted({item for item in items if items.count(item) > 1})
    if repeated:
        raise ValueError(f"expected distinct entries, got {repeated[0]!r} twice")
    return items


def _several(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else (value,)


def _whole_or_part(gpus: float) -> float:
    """Raises ValueError for what no cluster gives."""
    if gpus > 1 and gpus != int(gpus):
        raise ValueError(f"expected a fraction of one GPU or whole GPUs, got {gpus:g}")
    return gpus


_Int = Annotated[int, Strict()]
_Float = Annotated[float, Strict(), Field(allow_inf_nan=False)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$"), expects("a name of letters, digits, _ and -")]

PositiveInt = Annotated[_Int, Field(ge=1), expects("a positive integer")]
NaturalInt = Annotated[_Int, Field(ge=0, le=LARGEST_SEED), expects("an integer of at least 0")]
Number = Annotated[_Float, expects("a number")]
PositiveFloat = Annotated[_Float, Field(gt=0), expects("a positive number")]
NaturalFloat = Annotated[_Float, Field(ge=0), expects("a number of at least 0")]
Fraction = Annotated[_Float, Field(ge=0, lt=1), expects("a number in 0 .. 1 (without 1)")]
Decay = Annotated[_Float, Field(gt=0, lt=1), expects("a number between 0 and 1")]
Flag = Annotated[bool, Strict(), expects("true or false")]
Text = Annotated[str, Field(min_length=1), expects("a string that is not empty")]
Numbers = Annotated[
    tuple[_Float, ...],
    Field(min_length=1),
    BeforeValidator(_several),
    expects("a number or a list of numbers"),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "array", "items": {"type": "number"}, "minItems": 1}]}),
]

ExperimentName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9._-]*[A-Za-z0-9_-][A-Za-z0-9._-]*$"),
    expects("a name of letters, digits, '.', '_' and '-'"),
    AfterValidator(_no_folder_of_ours),
]
TeacherName = Annotated[_Name, AfterValidator(_unreserved)]
Key = Annotated[str, Field(pattern=r"^[^.\s]+$"), expects("a name without dots and spaces")]
StoragePlace = Annotated[Text, AfterValidator(_storage)]
Checkpoint = Annotated[Text, AfterValidator(_local_or_registered)]
TrackingUri = Annotated[Text, AfterValidator(_tracking_uri)]
ClassMap = Annotated[
    tuple[NaturalInt, ...],
    Field(min_length=1),
    expects("a list of class numbers of at least 0"),
    AfterValidator(_distinct),
]
Taps = Annotated[
    Text | Annotated[tuple[Text, Text], AfterValidator(_distinct)],
    expects("a tap, or a list of two different ones"),
]
Names = Annotated[
    tuple[Text, ...], Field(min_length=1), expects("a list of teachers' names"), AfterValidator(_distinct)
]
Window = Annotated[NaturalInt | Literal["auto"], expects("an integer of at least 0 or `auto`")]
Chunk = Annotated[Annotated[_Int, Field(ge=1, le=2**20)] | Literal["auto"], expects("1 to 1048576 rows or `auto`")]
Threads = Annotated[_Int, Field(ge=1, le=1024), expects("1 to 1024 threads")]
Timeout = Annotated[_Float, Field(ge=1, le=1e6), expects("1 to 1000000 seconds")]
Gpus = Annotated[_Float, Field(ge=0), expects("a number of at least 0"), AfterValidator(_whole_or_part)]
NumViews = Annotated[PositiveInt | Literal["fresh"], expects("a positive integer or `fresh`")]

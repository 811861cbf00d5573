"""How MLflow is reached: `connect`, and what its stores allow."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")
LONGEST_NAME = 250
PARAMS_AT_ONCE = 100
METRICS_AT_ONCE = 1000
# MLflow's own: seven retries with doubling waits of 120 s each, which would outlast many a run.
MLFLOW_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def set_defaults() -> None:
    """Before MLflow is loaded: it is to give up soon and to print nothing."""
    for name, value in MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)


def connect(uri: str) -> MlflowClient:
    set_defaults()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient
    return MlflowClient(uri)


def allowed_name(name: str) -> str:
    """As MLflow takes it: no brackets, and a path that is its own normal form."""
    plain = posixpath.normpath(re.sub(r"[^\w.\- :/]", "_", name).strip("/")) if name else "_"
    plain = re.sub(r"^\.{1,2}(?=/|$)", "_", plain)
    if len(plain) <= LONGEST_NAME:
        return plain
    return f"{plain[: LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def chunks(things: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(things), size):
        yield things[start : start + size]

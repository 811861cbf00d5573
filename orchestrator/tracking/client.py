"""How MLflow is reached: `connect`, and what its stores allow."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from filelock import FileLock

from orchestrator.tracking.delivery import SQLITE

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")
OPENING_S = 120.0
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
    from mlflow import MlflowClient

    return MlflowClient(uri)


@contextmanager
def alone(uri: str) -> Iterator[None]:
    """With a sqlite file that is there and whole: MLflow takes seconds to make its tables, and who is killed meanwhile,
    or opens the file meanwhile, has a broken store for ever.
    """
    if not uri.startswith(SQLITE):
        yield
        return
    file = Path(uri.removeprefix(SQLITE))
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock", timeout=OPENING_S):
        if not file.exists():
            for torn in file.parent.glob(f".{file.name}.*"):
                torn.unlink()
            aside = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
            connect(f"{SQLITE}{aside}").search_experiments(max_results=1)
            aside.replace(file)
        yield


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

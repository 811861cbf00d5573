"""Content hashes: what a training rung depends on, so that the same thing is never trained twice."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from actors.data import evaluation_rows
from actors.knowledge import row_digests
from actors.specs import DataSpec, ImportSpec
from actors.views import MapDataset

ROWS_SAMPLED = 256


def content_hash(content: Any) -> str:
    """SHA-256 of JSON-like content; the order of keys does not count."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def dataset_fingerprint(dataset: MapDataset, data: DataSpec) -> str:
    """SHA-256 over the length and the pixels and labels of evenly spaced rows."""
    ids = np.unique(np.linspace(0, len(dataset) - 1, ROWS_SAMPLED).astype(np.int64))
    inputs, labels = evaluation_rows(dataset, data).build(ids, np.zeros(len(ids), dtype=np.int32))
    hasher = hashlib.sha256(f"{data.train.target} {len(dataset)};".encode())
    hasher.update(row_digests(inputs).tobytes())
    hasher.update(labels.numpy().tobytes())
    return hasher.hexdigest()


def ids_hash(ids: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(ids).tobytes()).hexdigest()


def sources_hash(targets: Sequence[str]) -> dict[str, str]:
    """Of the file that defines each target: edited code is other content."""
    return {target: _source_hash(target) for target in sorted(set(targets))}


def targets_in(content: Any) -> list[str]:
    """Every `target` in a nested structure of mappings and sequences."""
    if isinstance(content, Mapping):
        own = [content["target"]] if isinstance(content.get("target"), str) else []
        return own + [target for value in content.values() for target in targets_in(value)]
    if isinstance(content, (list, tuple)):
        return [target for value in content for target in targets_in(value)]
    return []


def _source_hash(target: str) -> str:
    try:
        file = inspect.getsourcefile(ImportSpec(target).resolve())
    except (TypeError, ValueError, ImportError, AttributeError):  # a built-in, or a kwarg that happens to be a `target`
        return ""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file and Path(file).is_file() else ""

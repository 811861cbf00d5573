"""Content hashes: what a training rung depends on, so that the same thing is never trained twice."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actors.data import Rows, SharedDataset, evaluation_rows
from actors.digests import row_digests
from actors.specs import DataSpec
from actors.views import MapDataset

ROWS_SAMPLED = 256
JUDGING = ("actors.teacher", "actors.features", "actors.inputs", "actors.reductions")
"""Our own modules through which pixels become a teacher's answers."""


def content_hash(content: Any) -> str:
    """SHA-256 of JSON-like content; the order of keys does not count."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def dataset_fingerprint(dataset: MapDataset, data: DataSpec, rows: Rows | None = None) -> str:
    """SHA-256 over the dataset object as it is sent to other processes, and, since it may read files, over the pixels
    and labels of evenly spaced rows; without `rows`, as they are evaluated."""
    ids = np.unique(np.linspace(0, len(dataset) - 1, ROWS_SAMPLED).astype(np.int64))
    inputs, labels = (rows or evaluation_rows(dataset, data)).build(ids, np.zeros(len(ids), dtype=np.int32))
    shared = SharedDataset.of(dataset)
    hasher = hashlib.sha256(f"{data.train.target} {len(dataset)};".encode())
    hasher.update(shared.pickled)
    for array in (*shared.arrays, row_digests(inputs), labels.numpy()):
        hasher.update(array.data)
    return hasher.hexdigest()


def ids_hash(ids: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(ids).tobytes()).hexdigest()


def code_fingerprint(targets: Sequence[str]) -> dict[str, str]:
    """Of each package that a target is in, and of our own: the version of what is installed, the content of the files
    of what is being written."""
    packages = sorted({"actors", *(target.partition(":")[0].partition(".")[0] for target in targets)})
    return {"torch": torch.__version__, **{package: _package_fingerprint(package) for package in packages}}


def targets_in(content: Any) -> list[str]:
    """Every `target` in a nested structure of mappings and sequences."""
    if isinstance(content, Mapping):
        own = [content["target"]] if isinstance(content.get("target"), str) else []
        return own + [target for value in content.values() for target in targets_in(value)]
    if isinstance(content, (list, tuple)):
        return [target for value in content for target in targets_in(value)]
    return []


def judging_fingerprint(target: str) -> str:
    """Of the code that a target is in and of what carries a batch to it: narrower than `code_fingerprint`, so that
    what has no part in a teacher's answers may change."""
    module = target.partition(":")[0]
    if module.partition(".")[0] != "actors":
        return content_hash([_package_fingerprint(module.partition(".")[0]), _own_code(JUDGING)])
    return _own_code((module, *JUDGING))


def _own_code(modules: Sequence[str]) -> str:
    hasher = hashlib.sha256()
    for module in modules:
        found = importlib.util.find_spec(module)
        assert found is not None and found.origin is not None
        folders = [Path(folder) for folder in found.submodule_search_locations or []]
        for file in sorted({file for folder in folders for file in folder.rglob("*.py")} or {Path(found.origin)}):
            hasher.update(file.read_bytes())
    return hasher.hexdigest()


def _with_neighbours(file: Path) -> set[Path]:
    """A module's file and those beside it that it imports, and they."""
    found, queue = set(), [file]
    while queue:
        one = queue.pop()
        if one in found or not one.is_file():
            continue
        found.add(one)
        for name in _imported(one):
            beside = file.parent / name
            queue += [beside.with_suffix(".py"), *beside.rglob("*.py")]
    return found


def _imported(file: Path) -> set[str]:
    """The root names of what a file imports; of a compiled one nothing is known."""
    if file.suffix != ".py":
        return set()
    nodes = list(ast.walk(ast.parse(file.read_bytes())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names} - {""}


def _package_fingerprint(package: str) -> str:
    found = importlib.util.find_spec(package) if package else None
    if found is None or found.origin in ("built-in", "frozen"):
        return ""
    folders = [Path(folder) for folder in found.submodule_search_locations or []]
    if package != "actors" and "site-packages" in Path(found.origin or folders[0]).parts:
        return str(getattr(importlib.import_module(package), "__version__", ""))
    files = {file for folder in folders for file in folder.rglob("*.py")}
    hasher = hashlib.sha256()
    for file in sorted(files or _with_neighbours(Path(str(found.origin)))):
        hasher.update(f"{file.name};".encode())
        hasher.update(file.read_bytes())
    return hasher.hexdigest()

"""What a trained rung depends on, as one hash: what is the same is not trained twice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from actors.data import slice_ids
from actors.fingerprints import code_fingerprint, content_hash, ids_hash, targets_in
from actors.specs import StudentSpec, TeacherSpec
from actors.storage import local_file
from actors.views import MapDataset

KEY_LENGTH = 16


def rung_key(
    spec: StudentSpec, dataset: MapDataset, fingerprint: str, encodings: Mapping[str, Any] | None = None
) -> str:
    """The hash of the data's content (its `fingerprint`), the slices' ids, views, model, recipe, losses, the
    teachers' weights, the `encodings` of what they say and what makes last bits differ (workers, threads, chunks,
    precision). Neither names nor places count."""
    content = {"dataset": fingerprint, **_content(spec, len(dataset))}
    content |= {"encodings": encodings} if spec.teachers else {}
    return content_hash({**content, "code": code_fingerprint(targets_in(content))})[:KEY_LENGTH]


def file_hash(path: str) -> str:
    """SHA-256 of a file or URI; a file that has not changed since is not read again."""
    path = local_file(path)
    stat = Path(path).stat()
    return _hash_of(path, stat.st_mtime_ns, stat.st_size)


@cache
def _hash_of(path: str, changed_ns: int, size: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _content(spec: StudentSpec, length: int) -> dict[str, Any]:
    data = spec.data
    slices = slice_ids(data.slices, length, data.seed)
    return {
        "labelled": ids_hash(slices[spec.labelled]),
        "unlabelled": ids_hash(slices[spec.unlabelled]) if spec.unlabelled else None,
        "views": [asdict(data.views), data.num_views, data.seed],
        "model": asdict(spec.model),
        "recipe": asdict(replace(spec.recipe, checkpoint_every_steps=None)),
        "losses": [asdict(replace(loss, section="")) for loss in spec.losses],
        "teachers": {teacher.name: _teacher(teacher) for teacher in spec.teachers},
        "workers": [spec.num_workers, spec.resources.threads, spec.resources.num_gpus > 0],
        "rows_per_epoch": spec.rows_per_epoch,
    }


def _teacher(teacher: TeacherSpec) -> Mapping[str, Any]:
    return {
        "model": asdict(teacher.model),
        "weights": file_hash(teacher.weights),
        "class_map": teacher.class_map,
        "chunk": teacher.chunk,
        "threads": teacher.threads,
        "precision": teacher.precision,
        "channels_last": teacher.channels_last,
        "compile": teacher.compile,
        "gpu": teacher.resources.num_gpus > 0,
    }

"""By what knowledge is found: by all that it depends on, and by nothing else. Imports no Ray.

`judge_identity` and `data_identity` say what a teacher's answers and a sample's pixels depend on; `Piece` is one tensor
of one teacher, in one encoding; `row_keys` are the rows of a batch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from actors.data import asks_partners, training_rows
from actors.fingerprints import content_hash, dataset_fingerprint, judging_fingerprint
from actors.knowledge import LOGITS, TeacherRequest, named_ids
from actors.reductions import PROBE_ROWS, Reduction
from actors.specs import DataSpec, StoreSpec, TeacherSpec
from actors.store.encodings import Encoding
from actors.views import MapDataset

KEY_LENGTH = 32
MOST = 1 << 32
"""Ids and numbers of views lie below this."""

Identity = Mapping[str, Any]


@dataclass(frozen=True)
class Piece:
    """One tensor that a teacher sends. `name`: its key among what travels; `identity`: all it depends on."""

    name: str
    encoding: Encoding
    identity: str

    @property
    def key(self) -> str:
        return content_hash(self.identity)[:KEY_LENGTH]


def judge_identity(spec: TeacherSpec, weights: str) -> Identity:
    """What a teacher's answers depend on beside the pixels, up to their last bits. `weights`: their hash."""
    return {
        "weights": weights,
        "model": asdict(spec.model.model),
        "code": judging_fingerprint(spec.model.model.target),
        "input": asdict(spec.model.input),
        "class_map": spec.class_map,
        "precision": spec.precision,
        "chunk": spec.chunk,
        "threads": spec.threads,
        "channels_last": spec.channels_last,
        "compile": spec.compile,
        "gpu": spec.resources.num_gpus > 0,
        "torch": torch.__version__,
    }


def data_identity(dataset: MapDataset, data: DataSpec) -> Identity:
    """What a sample's pixels depend on beside its id and the number of the view."""
    return {
        "fingerprint": dataset_fingerprint(dataset, data, training_rows(dataset, data)),
        "view": asdict(data.views),
        "seed": data.seed,
        "slices": data.slices if asks_partners(data.views) else None,
    }


def pieces(request: TeacherRequest, spec: TeacherSpec, store: StoreSpec) -> list[Piece]:
    """What an answer to the request is made of, in the order in which it travels."""
    sent = [_piece(name, {"output": _output(name, spec)}, name, spec, store) for name in request.sent]
    return sent + [piece for reduction in request.reductions for piece in _pieces_of(reduction, spec, store)]


def _pieces_of(reduction: Reduction, spec: TeacherSpec, store: StoreSpec) -> list[Piece]:
    made = reduction({output: torch.zeros(PROBE_ROWS, *spec.shapes[output]) for output in reduction.outputs})
    identity = {
        "reduction": reduction.target,
        "of": [_output(output, spec) for output in reduction.outputs],
        "kwargs": dict(reduction.kwargs),
        "code": judging_fingerprint(reduction.target),
    }
    return [
        _piece(name, {**identity, "part": name.removeprefix(reduction.name)}, reduction.outputs[0], spec, store, one)
        for name, one in made.items()
    ]


def _piece(
    name: str,
    identity: Identity,
    output: str,
    spec: TeacherSpec,
    store: StoreSpec,
    made: torch.Tensor | None = None,
) -> Piece:
    """`output`: the tap, or `logits`, by whose name the config says how it is encoded; `made`: of zeros."""
    shape = spec.shapes[name] if made is None else tuple(made.shape[1:])
    dtype = "float32" if made is None else str(made.dtype).removeprefix("torch.")
    encoding = Encoding(store.encodings.get(output, store.encoding), shape, dtype)
    whole = {"teacher": store.judges[spec.name], **identity, "encoding": asdict(encoding), "data": store.data}
    return Piece(name, encoding, json.dumps(whole, sort_keys=True))


def _output(name: str, spec: TeacherSpec) -> str:
    """What a tap is whatever it is called: its module's path."""
    return LOGITS if name == LOGITS else f"tap {spec.model.taps[name]}"


def row_keys(ids: np.ndarray, views: np.ndarray) -> np.ndarray:
    """(rows,) uint64; raises ValueError where an id or a view is no number below `MOST`."""
    keys = ids.astype(np.uint64) << np.uint64(32)
    if ((ids | views) >> np.int64(32)).any():
        outside = [int(one) for one in (*ids, *views) if not 0 <= one < MOST]
        raise ValueError(f"store: ids and views must lie in 0..{MOST - 1}, got {named_ids(outside)}")
    return keys | views.astype(np.uint64)

"""What a run tells MLflow, in names and numbers: parameters by their dotted paths, metrics of an epoch, of a rung, of
the whole. Pure; no MLflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actors.serving import merged
from orchestrator.config import ExperimentConfig
from orchestrator.ladder import Rung
from orchestrator.result import ExperimentResult
from orchestrator.tracking.journal import dotted

Values = dict[str, float]


def experiment_params(config: ExperimentConfig) -> dict[str, str]:
    """The whole config."""
    return dotted(config.model_dump(exclude={"tracking"}))


def rung_params(config: ExperimentConfig, rung: Rung) -> dict[str, str]:
    """The part of the config that one rung is trained by."""
    return {path: value for path, value in experiment_params(config).items() if path.startswith(_sections(rung))}


def _sections(rung: Rung) -> tuple[str, ...]:
    losses = [] if rung.role == "teacher" else [f"{loss.key}." for loss in rung.losses]
    return (f"{rung.where}.", *losses, "data.", "seed")


def epoch_values(record: Mapping[str, Any]) -> Values:
    """Of a record of a rung's history."""
    return {
        **{f"loss/{name}": value for name, value in record["terms"].items()},
        **{
            f"teacher_weight/{loss}/{teacher}": weight
            for loss, weights in record["weights"].items()
            for teacher, weight in weights.items()
        },
        **{f"time_share/{name}": share for name, share in record["shares"].items()},
        "validation/accuracy": record["accuracy"],
        "validation/cross_entropy": record["cross_entropy"],
        "images_per_s": record["images_per_s"],
        "seconds": record["seconds"],
        **_serving_values(record.get("serving", [])),
    }


def _serving_values(workers: Sequence[Mapping[str, Any]]) -> Values:
    """Of each teacher over all workers; and of each worker where there are several."""
    by_teacher = {
        f"teacher/{teacher}/{name}": value
        for teacher, one in merged(workers).items()
        for name, value in {
            "images_per_s": one["images_per_s"],
            "service_ms_median": one["service_ms"]["median"],
            "service_ms_p99": one["service_ms"]["p99"],
            "queue_ms_median": one["queue_ms"]["median"],
            "queue_ms_p99": one["queue_ms"]["p99"],
            "replicas": one["replicas"],
            "waited_share": one["waited_share"],
            "bytes_per_sample": one["bytes_per_sample"],
            "retries": one["retries"],
        }.items()
    }
    by_worker = {
        f"worker/{rank}/{teacher}/{name}": one[name]
        for rank, worker in enumerate(workers)
        for teacher, one in worker.items()
        for name in ("waited_share", "images_per_s")
    }
    return by_teacher | by_worker if len(workers) > 1 else by_teacher


def rung_values(
    outcome: Mapping[str, Any],
    pool: Mapping[str, Any] | None = None,
    passes: Mapping[str, Mapping[str, int]] | None = None,
) -> Values:
    """Of a rung that is trained. `pool`: what pool.json says, where a pool served it; `passes`: by teacher."""
    restarts = pool["restarts"] if pool else {}
    return {
        "bytes_per_sample": outcome["bytes_per_sample"],
        "parameters": outcome["parameters"],
        **{f"teacher/{teacher}/restarts": count for teacher, count in restarts.items()},
        **{f"teacher/{teacher}/{name}": one[name] for teacher, one in (passes or {}).items() for name in one},
    }


def result_values(result: ExperimentResult) -> Values:
    """Of the whole run: each model on the test set."""
    found: Values = {"wall_s": result.wall_s}
    for model in result.models:
        numbers = {
            "accuracy": model.accuracy,
            "cross_entropy": model.cross_entropy,
            "ece": model.ece,
            "parameters": model.parameters,
            "bytes_on_disk": model.bytes_on_disk,
            "flops": model.flops,
            **{f"latency_ms_{size}": value for size, value in (model.latency_ms or {}).items()},
        }
        found |= {f"test/{model.name}/{name}": float(value) for name, value in numbers.items() if value is not None}
    return found

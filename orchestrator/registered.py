"""Teachers that come from MLflow's registry: their weights are brought here before anything looks at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from actors.specs import TeacherSpec
from orchestrator.config import ExperimentConfig
from orchestrator.fields import MODELS_FOLDER, REGISTERED
from orchestrator.tracking.tracker import tracking_home, tracking_uri

if TYPE_CHECKING:
    from orchestrator.tracking.models import FetchedWeights


def fetched(config: ExperimentConfig) -> dict[str, FetchedWeights]:
    """By teacher. Raises ValueError where one is not to be had."""
    given = {name: teacher.checkpoint for name, teacher in config.teachers.items()}
    registered = {name: uri for name, uri in given.items() if uri is not None and REGISTERED.fullmatch(uri)}
    if not registered:
        return {}
    from orchestrator.tracking.models import fetch_registered_weights

    uri = tracking_uri(config.tracking.uri, config.storage)
    into = str(tracking_home(config.storage) / MODELS_FOLDER / "registered")
    return {
        name: fetch_registered_weights(model, uri, into, f"teachers.{name}.checkpoint")
        for name, model in registered.items()
    }


def with_weights(specs: Mapping[str, TeacherSpec], brought: Mapping[str, FetchedWeights]) -> dict[str, TeacherSpec]:
    return {
        name: replace(spec, weights=brought[name].path) if name in brought else spec for name, spec in specs.items()
    }

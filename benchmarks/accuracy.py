"""What distillation gains on Fashion-MNIST, mean and spread over seeds: alone, from each teacher, from three means of
all (`make accuracy`); or what the number of views costs (`--rows views`), or the encodings of the store (`--rows
encodings`).

One experiment trains the teachers and scores them; then every row and seed is a student of its own. The rows share a
store of what the teachers said. What is done is kept in benchmarks/out, so that an interrupted benchmark goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import ray
import torch
from rich.console import Console
from rich.table import Table

from actors.checkpoints import Checkpoints
from actors.data import SharedDataset, evaluation_rows
from actors.fingerprints import content_hash
from actors.scoring import score_rows
from actors.sources import LocalTeachers
from actors.specs import EncodingName, StoreSpec, StudentSpec, TeacherSpec
from actors.storage import Folder
from actors.store.shared_claims import SharedClaims, start_claims
from actors.store.stored import StoredTeachers
from actors.student import StudentTrainer
from orchestrator.cluster import connected
from orchestrator.config import ExperimentConfig
from orchestrator.experiment import Experiment
from orchestrator.identity import file_hash
from orchestrator.ladder import ladder
from orchestrator.result import ExperimentResult
from orchestrator.storing import judged_by, store_of

OUT = Path("benchmarks/out")
STORE = f"store={{folder: {OUT / 'store'}, encoding: float32}}"
VIEWS = (1, 2, 4, 8)
MEANS = ("mean_losses", "mean_logits", "mean_probabilities")

Found = dict[str, dict[str, float]]


def train_and_score(
    spec: StudentSpec, store: StoreSpec, claims: Any, dataset: SharedDataset, test: SharedDataset
) -> float:
    """The test accuracy of one student."""
    torch.set_num_threads(spec.resources.threads)
    teachers = LocalTeachers.load(spec.teachers)
    with (
        tempfile.TemporaryDirectory() as folder,
        StoredTeachers(store, spec.teachers, teachers, spec.teacher_names, SharedClaims(claims)) as source,
    ):
        trainer = StudentTrainer(spec, dataset.open(), source, Checkpoints(Folder(folder)))
        trainer.run()
    opened = test.open()
    rows, ids = evaluation_rows(opened, spec.data), np.arange(len(opened))
    model = trainer.student.eval()
    return score_rows(model, spec.model.input, rows, ids, spec.num_classes, torch.device("cpu"))["accuracy"]


def settings(rows: str, teachers: tuple[str, ...]) -> dict[str, list[str]]:
    """The overrides of each row. Where views or encodings are compared, all else is the recipe's."""
    if rows == "views":
        bounded = {f"{count} view{'s' * (count > 1)}": [f"data.num_views={count}"] for count in VIEWS}
        return {**bounded, "a new view each epoch": ["data.num_views=fresh"]}
    if rows == "encodings":
        return {name: [f"store.encoding={name}"] for name in get_args(EncodingName)}
    singles = {f"from {name}": [f"losses.soft.teachers=[{name}]"] for name in teachers}
    together = {f"from all, {mean.replace('_', ' of ')}": [f"losses.soft.ensemble={mean}"] for mean in MEANS}
    return {"alone": [], **singles, **together}


def measure(recipe: str, seeds: int, rows: str) -> Found:
    """Test accuracy by row and seed, and the teachers' own; every number is written as it comes."""
    experiment = Experiment.from_yaml(recipe, [f"storage={OUT / 'runs'}", "student.alone=false"])
    result = experiment.run()
    teachers = with_weights(experiment, result)
    file = _file(f"{Path(recipe).stem}-{rows}", experiment, teachers)
    found: Found = json.loads(file.read_text()) if file.is_file() else {}
    for model in result.models:
        if model.role in ("teacher", "ensemble"):
            found[model.name if model.role == "ensemble" else f"teacher {model.name}"] = {"0": model.accuracy}
    data = experiment.config.data.spec()
    dataset, test = data.train.build(), SharedDataset.of(data.test.build())
    shared, test = ray.put(SharedDataset.of(dataset)), ray.put(test)
    training, claims = ray.remote(train_and_score).options(num_cpus=1), start_claims()
    wanted = [
        (row, seed, overrides)
        for seed in map(str, range(seeds))
        for row, overrides in settings(rows, tuple(teachers)).items()
        if seed not in found.get(row, {})
    ]
    under_way: dict[ray.ObjectRef, tuple[str, str]] = {}
    while wanted or under_way:
        while wanted and len(under_way) < (os.cpu_count() or 1):
            row, seed, overrides = wanted.pop(0)
            config = ExperimentConfig.from_yaml(recipe, [STORE, f"seed={seed}", *overrides])
            spec = _student(config, "alone" if row == "alone" else "student", experiment, teachers)
            store = store_of(config, dataset)
            assert store is not None
            task = training.remote(spec, judged_by(store, spec.teachers), claims, shared, test)
            under_way[task] = (row, seed)
        [done], _ = ray.wait(list(under_way))
        row, seed = under_way.pop(done)
        found.setdefault(row, {})[seed] = ray.get(done)
        file.write_text(json.dumps(found, indent=1))
        print(f"{row}, seed {seed}: {found[row][seed]:.2%}", flush=True)
    return found


def _file(name: str, experiment: Experiment, teachers: Mapping[str, TeacherSpec]) -> Path:
    """Where numbers of this very config and these very weights of the teachers are kept."""
    hashes = {name: file_hash(spec.weights) for name, spec in teachers.items()}
    return OUT / f"{name}-{content_hash([experiment.config.to_yaml(), hashes])[:8]}.json"


def print_table(found: Found, title: str) -> None:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("test accuracy, %", "mean", "deviation", "standard error", "seeds"):
        table.add_column(heading)
    for row, by_seed in sorted(found.items(), key=lambda item: statistics.mean(item[1].values())):
        values = [100 * value for value in by_seed.values()]
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        error = deviation / len(values) ** 0.5
        table.add_row(row, f"{statistics.mean(values):.2f}", f"{deviation:.2f}", f"{error:.2f}", str(len(values)))
    Console(width=120).print(table)


def with_weights(experiment: Experiment, result: ExperimentResult) -> dict[str, TeacherSpec]:
    weights = {model.name: model.weights for model in result.models if model.role == "teacher"}
    found = experiment.findings.teachers
    return {name: replace(found[name], weights=str(path)) for name, path in weights.items()}


def _student(
    config: ExperimentConfig, role: str, experiment: Experiment, teachers: Mapping[str, TeacherSpec]
) -> StudentSpec:
    [rung] = [rung for rung in ladder(config) if rung.role == role]
    return rung.spec(config.data.spec(), config.data.validation, experiment.findings.num_classes, teachers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="orchestrator/recipes/fashion_accuracy.yaml")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", default="teachers", choices=("teachers", "views", "encodings"))
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    with connected(None, Experiment.from_yaml(arguments.recipe).check().side_by_side):
        found = measure(arguments.recipe, arguments.seeds, arguments.rows)
    print_table(found, Path(arguments.recipe).stem)


if __name__ == "__main__":
    main()

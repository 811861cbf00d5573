"""What distillation gains on Fashion-MNIST: alone, from each teacher, from three means of all; mean and spread over
seeds.

Run by `make accuracy`. One experiment trains the teachers and scores them; then every row and seed is a student of its
own. The rows share what the teachers said: their answers to all (sample, view) are computed once, which changes no
student, since one source cannot be told from another. What is done is kept in benchmarks/out, so that an interrupted
benchmark goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import ray
import torch
from rich.console import Console
from rich.table import Table

from actors.checkpoints import Checkpoints
from actors.data import SharedDataset, evaluation_rows, slice_ids, training_rows
from actors.fingerprints import content_hash
from actors.knowledge import Batch, Knowledge, KnowledgeRequest, TeacherRequest
from actors.scoring import score_rows
from actors.serving import ServingLog
from actors.sources import Given, LocalTeachers
from actors.specs import DataSpec, StudentSpec, TeacherSpec
from actors.storage import Folder
from actors.student import StudentTrainer
from orchestrator.cluster import connected
from orchestrator.config import ExperimentConfig
from orchestrator.experiment import Experiment
from orchestrator.identity import file_hash
from orchestrator.ladder import ladder
from orchestrator.result import ExperimentResult

OUT = Path("benchmarks/out")
MEANS = ("mean_losses", "mean_logits", "mean_probabilities")
ROWS_AT_ONCE = 128

Found = dict[str, dict[str, float]]


class Remembered:
    """A TeacherSource over answers that were computed before: logits and digests by view and place of the id."""

    likes_ahead = 1

    def __init__(self, ids: np.ndarray, logits: Mapping[str, np.ndarray], digests: np.ndarray) -> None:
        self.log = ServingLog()
        self._ids, self._logits, self._digests = ids, logits, digests

    def ask(self, batch: Batch, request: KnowledgeRequest) -> Given:
        places = (batch.views, np.searchsorted(self._ids, batch.ids))
        digests = self._digests[places]
        answers = {name: torch.from_numpy(logits[places]) for name, logits in self._logits.items()}
        return Given([Knowledge(one.teacher, answers[one.teacher], digests=digests) for one in request])


def remember(
    spec: TeacherSpec, dataset: SharedDataset, data: DataSpec, ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One teacher's logits (views, ids, classes) and the digests of what it judged (views, ids)."""
    torch.set_num_threads(1)
    rows, teacher = training_rows(dataset.open(), data), LocalTeachers.load([spec])
    logits, digests = [], []
    for view in range(data.num_views or 0):
        for piece in np.array_split(ids, max(1, len(ids) // ROWS_AT_ONCE)):
            views = np.full(len(piece), view, dtype=np.int32)
            batch = Batch(piece, views, *rows.build(piece, views))
            [knowledge] = teacher.ask(batch, (TeacherRequest(spec.name),)).result()
            logits.append(knowledge.tensors["logits"].numpy())
            digests.append(batch.digests)
    shape = (data.num_views or 0, len(ids))
    return np.concatenate(logits).reshape(*shape, -1), np.concatenate(digests).reshape(shape)


def train_and_score(spec: StudentSpec, dataset: SharedDataset, test: SharedDataset, source: Remembered) -> float:
    """The test accuracy of one student."""
    torch.set_num_threads(spec.resources.threads)
    with tempfile.TemporaryDirectory() as folder:
        trainer = StudentTrainer(spec, dataset.open(), source, Checkpoints(Folder(folder)))
        trainer.run()
    opened = test.open()
    rows, ids = evaluation_rows(opened, spec.data), np.arange(len(opened))
    model = trainer.student.eval()
    return score_rows(model, spec.model.input, rows, ids, spec.num_classes, torch.device("cpu"))["accuracy"]


def settings(teachers: tuple[str, ...]) -> dict[str, list[str]]:
    """The overrides of each row."""
    singles = {f"from {name}": [f"losses.soft.teachers=[{name}]"] for name in teachers}
    together = {f"from all, {mean.replace('_', ' of ')}": [f"losses.soft.ensemble={mean}"] for mean in MEANS}
    return {"alone": [], **singles, **together}


def measure(recipe: str, seeds: int) -> Found:
    """Test accuracy by row and seed, and the teachers' own; every number is written as it comes."""
    experiment = Experiment.from_yaml(recipe, [f"storage={OUT / 'runs'}", "student.alone=false"])
    result = experiment.run()
    teachers = with_weights(experiment, result)
    file = _file(Path(recipe).stem, experiment, teachers)
    found: Found = json.loads(file.read_text()) if file.is_file() else {}
    for model in result.models:
        if model.role in ("teacher", "ensemble"):
            found[model.name if model.role == "ensemble" else f"teacher {model.name}"] = {"0": model.accuracy}
    data = experiment.config.data.spec()
    dataset, test = data.train.build(), SharedDataset.of(data.test.build())
    shared = ray.put(SharedDataset.of(dataset))
    ids = slice_ids(data.slices, len(dataset), data.seed)[experiment.config.student.data.labelled]
    source = ray.put(_remembered(teachers, shared, data, ids))
    training = ray.remote(train_and_score).options(num_cpus=1)
    under_way = {}
    for seed in map(str, range(seeds)):
        for row, overrides in settings(tuple(teachers)).items():
            if seed not in found.get(row, {}):
                config = ExperimentConfig.from_yaml(recipe, [f"seed={seed}", *overrides])
                spec = _student(config, "alone" if row == "alone" else "student", experiment, teachers)
                under_way[training.remote(spec, shared, ray.put(test), source)] = (row, seed)
    while under_way:
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


def _remembered(
    teachers: Mapping[str, TeacherSpec], dataset: ray.ObjectRef, data: DataSpec, ids: np.ndarray
) -> Remembered:
    asking = ray.remote(remember).options(num_cpus=1)
    answers = ray.get([asking.remote(spec, dataset, data, ids) for spec in teachers.values()])
    logits = {name: logits for name, (logits, _) in zip(teachers, answers, strict=True)}
    return Remembered(ids, logits, answers[0][1])


def _student(
    config: ExperimentConfig, role: str, experiment: Experiment, teachers: Mapping[str, TeacherSpec]
) -> StudentSpec:
    [rung] = [rung for rung in ladder(config) if rung.role == role]
    return rung.spec(config.data.spec(), config.data.validation, experiment.findings.num_classes, teachers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="orchestrator/recipes/fashion_accuracy.yaml")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    with connected(None, Experiment.from_yaml(arguments.recipe).check().side_by_side):
        found = measure(arguments.recipe, arguments.seeds)
    print_table(found, Path(arguments.recipe).stem)


if __name__ == "__main__":
    main()

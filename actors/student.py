"""A student in training, plain torch: one rung on one worker of a group. Imports no Ray.

`Worker` says which of the group this is; `StudentTrainer` trains, checkpoints and goes on from a checkpoint with the
same steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from actors.checkpoints import Checkpoints
from actors.criterion import Criterion, Distillation, Targets
from actors.data import (
    NO_LABEL,
    BatchSampler,
    evaluation_rows,
    refuse_strange_labels,
    slice_ids,
    training_rows,
)
from actors.features import TappedModel
from actors.inputs import prepare
from actors.knowledge import Batch, Knowledge
from actors.probe import probe_shapes
from actors.progress import Pace, Progress, Report, Stopwatch
from actors.randomness import seed_everything, step_seed
from actors.schedules import build_scheduler
from actors.scoring import score_rows
from actors.sources import TeacherSource, prefetched
from actors.specs import StudentSpec
from actors.training_state import TrainingState, refuse_idle_terms, refuse_unbounded_terms
from actors.views import MapDataset
from actors.weights import weights_as_bytes

REPORT_EVERY_S = 0.5


@dataclass(frozen=True)
class Worker:
    """One of a group of student workers."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


class StudentTrainer:
    """Trains `spec` from its checkpoint, or from the start, to its last epoch."""

    def __init__(
        self,
        spec: StudentSpec,
        dataset: MapDataset,
        source: TeacherSource,
        checkpoints: Checkpoints,
        *,
        worker: Worker | None = None,
        report: Report = lambda progress: None,
    ) -> None:
        self.spec = spec
        self.worker = worker or Worker()
        self._source = source
        self._checkpoints = checkpoints
        self._report = report
        self._keys = {loss.name: loss.key for loss in spec.losses}
        self._rows = training_rows(dataset, spec.data)
        self._sampler, self._validation = _slices(spec, dataset, self.worker)
        self._validation_rows = evaluation_rows(dataset, spec.data)
        self._distillation = build_distillation(spec, self._one_input()).to(self.worker.device)
        self._parallel = _in_parallel(self._distillation, self.worker)
        self._optimizer = spec.recipe.optimizer.build(self._distillation.parameters())
        self._scheduler = build_scheduler(spec.recipe, self._optimizer, self._sampler.steps_per_epoch)
        self.state = self._restored()
        self._stopwatch = Stopwatch(self.state.seconds)
        self._reported_s = 0.0
        self._pace = Pace()

    @property
    def student(self) -> nn.Module:
        return self._distillation.student.model

    def run(self) -> TrainingState:
        for epoch in range(self.state.position.epoch, self.spec.recipe.epochs):
            self._train_epoch(epoch)
            with self._stopwatch("evaluation"):
                metrics = self._evaluate()
            self._finish_epoch(epoch, metrics)
        return self.state

    def _train_epoch(self, epoch: int) -> None:
        self._distillation.train()
        positions = self._sampler.positions(self.state.position, epoch)
        batches = self._sampler.batches(self._rows, positions)
        request = self._distillation.criterion.request
        window = self.spec.window
        stream = prefetched(self._source, batches, lambda b: request(b.position.epoch), window, self._stopwatch)
        for batch, knowledge in stream:
            self.state.account(batch, knowledge, self._train_step(batch, knowledge))
            every = self.spec.recipe.checkpoint_every_steps
            if every and self.state.steps_done % every == 0:
                self._average_terms()
                self._save()
            self._tell(epoch)

    def _train_step(self, batch: Batch, knowledge: list[Knowledge]) -> dict[str, float]:
        recipe = self.spec.recipe
        seed_everything(step_seed(recipe.seed, batch.position, self.worker.rank))
        refuse_strange_labels("data.train", batch.ids, batch.labels, self.spec.num_classes, lowest=NO_LABEL)
        with self._stopwatch("forward"):
            total, terms = self._forward(batch, knowledge)
        with self._stopwatch("backward"):
            self._optimizer.zero_grad(set_to_none=True)
            total.backward()
            if recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(self._distillation.parameters(), recipe.clip_norm)
            self._optimizer.step()
            if self._scheduler is not None and recipe.scheduler_every == "step":
                self._scheduler.step()
        values = {name: float(value) for name, value in terms.items()}
        refuse_unbounded_terms(values, self._keys, batch.position)
        return values

    def _forward(self, batch: Batch, knowledge: list[Knowledge]) -> tuple[Tensor, dict[str, Tensor]]:
        device = self.worker.device
        inputs = {name: tensor.to(device) for name, tensor in batch.inputs.items()}
        targets = Targets(
            labels=batch.labels.to(device),
            ids=torch.from_numpy(batch.ids).to(device),
            knowledge={one.teacher: one.to(device) for one in knowledge},
        )
        prepared = prepare(inputs, self.spec.model.input, f"{self.spec.name}.input")
        with torch.autocast(device.type, torch.bfloat16, enabled=self.spec.recipe.precision == "bf16"):
            return self._parallel(prepared, targets, batch.position.epoch)

    def _evaluate(self) -> dict[str, float]:
        if self.worker.world_size > 1:
            for buffer in self._distillation.buffers():
                torch.distributed.broadcast(buffer, src=0)
        model = self._distillation.student.model.eval()
        return score_rows(
            model,
            self.spec.model.input,
            self._validation_rows,
            self._validation,
            self.spec.num_classes,
            self.worker.device,
        )

    def _finish_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        if self._scheduler is not None and self.spec.recipe.scheduler_every == "epoch":
            self._scheduler.step()
        self._average_terms()
        terms = self.state.mean_terms
        refuse_idle_terms(terms, self._keys, self._first_epochs(epoch))
        self.state.finish_epoch({"epoch": epoch, "terms": terms, **metrics, "seconds": self._stopwatch.total})
        with self._stopwatch("checkpoint"):
            self._save()
        if self.worker.rank == 0:
            self._report(self._progress(epoch, terms, metrics["accuracy"], self._sampler.steps_per_epoch))

    def _first_epochs(self, epoch: int) -> set[str]:
        criterion = self._distillation.criterion
        return set(criterion.active(epoch)) - {name for earlier in range(epoch) for name in criterion.active(earlier)}

    def _average_terms(self) -> None:
        if self.worker.world_size > 1:
            sums = torch.tensor(list(self.state.terms.values()), dtype=torch.float64, device=self.worker.device)
            torch.distributed.all_reduce(sums)
            means = (sums / self.worker.world_size).tolist()
            self.state.terms = dict(zip(self.state.terms, means, strict=True))

    def _tell(self, epoch: int) -> None:
        if self.worker.rank == 0 and time.monotonic() - self._reported_s > REPORT_EVERY_S:
            self._reported_s = time.monotonic()
            if self.state.position.step < self._sampler.steps_per_epoch:
                self._report(self._progress(epoch, self.state.mean_terms, None, self.state.position.step))

    def _progress(self, epoch: int, terms: dict[str, float], accuracy: float | None, step: int) -> Progress:
        steps = self._sampler.steps_per_epoch
        per_step = self._pace(self._stopwatch.total, self.state.steps_done)
        steps_left = self.spec.recipe.epochs * steps - epoch * steps - step
        return Progress(
            rung=self.spec.name,
            epoch=epoch,
            epochs=self.spec.recipe.epochs,
            step=step,
            steps=steps,
            terms=terms,
            accuracy=accuracy,
            images_per_s=self.state.rows_trained * self.worker.world_size / max(1e-9, self._stopwatch.total),
            shares=self._stopwatch.shares,
            left_s=None if per_step is None else per_step * steps_left,
        )

    def _save(self) -> None:
        self.state.seconds = dict(self._stopwatch.seconds)
        if self.worker.rank == 0:
            parts = {name: part.state_dict() for name, part in self._parts().items()}
            self._checkpoints.save(self.state.steps_done, {**parts, "state": self.state.saved()})

    def _parts(self) -> dict[str, Any]:
        parts = {"distillation": self._distillation, "optimizer": self._optimizer}
        return parts if self._scheduler is None else {**parts, "scheduler": self._scheduler}

    def _restored(self) -> TrainingState:
        saved = self._checkpoints.latest()
        if saved is None:
            return TrainingState()
        for name, part in self._parts().items():
            part.load_state_dict(saved[name])
        return TrainingState.restored(saved["state"])

    def _one_input(self) -> Tensor:
        inputs, _ = self._rows.build(self._sampler.labelled[:1], np.zeros(1, dtype=np.int32))
        return prepare(inputs, self.spec.model.input, f"{self.spec.name}.input")

    def exported(self) -> bytes:
        """The bare student's weights as a safetensors file."""
        return weights_as_bytes(self.student)


def build_distillation(spec: StudentSpec, one_input: Tensor) -> Distillation:
    """The student and its criterion, their first weights drawn from the recipe's seed: the student's first, so that
    they do not depend on the losses."""
    torch.manual_seed(spec.recipe.seed)
    model = spec.model.model.build()
    shapes = probe_shapes(model, spec.model.taps, one_input, spec.name)
    torch.manual_seed(spec.recipe.seed + 1)
    criterion = Criterion(spec.losses, shapes, spec.teachers)
    return Distillation(TappedModel(model, spec.model.taps, f"{spec.name}.taps"), criterion)


def _slices(spec: StudentSpec, dataset: MapDataset, worker: Worker) -> tuple[BatchSampler, np.ndarray]:
    slices = slice_ids(spec.data.slices, len(dataset), spec.data.seed)
    nothing = np.zeros(0, dtype=np.int64)
    labelled = slices[spec.labelled]
    sampler = BatchSampler(
        np.resize(labelled, spec.rows_per_epoch or len(labelled)),
        slices[spec.unlabelled] if spec.unlabelled else nothing,
        spec.recipe.batch_size,
        spec.recipe.seed,
        spec.data.num_views,
        worker.rank,
        worker.world_size,
    )
    return sampler, slices[spec.validation][worker.rank :: worker.world_size]


def _in_parallel(distillation: Distillation, worker: Worker) -> Callable[..., Any]:
    """`find_unused_parameters` keeps DDP from rebuilding its buckets after the first step, so that a resumed run sums
    gradients in the same order as an undisturbed one."""
    if worker.world_size == 1:
        return distillation
    device_ids = [worker.device] if worker.device.type == "cuda" else None
    return DistributedDataParallel(distillation, device_ids=device_ids, find_unused_parameters=True)

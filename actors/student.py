"""A student in training, plain torch: one rung on one worker of a group. Imports no Ray.

`StudentTrainer` trains, checkpoints and goes on from a checkpoint with the same steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from actors.checkpoints import Checkpoints
from actors.data import (
    NO_LABEL,
    BatchSampler,
    RememberedRows,
    refuse_strange_labels,
    slice_ids,
    training_rows,
)
from actors.distillation import averaged, build_distillation, in_parallel
from actors.inputs import prepare
from actors.knowledge import Batch, Knowledge
from actors.progress import Pace, Progress, Report, Stopwatch
from actors.randomness import seed_everything, step_seed
from actors.schedules import build_scheduler
from actors.scoring import score_rows
from actors.sources import TeacherSource, prefetched
from actors.specs import StudentSpec
from actors.term import Targets
from actors.training_state import (
    Numbers,
    TrainingState,
    by_loss,
    refuse_idle_terms,
    refuse_unbounded_terms,
    weight_name,
)
from actors.views import MapDataset
from actors.weights import weights_as_bytes
from actors.worker import Worker

REPORT_EVERY_S = 0.5
REMEMBERED_BYTES = 64 * 2**20


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
        show: Callable[[Mapping[str, Any]], None] = lambda timeline: None,
    ) -> None:
        self.spec = spec
        self.worker = worker or Worker()
        self._source = source
        self._checkpoints = checkpoints
        self._report = report
        self._show = show
        self._shown_epoch = min(1, spec.recipe.epochs - 1)
        self._keys = {loss.name: loss.key for loss in spec.losses}
        self._rows = training_rows(dataset, spec.data)
        self._sampler, self._validation = _slices(spec, dataset, self.worker)
        self._validation_rows = RememberedRows(dataset, spec.data, REMEMBERED_BYTES)
        self._distillation = build_distillation(spec, self._one_input()).to(self.worker.device)
        self._parallel = in_parallel(self._distillation, self.worker.world_size, self.worker.device)
        decay = spec.recipe.ema
        self._average = None if decay is None else averaged(self._distillation.student.model, decay)
        self._optimizer = spec.recipe.optimizer.build(self._distillation.parameters())
        self._scheduler = build_scheduler(spec.recipe, self._optimizer, self._sampler.steps_per_epoch)
        self.state = self._restored()
        self._stopwatch = Stopwatch(self.state.seconds)
        self._epoch_began_s = self._stopwatch.total
        self._reported_s = 0.0
        self._pace = Pace()

    @property
    def student(self) -> nn.Module:
        """The model that is evaluated and exported."""
        return self._distillation.student.model if self._average is None else self._average.module

    def run(self) -> TrainingState:
        stream = self._stream()
        for epoch in range(self.state.position.epoch, self.spec.recipe.epochs):
            self._train_epoch(epoch, stream)
            with self._stopwatch("evaluation"):
                metrics = self._evaluate()
            self._finish_epoch(epoch, metrics)
        return self.state

    def _stream(self) -> Iterator[tuple[Batch, list[Knowledge]]]:
        """All batches to come: while one epoch is evaluated, teachers work for the next."""
        start = self.state.position
        epochs = range(start.epoch, self.spec.recipe.epochs)
        positions = chain.from_iterable(self._sampler.positions(start, epoch) for epoch in epochs)
        batches = self._sampler.batches(self._rows, positions)
        request = self._distillation.criterion.request
        return prefetched(
            self._source, batches, lambda b: request(b.labels, b.position), self.spec.window, self._stopwatch
        )

    def _train_epoch(self, epoch: int, stream: Iterator[tuple[Batch, list[Knowledge]]]) -> None:
        self._distillation.train()
        if epoch == self._shown_epoch:
            self._source.log.record(epoch)
        steps = self._sampler.steps_per_epoch - self.state.position.step
        for batch, knowledge in islice(stream, steps):
            began, start = time.time(), time.perf_counter()
            self.state.account(batch, knowledge, *self._train_step(batch, knowledge))
            self._source.log.step(began, time.perf_counter() - start)
            every = self.spec.recipe.checkpoint_every_steps
            if every and self.state.steps_done % every == 0:
                self._average_terms()
                self._save()
            self._tell(epoch)

    def _train_step(self, batch: Batch, knowledge: list[Knowledge]) -> tuple[Numbers, Numbers]:
        """The value of each loss, and the weight of each teacher in it as `loss/teacher`."""
        recipe = self.spec.recipe
        seed_everything(step_seed(recipe.seed, batch.position, self.worker.rank))
        for labels in (batch.labels, *([batch.mixtures.partner_labels] if batch.mixtures else [])):
            refuse_strange_labels("data.train", batch.ids, labels, self.spec.num_classes, lowest=NO_LABEL)
        with self._stopwatch("forward"):
            total, terms, weights = self._forward(batch, knowledge)
        with self._stopwatch("backward"):
            self._optimizer.zero_grad(set_to_none=True)
            total.backward()
            if recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(self._distillation.parameters(), recipe.clip_norm)
            self._optimizer.step()
            if self._scheduler is not None and recipe.scheduler_every == "step":
                self._scheduler.step()
            if self._average is not None:
                self._average.update_parameters(self._distillation.student.model)
        values = {name: float(value) for name, value in terms.items()}
        refuse_unbounded_terms(values, self._keys, batch.position)
        return values, self._named(weights)

    def _named(self, weights: dict[str, Tensor]) -> Numbers:
        return {
            weight_name(loss.name, teacher): weight
            for loss in self.spec.losses
            if loss.name in weights
            for teacher, weight in zip(loss.teachers, weights[loss.name].tolist(), strict=True)
        }

    def _forward(self, batch: Batch, knowledge: list[Knowledge]) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        device = self.worker.device
        inputs = {name: tensor.to(device) for name, tensor in batch.inputs.items()}
        targets = Targets(
            labels=batch.labels.to(device),
            ids=torch.from_numpy(batch.ids).to(device),
            knowledge={one.teacher: one.to(device) for one in knowledge},
            position=batch.position,
            mixtures=batch.mixtures and batch.mixtures.to(device),
        )
        prepared = prepare(inputs, self.spec.model.input, f"{self.spec.name}.input")
        with torch.autocast(device.type, torch.bfloat16, enabled=self.spec.recipe.precision == "bf16"):
            return self._parallel(prepared, targets)

    def _evaluate(self) -> dict[str, float]:
        averaged_too = () if self._average is None else self._average.module.buffers()
        self.worker.take_over((*self._distillation.buffers(), *averaged_too))
        return score_rows(
            self.student.eval(),
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
        record = {
            "epoch": epoch,
            "terms": terms,
            "weights": by_loss(self.state.mean_weights),
            "serving": self._serving(epoch),
            **metrics,
            "seconds": self._stopwatch.total,
            "shares": self._stopwatch.shares,
            "images_per_s": self._images_per_s,
        }
        self.state.finish_epoch(record)
        with self._stopwatch("checkpoint"):
            self._save()
        if self.worker.rank == 0:
            done = self._progress(epoch, terms, metrics["accuracy"], self._sampler.steps_per_epoch)
            self._report(replace(done, record=record))

    def _serving(self, epoch: int) -> list[dict[str, Any]]:
        """How each teacher served each worker in this epoch, by rank; nothing where nobody teaches."""
        if not self.spec.teachers:
            return []
        own = self._source.log.summary(self._stopwatch.total - self._epoch_began_s)
        self._epoch_began_s = self._stopwatch.total
        if epoch == self._shown_epoch:
            self._show(self._source.log.timeline())
        return self.worker.of_all(own)

    def _first_epochs(self, epoch: int) -> set[str]:
        criterion = self._distillation.criterion
        return set(criterion.active(epoch)) - {name for earlier in range(epoch) for name in criterion.active(earlier)}

    def _average_terms(self) -> None:
        self.state.terms = self.worker.mean(self.state.terms)
        self.state.weights = self.worker.mean(self.state.weights)

    @property
    def _images_per_s(self) -> float:
        return self.state.rows_trained * self.worker.world_size / max(1e-9, self._stopwatch.total)

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
            images_per_s=self._images_per_s,
            waited={teacher: s / self._stopwatch.total for teacher, s in self._source.log.waited_s.items()},
            left_s=None if per_step is None else per_step * steps_left,
        )

    def _save(self) -> None:
        self.state.seconds = dict(self._stopwatch.seconds)
        if self.worker.rank == 0:
            parts = {name: part.state_dict() for name, part in self._parts().items()}
            self._checkpoints.save(self.state.steps_done, {**parts, "state": self.state.saved()})

    def _parts(self) -> dict[str, Any]:
        parts = {
            "distillation": self._distillation,
            "optimizer": self._optimizer,
            "scheduler": self._scheduler,
            "average": self._average,
        }
        return {name: part for name, part in parts.items() if part is not None}

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
        """The student's weights as a safetensors file."""
        return weights_as_bytes(self.student)


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

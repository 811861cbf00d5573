"""A student in training, for the benchmarks: one loop over Collegium's own parts, whatever the source of knowledge.

`student_spec` says what is trained and by which criterion, `distilled` trains it; `Constant` is a source that costs
nothing. Imports no Ray.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch

from actors.distillation import Distillation, build_distillation
from actors.inputs import prepare
from actors.knowledge import Batch, Knowledge, KnowledgeRequest
from actors.serving import ServingLog
from actors.sources import Given, LocalTeachers, TeacherSource, prefetched
from actors.specs import ImportSpec, LossSpec, ModelSpec, RecipeSpec, StudentSpec, TapPair, TeacherSpec, WeightSpec
from actors.term import Targets
from benchmarks.fashion import BATCH, DATA, INPUT

TAPS = ("stage1", "stage2")
TEMPERATURE = 4.0
HARD_WEIGHT, SOFT_WEIGHT, MAP_WEIGHT = 0.1, 0.9, 100.0
LEARNING_RATE, MOMENTUM = 0.01, 0.9
SEED = 0


def student_model(width: int) -> ModelSpec:
    """Its taps: maps of 14 x 14 and of 7 x 7."""
    return ModelSpec(ImportSpec("actors.models:tiny_cnn", {"width": width}), INPUT, {tap: tap for tap in TAPS})


def student_spec(
    width: int, teachers: Sequence[TeacherSpec], *, maps: bool, reduce: Literal["teacher", "student"]
) -> StudentSpec:
    return StudentSpec(
        name="student",
        model=student_model(width),
        recipe=RecipeSpec(
            epochs=1,
            batch_size=BATCH,
            seed=SEED,
            optimizer=ImportSpec("torch.optim:SGD", {"lr": LEARNING_RATE, "momentum": MOMENTUM}),
        ),
        data=DATA,
        labelled="student",
        unlabelled=None,
        validation="student",
        num_classes=10,
        losses=criterion(tuple(teacher.name for teacher in teachers), maps=maps, reduce=reduce),
        teachers=tuple(teachers),
    )


def criterion(teachers: tuple[str, ...], *, maps: bool, reduce: Literal["teacher", "student"]) -> tuple[LossSpec, ...]:
    """Labels, the mean of all teachers' logits and, with `maps`, attention at two taps of each teacher."""
    on_logits = (
        LossSpec(
            "hard", ImportSpec("actors.losses:cross_entropy_loss"), "labels", WeightSpec(HARD_WEIGHT, HARD_WEIGHT)
        ),
        LossSpec(
            "soft",
            ImportSpec("actors.losses:kd_loss", {"temperature": TEMPERATURE}),
            "logits",
            WeightSpec(SOFT_WEIGHT, SOFT_WEIGHT),
            teachers,
            ImportSpec("actors.ensemble:mean_logits"),
        ),
    )
    attention = ImportSpec("actors.losses:attention_transfer_loss")
    on_maps = tuple(
        LossSpec(tap, attention, TapPair(tap, tap), WeightSpec(MAP_WEIGHT, MAP_WEIGHT), teachers, reduce=reduce)
        for tap in TAPS
    )
    return on_logits + on_maps if maps else on_logits


class Constant:
    """A TeacherSource that says of every batch what the teachers said of one, at no cost."""

    likes_ahead = 1

    def __init__(self, teachers: Sequence[TeacherSpec], batch: Batch) -> None:
        self.log = ServingLog()
        self._teachers, self._batch = LocalTeachers.load(teachers), batch
        self._said: dict[KnowledgeRequest, list[Knowledge]] = {}

    def ask(self, batch: Batch, request: KnowledgeRequest) -> Given:
        if request not in self._said:
            self._said[request] = self._teachers.ask(self._batch, request).result()
        return Given(self._said[request])


def distilled(
    spec: StudentSpec, batches: Iterable[Batch], source: TeacherSource, window: int | None
) -> Iterator[float]:
    """Trains; each item is the loss of a step, and takes that step."""
    distillation = build_distillation(spec, torch.zeros(1, 1, 28, 28)).train()
    optimizer = spec.recipe.optimizer.build(distillation.parameters())
    request = distillation.criterion.request
    for batch, knowledge in prefetched(source, batches, lambda one: request(one.labels, one.position), window):
        loss = _loss(distillation, batch, knowledge)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        yield loss.item()


def _loss(distillation: Distillation, batch: Batch, knowledge: Sequence[Knowledge]) -> torch.Tensor:
    by_teacher = {one.teacher: one for one in knowledge}
    targets = Targets(batch.labels, torch.from_numpy(batch.ids), by_teacher, batch.position)
    loss, _, _ = distillation(prepare(batch.inputs, INPUT), targets)
    return loss

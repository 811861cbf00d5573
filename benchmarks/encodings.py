"""Bytes of a row in a store, and what its encoding changes in the loss, beside TinyViT's format."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from actors.inputs import prepare
from actors.knowledge import LOGITS, TeacherRequest
from actors.losses import kd_loss
from actors.sources import LocalTeachers
from actors.specs import EncodingName
from actors.store.encodings import Encoding
from actors.store.shard import Rows, packed
from actors.top_k import rebuilt, top_k
from actors.weights import fit_weights, read_weights
from benchmarks.demo import WIDTH, Demo
from benchmarks.sidebyside import Goal, Ratio, show
from benchmarks.students import student_model
from benchmarks.tinyvit import TinyVit

TEMPERATURES = (1.0, 2.0, 4.0)
WHOLE: tuple[EncodingName, ...] = ("float32", "float16", "bfloat16", "int16", "int8")
OF_PARTS: tuple[EncodingName, ...] = ("float16", "int16", "int8")
KS = (8, 16, 32, 64, 96, 100, 112, 128)
OWN_BYTES = 16
"""Id, view and digest: 4, 4 and 8."""
TINYVIT = "TinyViT: top 100"
PEAKED, FLAT = "synthetic, peaked", "synthetic, flat"
HEADS = {PEAKED: 14.0, FLAT: 7.0}
EXPONENT, NOISE = 0.5, 1.0
STUDENT_SHARE, STUDENT_NOISE = 0.9, 0.7


@dataclass(frozen=True)
class Case:
    """Logits of teachers and of a student on the same rows."""

    what: str
    teacher: Tensor
    student: Tensor

    @property
    def num_classes(self) -> int:
        return self.teacher.shape[1]


@dataclass(frozen=True)
class Measured:
    """`bytes_per_row`: all of it; `in_file`: the same of a real file, without TinyViT; `errors`: by temperature."""

    case: str
    num_classes: int
    encoding: str
    bytes_per_row: int
    in_file: float | None
    errors: Mapping[float, float]

    def beats(self, other: Measured, temperature: float) -> bool:
        return self.bytes_per_row < other.bytes_per_row and self.errors[temperature] < other.errors[temperature]


Parts = Sequence[Tensor]


@dataclass(frozen=True)
class Format:
    """How rows of logits are kept: `made` of them are tensors, each with an encoding; `read` from these."""

    name: str
    made: Callable[[Tensor], Parts]
    encodings: Callable[[Parts], Sequence[Encoding]]
    read: Callable[[Parts], Tensor]

    def decoded(self, logits: Tensor) -> Tensor:
        parts = self.made(logits)
        several = zip(parts, self.encodings(parts), strict=True)
        return self.read([encoding.decode(encoding.encode(part)) for part, encoding in several])

    def bytes_per_row(self, logits: Tensor) -> int:
        return sum(OWN_BYTES + one.bytes_per_row for one in self.encodings(self.made(logits[:1])))

    def bytes_in_files(self, logits: Tensor, rows: int) -> float:
        """Of a row, in files of so many."""
        parts = self.made(logits[np.arange(rows) % len(logits)])
        several = zip(parts, self.encodings(parts), strict=True)
        keys, digests = np.arange(rows, dtype=np.uint64) << np.uint64(32), np.zeros(rows, dtype=np.uint64)
        files = (packed(Rows(keys, digests, one.encode(part)), one, "{}") for part, one in several)
        return sum(map(len, files)) / rows


def encodings_of(name: EncodingName, parts: Parts) -> list[Encoding]:
    """Whole numbers stay what they are."""
    return [Encoding(name, tuple(part.shape[1:]), str(part.dtype).removeprefix("torch.")) for part in parts]


def formats(num_classes: int) -> list[Format]:
    whole = [
        Format(name, lambda logits: [logits], partial(encodings_of, name), lambda parts: parts[0]) for name in WHOLE
    ]
    largest = [
        Format(
            f"top {k}, {name}",
            partial(top_k, k=k),
            partial(encodings_of, name),
            lambda parts: rebuilt(*parts, num_classes=num_classes),
        )
        for k in KS
        if k < num_classes
        for name in OF_PARTS
    ]
    return whole + largest


def relative_errors(case: Case, decoded: Tensor) -> dict[float, float]:
    """By temperature: how far a row's loss is off, in the mean, as a part of the mean loss."""
    found = {}
    for temperature in TEMPERATURES:
        loss = partial(kd_loss, case.student.double(), temperature=temperature, reduction="none")
        exact, kept = loss(case.teacher.double()), loss(decoded.double())
        found[temperature] = float((kept - exact).abs().mean() / exact.mean())
    return found


def of_case(case: Case, file_rows: int) -> list[Measured]:
    """TinyViT's first."""
    tinyvit = TinyVit(case.num_classes)
    decoded = tinyvit.decode(*tinyvit.encode(case.teacher))
    theirs = tinyvit.bytes_per_row, None, relative_errors(case, decoded)
    found = [Measured(case.what, case.num_classes, TINYVIT, *theirs)]
    for one in formats(case.num_classes):
        errors = relative_errors(case, one.decoded(case.teacher))
        in_file = one.bytes_in_files(case.teacher, file_rows)
        ours = one.bytes_per_row(case.teacher), in_file, errors
        found.append(Measured(case.what, case.num_classes, one.name, *ours))
    return found


def synthetic(what: str, num_classes: int, rows: int) -> Case:
    """Drawn: in each row the classes get ranks at random, and a class of rank r (from 0) the logit
    head * (1 - (r / classes) ** 0.5) + N(0, 1); the student's are 0.9 of these + N(0, 0.7 ** 2)."""
    dice = torch.Generator().manual_seed(num_classes)
    ranks = torch.rand(rows, num_classes, generator=dice).argsort(dim=1) / num_classes
    drawn = HEADS[what] * (1 - ranks**EXPONENT) + NOISE * torch.randn(rows, num_classes, generator=dice)
    student = STUDENT_SHARE * drawn + STUDENT_NOISE * torch.randn(rows, num_classes, generator=dice)
    return Case(what, drawn, student)


def of_demo(demo: Demo) -> Case:
    """All three teachers, and a student that has learned a little, on rows that none of them has learned from."""
    batch, teachers = demo.validation(), LocalTeachers.load(demo.teachers)
    said = teachers.ask(batch, tuple(TeacherRequest(teacher.name) for teacher in demo.teachers)).result()
    model = student_model(WIDTH)
    student = model.model.build()
    fit_weights(student, read_weights(demo.student, "student"), "student")
    with torch.no_grad():
        answers = student.eval()(prepare(batch.inputs, model.input))
    return Case("the demo's teachers", torch.cat([one.tensors[LOGITS] for one in said]), answers.repeat(len(said), 1))


def measure(demo: Demo, arguments: argparse.Namespace) -> tuple[list[Measured], list[Goal]]:
    cases = [of_demo(demo)]
    cases += [synthetic(what, classes, arguments.loss_rows) for classes in (100, 1000) for what in HEADS]
    found, goals = [], []
    for case in cases:
        measured = of_case(case, arguments.shard_file_rows)
        found += measured
        goals += show_case(case, measured)
    return found, goals


def show_case(case: Case, measured: Sequence[Measured]) -> list[Goal]:
    tinyvit, *ours = measured
    rows = []
    for one in measured:
        better = [f"{t:g}" for t in TEMPERATURES if one.beats(tinyvit, t)]
        errors = [f"{one.errors[t]:.2e}" for t in TEMPERATURES]
        in_file = "" if one.in_file is None else f"{one.in_file:.1f}"
        rows.append((one.encoding, str(one.bytes_per_row), in_file, *errors, ", ".join(better)))
    largest = case.teacher.softmax(dim=1).amax(dim=1).mean()
    title = f"(d) {case.num_classes} classes, {case.what}: mean largest probability {float(largest):.2f}"
    errors = [f"error, T = {temperature:g}" for temperature in TEMPERATURES]
    show(title, ("encoding", "bytes a row", "in a file", *errors, "less of both at T ="), rows)
    return [smallest_error(case, ours, tinyvit, temperature) for temperature in TEMPERATURES]


def smallest_error(case: Case, ours: Sequence[Measured], tinyvit: Measured, temperature: float) -> Goal:
    """Of the encodings that take fewer bytes than TinyViT's, the best: its error against TinyViT's."""
    smaller = [one for one in ours if one.bytes_per_row < tinyvit.bytes_per_row]
    theirs = tinyvit.errors[temperature]
    best = min(smaller, key=lambda one: one.errors[temperature], default=None)
    ratio = float("inf") if best is None else best.errors[temperature] / theirs
    name = "no encoding has fewer bytes" if best is None else f"{best.encoding}, {best.bytes_per_row} bytes"
    what = f"(d) {case.num_classes} classes, {case.what}, T = {temperature:g}: the error of {name}, of TinyViT's"
    return Goal(what, Ratio(ratio, ratio, ratio), 1.0, at_least=False)

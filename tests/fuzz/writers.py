"""Processes that write into one store, and what a reader then finds in it. They are forked: start no Ray before."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from actors.knowledge import Batch, Position, TeacherRequest
from actors.specs import TeacherSpec
from actors.storage import Folder
from actors.store import writing
from actors.store.keys import pieces, row_keys
from actors.store.shelf import Shelf
from tests.unit.digits_setup import DATA, digits, model, sampler, save_teacher, training_rows
from tests.unit.store_setup import Counting, store_spec, stored

ASKED = TeacherRequest("wide", True, ("tap",))
FORK = multiprocessing.get_context("fork")
SOONER, LATER = 0.8, 1.1


def wide_teacher(folder) -> TeacherSpec:
    """Its tap makes shards of many blocks."""
    return save_teacher(folder, spec=model(width=512, depth=1, taps={"tap": "pool"}))


def two_epochs() -> list[Batch]:
    """192 rows: two views of 96 samples."""
    rows = training_rows(digits(), DATA)
    return [sampler().batch(rows, Position(epoch, step)) for epoch in range(2) for step in range(4)]


@dataclass(frozen=True)
class Truth:
    """What a store may hold: of each piece the columns of every row, as the teacher itself says them."""

    teacher: TeacherSpec
    batches: Sequence[Batch]

    def answers(self) -> list:
        inner = Counting(self.teacher)
        return [inner.ask(batch, (ASKED,)).result()[0] for batch in self.batches]


class Checked:
    """Compares a store with the truth, bit for bit."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self._answers = truth.answers()
        self.num_rows = sum(map(len, truth.batches))

    def rows_in(self, store) -> int:
        """How many rows are complete in it; raises AssertionError where one is wrong."""
        whole, teacher = 0, self.truth.teacher
        shelves = [Shelf(Folder(str(store)), piece) for piece in pieces(ASKED, teacher, store_spec(store, teacher))]
        for batch, answer in zip(self.truth.batches, self._answers, strict=True):
            there = np.ones(len(batch), dtype=bool)
            for shelf in shelves:
                into = shelf.piece.encoding.empty(len(batch))
                found, others = shelf.find(row_keys(batch.ids, batch.views), batch.digests, into)
                expected = shelf.piece.encoding.encode(answer.tensors[shelf.piece.name])
                assert not others.any()
                assert all((into[name][found] == column[found]).all() for name, column in expected.items())
                there &= found
            whole += int(there.sum())
        assert not any(shelf.put_aside for shelf in shelves), "a torn file was seen"
        return whole


def write_all(store, truth: Truth, order: Sequence[int]) -> dict:
    """The counts of one who asks for every batch, in this order."""
    with stored(store, truth.teacher, inner=Counting(truth.teacher)) as source:
        for number in order:
            source.ask(truth.batches[number], (ASKED,)).result()
    return {**vars(source.passes["wide"]), "unwritten": source._writer.ended}


def at_once(act: Callable, *arguments) -> multiprocessing.Process:
    """A process in which the store is written as often as possible."""

    def run() -> None:
        writing.EACH_S, writing.TICK_S = 0.0, 0.001
        act(*arguments)
        os._exit(0)

    process = FORK.Process(target=run, daemon=True)
    process.start()
    return process


def killed(store, truth: Truth, after_s: float) -> bool:
    """Whether the kill came before the writer's end."""
    process = at_once(write_all, store, truth, range(len(truth.batches)))
    time.sleep(after_s)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode == -signal.SIGKILL


def kills(count: int, folder, seed: int = 0) -> list[int]:
    """After each kill, how many rows were in the store; a second run computes the others and no more. Kills come
    sooner where writers were done, so that most meet one at its work."""
    rng, found = random.Random(seed), []
    truth = Truth(wide_teacher(folder), two_epochs())
    checked = Checked(truth)
    start = time.perf_counter()
    at_once(write_all, folder / "whole", truth, range(8)).join()
    latest_s = time.perf_counter() - start
    assert checked.rows_in(folder / "whole") == checked.num_rows
    for number in range(count):
        store = folder / f"store-{number}"
        killed(store, truth, rng.uniform(0, latest_s))
        found.append(checked.rows_in(store))
        latest_s *= SOONER if found[-1] == checked.num_rows else LATER
        told = write_all(store, truth, range(8))
        assert told["computed"] == told["written"] == checked.num_rows - found[-1], (told, found[-1])
        assert checked.rows_in(store) == checked.num_rows
    return found

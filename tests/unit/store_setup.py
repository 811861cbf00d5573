"""Stores for the unit tests: real teachers, real files. Needs no Ray."""

from dataclasses import replace

from actors.sources import LocalTeachers
from actors.specs import StoreSpec
from actors.store.keys import data_identity, judge_identity
from actors.store.stored import StoredTeachers
from actors.teacher import Teacher
from tests.unit.digits_setup import DATA, digits


class Counting:
    """In-process teachers; `rows`: how many each has judged."""

    likes_ahead = 1

    def __init__(self, *specs):
        self.rows = {spec.name: 0 for spec in specs}
        self.requests = []
        self._inner = LocalTeachers.load(specs)
        self.log = self._inner.log

    def ask(self, batch, request):
        self.requests += request
        for one in request:
            self.rows[one.teacher] += len(batch) if one.rows is None else len(one.rows)
        return self._inner.ask(batch, request)


def store_spec(folder, *teachers, data=DATA, **changes) -> StoreSpec:
    judges = {teacher.name: judge_identity(teacher, Teacher(teacher).version) for teacher in teachers}
    return replace(StoreSpec(str(folder), "float32", {}, data_identity(digits(), data), judges), **changes)


def stored(folder, *teachers, inner=None, claims=None, data=DATA, **changes) -> StoredTeachers:
    spec = store_spec(folder, *teachers, data=data, **changes)
    return StoredTeachers(spec, teachers, inner, [one.name for one in teachers] if inner else [], claims)

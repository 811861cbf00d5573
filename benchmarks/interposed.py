"""A source in front of which something happens. Imports no Ray."""

from __future__ import annotations

from collections.abc import Callable

from actors.knowledge import Batch, KnowledgeRequest
from actors.sources import Answer, TeacherSource


class Interposed:
    """Calls `before` with the number of each batch, from 1 on, just before the source is asked about it."""

    def __init__(self, source: TeacherSource, before: Callable[[int], None]) -> None:
        self.log = source.log
        self._source = source
        self._before = before
        self._asked = 0

    @property
    def likes_ahead(self) -> int:
        return self._source.likes_ahead

    def ask(self, batch: Batch, request: KnowledgeRequest) -> Answer:
        self._asked += 1
        self._before(self._asked)
        return self._source.ask(batch, request)

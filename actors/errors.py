"""Errors that end a run with a cause rather than a traceback. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence


class KnowledgeError(RuntimeError):
    """What a teacher sent cannot be learned from."""


class TeacherLostError(RuntimeError):
    """Teachers have no replica left, or the code of one failed. `teachers`: all who are lost with it."""

    def __init__(self, cause: str, teachers: Sequence[str]) -> None:
        super().__init__(cause)
        self.teachers = tuple(teachers)

    def __reduce__(self) -> tuple[type[TeacherLostError], tuple[str, tuple[str, ...]]]:
        return type(self), (str(self), self.teachers)


class NotStoredError(RuntimeError):
    """A store lacks what these `teachers` would have to be asked, and there is nobody to ask."""

    def __init__(self, teachers: Sequence[str]) -> None:
        super().__init__(f"the store lacks knowledge of {', '.join(teachers)}, and they were not started")
        self.teachers = tuple(teachers)

    def __reduce__(self) -> tuple[type[NotStoredError], tuple[tuple[str, ...]]]:
        return type(self), (self.teachers,)


def first_line(error: Exception) -> str:
    """Of a text that goes on with a traceback."""
    return str(error).splitlines()[0]

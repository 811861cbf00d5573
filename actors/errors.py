"""Errors that end a run with a cause rather than a traceback. Standard library only."""


class KnowledgeError(RuntimeError):
    """What a teacher sent cannot be learned from."""


class TeacherLostError(RuntimeError):
    """A teacher has no replica left, or its own code failed."""

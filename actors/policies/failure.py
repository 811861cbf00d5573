"""Pure deciders that the pool obeys: tested without Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum


class Failure(Enum):
    """How a request to a replica failed."""

    DIED = "died"
    SILENT = "did not answer in time"
    RAISED = "raised an error"


class Decision(Enum):
    """What becomes of the request."""

    REROUTE = "ask another replica"
    ABORT = "end the run with the cause"


def after_failure(failure: Failure, replicas_left: int) -> Decision:
    """An error of the teacher's own code would come again on any replica; a lost replica costs nothing while others
    live.
    """
    if failure is Failure.RAISED or replicas_left == 0:
        return Decision.ABORT
    return Decision.REROUTE


def choose_replica(replicas: Sequence[int], outstanding: Mapping[int, int], cursor: int) -> int:
    """The replica with the least outstanding requests; ties go round from `cursor`, so that workers don't march in
    step.
    """
    start = cursor % len(replicas)
    turned = [*replicas[start:], *replicas[:start]]
    return min(turned, key=lambda replica: outstanding.get(replica, 0))


MOST_RESTARTS = 3


def may_restart(workers_killed: int, only_echoes: bool, restarts: int) -> bool:
    """A group of student workers starts again if one of them was killed, or if all that the others raised may be
    echoes of that; an error of its own code would come again."""
    return (workers_killed > 0 or only_echoes) and restarts < MOST_RESTARTS

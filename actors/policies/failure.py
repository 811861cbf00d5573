"""What to do when a request or a process has failed."""

from __future__ import annotations

from enum import Enum
from math import inf

MOST_ACCIDENTS = 3
ONE_ACCIDENT_S = 2.0
MOST_FAILED_STARTS = 3
MOST_RESTARTS = 3
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
MOST_DOUBLINGS = 10


class Decision(Enum):
    """What becomes of a request whose replica was lost."""

    REROUTE = "ask another replica"
    WAIT = "wait for a new replica"
    ABORT = "end the run with the cause"


def after_loss(accidents: int, replicas_left: int) -> Decision:
    """A lost replica costs nothing while others live or come; but a request in whose course they were lost again and
    again may be what kills them. Those who are lost within `ONE_ACCIDENT_S` are lost by one accident, a node's say: a
    request goes from one to the next of them faster than news."""
    if accidents >= MOST_ACCIDENTS:
        return Decision.ABORT
    return Decision.REROUTE if replicas_left else Decision.WAIT


def pause_before_start_s(failed_starts: int, serving: int) -> float:
    """Seconds from the last failed start of a replica to the next; infinite where there will be none. `failed_starts`:
    since one last came up. What fails to load again and again will hardly load; as long as others serve, it costs
    nothing to try."""
    if not serving and failed_starts >= MOST_FAILED_STARTS:
        return inf
    doublings = min(failed_starts - 1, MOST_DOUBLINGS)
    return min(FIRST_PAUSE_S * 2.0**doublings, LONGEST_PAUSE_S) if failed_starts else 0.0


def may_restart(workers_killed: int, only_echoes: bool, restarts: int) -> bool:
    """A group of student workers starts again if one of them was killed, or if all that the others raised may be
    echoes of that; an error of its own code would come again."""
    return (workers_killed > 0 or only_echoes) and restarts < MOST_RESTARTS

"""When a replica is late with an answer, and when it is given up: by its own history."""

from __future__ import annotations

from dataclasses import dataclass

LATE_FACTOR = 3.0
LATE_AT_LEAST_S = 0.25
LOST_FACTOR = 20.0
LOST_AT_LEAST_S = 5.0


@dataclass(frozen=True)
class Patience:
    """Seconds after which another replica is asked as well, and after which the first is given up."""

    late_s: float
    lost_s: float


def patience(own_slow_s: float | None, peers_slow_s: float | None, ahead: int, most_s: float) -> Patience:
    """`own_slow_s`, `peers_slow_s`: what a slow batch has taken this replica and its host's others, None before the
    first; `ahead`: batches that it has to answer up to and with this request; `most_s`: the longest that anybody is
    waited for.

    Of a replica that has answered nothing yet nobody knows how long its first answer takes: it may be late, not lost.
    """
    known_s = peers_slow_s if own_slow_s is None else own_slow_s
    late_s = most_s if known_s is None else max(LATE_AT_LEAST_S, LATE_FACTOR * known_s * ahead)
    lost_s = most_s if own_slow_s is None else max(LOST_AT_LEAST_S, LOST_FACTOR * own_slow_s * ahead)
    return Patience(min(late_s, most_s), min(lost_s, most_s))

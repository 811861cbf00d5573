"""What happened in a pool, for those who read about it later. Imports no Ray."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any


class Chronicle:
    """Counts of replicas and restarts, and events in words, with the seconds since it was begun."""

    def __init__(self) -> None:
        self._started_s = time.time()
        self._replicas: dict[str, list[tuple[float, int]]] = {}
        self._restarts: dict[str, int] = {}
        self._events: list[tuple[float, str, str]] = []

    def count(self, host: str, replicas: int) -> None:
        """How many replicas serve now."""
        counts = self._replicas.setdefault(host, [])
        if not counts or counts[-1][1] != replicas:
            counts.append((self._now_s, replicas))

    def event(self, host: str, text: str) -> None:
        self._events.append((self._now_s, host, text))

    def restart(self, host: str) -> None:
        self._restarts[host] = self._restarts.get(host, 0) + 1

    def record(self, dropped: Sequence[str] = ()) -> dict[str, Any]:
        """As JSON takes it. `dropped`: the teachers that the pool was started without."""
        return {
            "started": self._started_s,
            "replicas": self._replicas,
            "restarts": self._restarts,
            "events": self._events,
            "dropped": list(dropped),
        }

    @property
    def _now_s(self) -> float:
        return round(time.time() - self._started_s, 2)


def joined(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """The records of two pools that served a rung, one after the other; between them nobody serves."""
    shift_s = round(later["started"] - earlier["started"], 2)
    replicas = {host: [*counts, [shift_s, 0]] for host, counts in earlier["replicas"].items()}
    restarts = dict(earlier["restarts"])
    for host, counts in later["replicas"].items():
        replicas[host] = [*replicas.get(host, []), *([round(shift_s + at_s, 2), count] for at_s, count in counts)]
    for host, count in later["restarts"].items():
        restarts[host] = restarts.get(host, 0) + count
    events = [[round(shift_s + at_s, 2), host, text] for at_s, host, text in later["events"]]
    whole = {"replicas": replicas, "restarts": restarts, "events": [*earlier["events"], *events]}
    return {**later, "started": earlier["started"], **whole}

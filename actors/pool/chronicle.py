"""What happened in a pool, for those who read about it later. Imports no Ray."""

from __future__ import annotations

import time
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

    def record(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "started": self._started_s,
            "replicas": self._replicas,
            "restarts": self._restarts,
            "events": self._events,
            "dropped": [],
        }

    @property
    def _now_s(self) -> float:
        return round(time.time() - self._started_s, 2)

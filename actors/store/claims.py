"""Who is computing what, so that two who ask for the same row at once compute it once. Imports no Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import numpy as np

LEASE_S = 10.0
"""A client that says nothing for so long has ended: others may compute what it held."""

RowsOf = Mapping[str, np.ndarray]
"""Keys of rows by the key of the teacher that judges them."""


class Granted(NamedTuple):
    """Of each row whether the client may compute it now; `version`: of what everybody has written so far."""

    rows: dict[str, np.ndarray]
    version: int


class Claims(Protocol):
    """How a client reaches the `ClaimsBook` that it shares with others."""

    def claim(self, rows: RowsOf) -> Granted: ...

    def release(self, rows: RowsOf) -> None: ...

    def is_waited_for(self) -> bool: ...


class ClaimsBook:
    """A client claims what it is about to compute, and releases it once everybody can read it."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._holders: dict[str, dict[int, str]] = {}
        self._heard_s: dict[str, float] = {}
        self._waited_for: set[str] = set()
        self._version = 0

    def claim(self, client: str, rows: RowsOf) -> Granted:
        self._heard_s[client] = self._now_s()
        return Granted({judge: self._claimed(client, judge, keys) for judge, keys in rows.items()}, self._version)

    def _claimed(self, client: str, judge: str, keys: np.ndarray) -> np.ndarray:
        holders = self._holders.setdefault(judge, {})
        granted = np.ones(len(keys), dtype=bool)
        for row, key in enumerate(keys.tolist()):
            holder = holders.get(key, client)
            if holder != client and self._lives(holder):
                granted[row] = False
                self._waited_for.add(holder)
            else:
                holders[key] = client
        return granted

    def _lives(self, client: str) -> bool:
        return self._now_s() - self._heard_s[client] < LEASE_S

    def release(self, client: str, rows: RowsOf) -> None:
        self._version += 1
        for judge, keys in rows.items():
            holders = self._holders.get(judge, {})
            for key in keys.tolist():
                if holders.get(key) == client:
                    del holders[key]

    def is_waited_for(self, client: str) -> bool:
        """Whether anybody has asked in vain for what the client holds since it last asked."""
        self._heard_s[client] = self._now_s()
        waited_for = client in self._waited_for
        self._waited_for.discard(client)
        return waited_for


class NobodyElse:
    """The claims of one who shares them with nobody."""

    def claim(self, rows: RowsOf) -> Granted:
        return Granted({judge: np.ones(len(keys), dtype=bool) for judge, keys in rows.items()}, 0)

    def release(self, rows: RowsOf) -> None:
        pass

    def is_waited_for(self) -> bool:
        return False

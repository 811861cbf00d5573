"""From the journal to a tracking server: `Delivery` sends what the server has not acknowledged, each thing once.
Loads no MLflow: `orchestrator.tracking.store` is imported where something is sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from filelock import FileLock

from orchestrator.locks import lock_path
from orchestrator.tracking.journal import Event, Journal, Measured

if TYPE_CHECKING:
    from orchestrator.tracking.store import Store

SQLITE = "sqlite:///"
LOCK_FILE = "lock"
OTHER_SENDER_S = 5.0
EVENTS_AT_ONCE = 200
LONGEST_REASON = 200
KNOWN_REASONS = {
    "Connection refused": "connection refused",
    "timed out": "no answer in time",
    "Name or service not known": "no such host",
    "Failed to resolve": "no such host",
    "Connection reset": "connection reset",
    "Connection aborted": "connection lost",
    "database is locked": "the database is locked",
}

Said = Callable[[int, int], None]


class Refused(Exception):
    """An event that no server will ever take; it is passed over and said."""


class Delivery:
    """Sends the events of one journal to one server. After a failure make a new one: what the server then has is in
    doubt and is looked up first.
    """

    def __init__(self, journal: Journal, uri: str) -> None:
        self.refused: list[str] = []
        self._journal = journal
        self._uri = uri
        self._server = without_password(uri)
        self._doubtful = len(journal)

    @cached_property
    def _store(self) -> Store:
        from orchestrator.tracking.store import Store

        return Store(self._journal.record, self._uri, self._journal.run_folder)

    @property
    def left(self) -> int:
        return len(self._journal) - self._journal.sent(self._server)

    def attempt(self, said: Said = lambda sent, total: None) -> None:
        """Sends all that is there; raises what went wrong, with the events before it marked as sent."""
        lock = FileLock(lock_path(self._journal.folder, LOCK_FILE), timeout=OTHER_SENDER_S)
        with lock:
            self.forget_if_lost()
            done = self._journal.sent(self._server)
            for group in groups(self._journal.events[done:]):
                self._send(group, compare=done < self._doubtful)
                done += len(group)
                self._journal.mark_sent(self._server, done)
                said(done, len(self._journal))

    def forget_if_lost(self) -> None:
        """Where a store was deleted, what it once had is to be sent again."""
        if self._journal.sent(self._server) and self._store.is_empty:
            self._journal.mark_sent(self._server, 0)

    def _send(self, group: Sequence[Event], *, compare: bool) -> None:
        try:
            self._store.send(group, compare=compare)
        except Refused as refusal:
            self.refused.append(str(refusal))


def groups(events: Sequence[Event]) -> Iterator[list[Event]]:
    """Measurements that follow each other together, everything else by itself."""
    group: list[Event] = []
    for event in events:
        if group and (not isinstance(event, Measured) or len(group) == EVENTS_AT_ONCE):
            yield group
            group = []
        group.append(event)
        if not isinstance(event, Measured):
            yield group
            group = []
    if group:
        yield group


def reason(error: Exception) -> str:
    """One short line, without a password."""
    text = str(error)
    for sign, words in KNOWN_REASONS.items():
        if sign in text:
            return words
    line = without_password(text.partition("\n")[0]) or type(error).__name__
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}..."


def without_password(uri: str) -> str:
    return re.sub(r"(?<=://)([^/@\s:]*):[^/@\s]*@", r"\1:***@", uri)

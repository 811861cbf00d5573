"""What a run has to tell a tracking server, kept beside the run: events, the `Journal` of them, and how far a server
has acknowledged it. Imports no MLflow.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from actors.storage import Folder

TRACKING_FOLDER = "tracking"
JOURNAL_FILE = "journal.jsonl"
RECORD_FILE = "run.json"
SENT_FILE = "sent"
REMOTE_PAUSE_S = 10.0
Status = Literal["FINISHED", "FAILED", "KILLED"]
FINISHED: Status = "FINISHED"
FAILED: Status = "FAILED"
KILLED: Status = "KILLED"


def now_ms() -> int:
    return int(time.time() * 1000)


@dataclass(frozen=True)
class Started:
    """A rung, or the experiment (`rung` None), begins or goes on."""

    rung: str | None
    params: dict[str, str]
    tags: dict[str, str]
    time_ms: int = field(default_factory=now_ms)


@dataclass(frozen=True)
class Measured:
    """Values of one epoch, or final ones (at step 0)."""

    rung: str | None
    step: int
    values: dict[str, float]
    time_ms: int = field(default_factory=now_ms)


@dataclass(frozen=True)
class Kept:
    """A file, or a folder of files, to keep with a run. `file`: from the run's folder on; `into`: a folder there."""

    rung: str | None
    file: str
    into: str = ""


@dataclass(frozen=True)
class Modelled:
    """An MLflow model in `folder` of the run's folder; `register`: as a version of that name, which gets `alias`."""

    folder: str
    name: str
    register: str | None = None
    alias: str | None = None


@dataclass(frozen=True)
class Ended:
    rung: str | None
    status: Status
    time_ms: int = field(default_factory=now_ms)


Event = Started | Measured | Kept | Modelled | Ended
KINDS = {kind.__name__.lower(): kind for kind in (Started, Measured, Kept, Modelled, Ended)}


@dataclass(frozen=True)
class RunRecord:
    """Whose journal it is. `artifacts`: the folder for files where no server has its own."""

    id: str
    experiment: str
    name: str
    uri: str
    artifacts: str


class Journal:
    """The events of one run, in a file that only grows; several threads may add. A torn line counts as absent."""

    def __init__(self, run_folder: Folder) -> None:
        self.run_folder = run_folder
        self.folder = run_folder / TRACKING_FOLDER
        self.events = read_events(self.folder)
        self._known = {point for event in self.events for point in points(event)}
        self._lock = threading.Lock()
        self._saved_s = -REMOTE_PAUSE_S

    def __len__(self) -> int:
        return len(self.events)

    @property
    def record(self) -> RunRecord:
        return RunRecord(**json.loads(self.folder.read(RECORD_FILE)))

    def begin(self, experiment: str, uri: str, artifacts: str) -> Self:
        """Names the run, once; another `uri` replaces the one before."""
        if self.folder.has(RECORD_FILE):
            record = replace(self.record, uri=uri, artifacts=artifacts)
        else:
            record = RunRecord(uuid.uuid4().hex, experiment, self.run_folder.name, uri, artifacts)
        self.folder.write(RECORD_FILE, json.dumps(asdict(record), indent=1).encode())
        return self

    def add(self, event: Event) -> bool:
        """Whether there was anything new: a value of a (rung, name, step) that is here already is left out."""
        with self._lock:
            if isinstance(event, Measured):
                event = self._without_known(event)
                if not event.values:
                    return False
            self._append(event)
            self._known |= points(event)
            self.events.append(event)
            return True

    def _without_known(self, event: Measured) -> Measured:
        new = {key: value for key, value in event.values.items() if (event.rung, key, event.step) not in self._known}
        return replace(event, values=new)

    def _append(self, event: Event) -> None:
        if self.folder.is_remote:
            self._append_remotely(event)
            return
        Path(self.folder.path).mkdir(parents=True, exist_ok=True)
        with Path(self.folder.file(JOURNAL_FILE)).open("ab", buffering=0) as stream:
            stream.write(f"\n{_line(event)}\n".encode())  # the first newline ends what a killed driver left torn

    def _append_remotely(self, event: Event) -> None:
        """An object does not grow, it is put anew. Measurements may wait: a rung tells all of its own again at its
        end."""
        if not isinstance(event, Measured) or time.monotonic() >= self._saved_s + REMOTE_PAUSE_S:
            lines = "\n".join(_line(one) for one in (*self.events, event))
            self.folder.write(JOURNAL_FILE, f"{lines}\n".encode())
            self._saved_s = time.monotonic()

    def sent(self, uri: str) -> int:
        """How many events the server at `uri` has; 0 where that is not known."""
        if not self.folder.has(SENT_FILE):
            return 0
        cursor = json.loads(self.folder.read(SENT_FILE))
        return cursor["events"] if cursor["uri"] == uri and cursor["events"] <= len(self) else 0

    def mark_sent(self, uri: str, events: int) -> None:
        self.folder.write(SENT_FILE, json.dumps({"uri": uri, "events": events}).encode())


def _line(event: Event) -> str:
    return json.dumps({"kind": type(event).__name__.lower(), **asdict(event)})


def read_events(folder: Folder) -> list[Event]:
    """All that is whole."""
    lines = folder.read(JOURNAL_FILE).splitlines() if folder.has(JOURNAL_FILE) else []
    return [event for line in lines if line for event in _read_line(line)]


def _read_line(line: bytes) -> list[Event]:
    try:
        entries = json.loads(line)
        return [KINDS[entries.pop("kind")](**entries)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def points(event: Event) -> set[tuple[str | None, str, int]]:
    return {(event.rung, key, event.step) for key in event.values} if isinstance(event, Measured) else set()


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """What is there, as floats. A loss that became nan or infinite stays: one wants to see it."""
    return {name: float(value) for name, value in values.items() if value is not None}


def dotted(document: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """The leaves of nested mappings by their dotted paths, as text; lists are leaves."""
    found: dict[str, str] = {}
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            found |= dotted(value, f"{path}{key}.")
        else:
            found[f"{path}{key}"] = value if isinstance(value, str) else json.dumps(value, default=str)
    return found

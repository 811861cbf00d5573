"""What a driver tells MLflow: `Tracker` writes it down beside the run and sends it in a thread of its own; `sync` sends
what was left. Loads no MLflow, and nothing that MLflow does can stop or slow a run.
"""

from __future__ import annotations

import os
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from actors.storage import Folder, is_uri
from orchestrator.fields import ARTIFACTS_FOLDER
from orchestrator.tracking.delivery import SQLITE, Delivery, reason, without_password
from orchestrator.tracking.journal import (
    RECORD_FILE,
    TRACKING_FOLDER,
    Ended,
    Event,
    Journal,
    Kept,
    Measured,
    Modelled,
    Started,
    Status,
    numbers,
)

LOCAL_HOME = "runs"
URI_VARIABLE = "MLFLOW_TRACKING_URI"
QUICK_RETRY_S = 1.0
PAUSE_S = 30.0
PATIENCE_S = 30.0
MOST_S = 300.0


def tracking_home(storage: str) -> Path:
    """Where MLflow's own files lie if no server keeps them: the storage folder; of one in a bucket `runs`, here."""
    return Path(LOCAL_HOME if is_uri(storage) else storage).absolute()


def tracking_uri(configured: str | None, storage: str) -> str:
    """The config's, else the environment's, else a sqlite store in the storage folder, or what stands for it here."""
    uri = configured or os.environ.get(URI_VARIABLE) or f"{SQLITE}{tracking_home(storage) / 'mlflow.db'}"
    if uri.startswith(SQLITE):
        return SQLITE + str(Path(uri.removeprefix(SQLITE)).absolute())
    return uri


class Sender:
    """One daemon thread that sends a journal whenever it is woken; after two failures it rests for a while."""

    def __init__(self, journal: Journal, uri: str, send: bool) -> None:
        self.failure = ""
        self.refused: list[str] = []
        self._journal = journal
        self._uri = uri
        self._delivery = Delivery(journal, uri)
        self._news = threading.Event()
        self._closing = threading.Event()
        self._rest_until = 0.0
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        if send:
            self._thread.start()

    def wake(self) -> None:
        self._news.set()

    def close(self) -> int:
        """Waits while anything is acknowledged, then says how many events are left that were to be sent."""
        if self._thread.ident is None:
            return 0
        self._closing.set()
        self._news.set()
        left, latest = self._delivery.left + 1, time.monotonic() + MOST_S
        while self._thread.is_alive() and self._delivery.left < left and time.monotonic() < latest:
            left = self._delivery.left
            self._thread.join(PATIENCE_S)
        if self._thread.is_alive():
            self.failure = "no answer in time"
        return self._delivery.left

    def _work(self) -> None:
        last = False
        while not last:
            self._news.wait()
            self._news.clear()
            last = self._closing.is_set()
            if last or time.monotonic() >= self._rest_until:
                self._deliver()

    def _deliver(self) -> None:
        self.failure = self._try()
        if self.failure:
            time.sleep(QUICK_RETRY_S)
            self.failure = self._try()
        if self.failure:
            self._rest_until = time.monotonic() + PAUSE_S

    def _try(self) -> str:
        """What went wrong, if anything."""
        delivery = self._delivery
        try:
            delivery.attempt()
        except Exception as error:
            self._delivery = Delivery(self._journal, self._uri)
            return reason(error)
        finally:
            self.refused += delivery.refused
            delivery.refused.clear()
        return ""


class Tracker:
    """What one run tells. Each call writes a line beside the run and returns; `close` gives what the user must know."""

    def __init__(self, journal: Journal, uri: str, send: bool = True) -> None:
        self._journal = journal
        self._uri = uri
        self._sender = Sender(journal, uri, send)

    @classmethod
    def open(cls, run_folder: Folder, *, experiment: str, uri: str, storage: str, send: bool = True) -> Self:
        """Goes on with the run's journal where there is one: the same run in MLflow. `send` False: only writes it."""
        artifacts = tracking_home(storage) / ARTIFACTS_FOLDER / experiment
        return cls(Journal(run_folder).begin(experiment, without_password(uri), str(artifacts)), uri, send)

    def start(self, rung: str | None, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """`rung` None, here and below: the experiment itself."""
        self._add(Started(rung, dict(params), dict(tags)))

    def epoch(self, rung: str, step: int, values: Mapping[str, float | None]) -> None:
        self._add(Measured(rung, step, numbers(values)))

    def values(self, rung: str | None, values: Mapping[str, float | None]) -> None:
        """Final values, under names that no epoch has; the first of a name stays."""
        self._add(Measured(rung, 0, numbers(values)))

    def artifact(self, rung: str | None, file: str, into: str = "") -> None:
        """`file`: from the run's folder on; a file or a folder."""
        self._add(Kept(rung, file, into))

    def model(self, folder: str, name: str, register: str | None = None, alias: str | None = None) -> None:
        """`folder`: of the run's folder, written by `orchestrator.tracking.models.save_mlflow_model`."""
        self._add(Modelled(folder, name, register, alias))

    def end(self, rung: str | None, status: Status) -> None:
        self._add(Ended(rung, status))

    def close(self) -> str:
        """Sends the rest, in bounded time. Gives one sentence where something is missing on the server, else ""."""
        left = self._sender.close()
        said = [f"tracking: refused: {line}" for line in self._sender.refused]
        if left:
            said.append(
                f"tracking: {counted(left)} could not be sent to {without_password(self._uri)} "
                f"({self._sender.failure}); kept in {self._journal.folder}; "
                f"send with: collegium sync {shlex.quote(str(self._journal.run_folder))}"
            )
        return "\n".join(said)

    def _add(self, event: Event) -> None:
        if self._journal.add(event):
            self._sender.wake()


def sync(run_folder: str, uri: str | None = None, say: Callable[[str], None] = lambda text: None) -> str:
    """Sends what a run's server does not have. Gives what was done; raises ValueError where it could not be."""
    folder = Folder.at(run_folder)
    if not (folder / TRACKING_FOLDER).has(RECORD_FILE):
        raise ValueError(
            f"sync: expected the folder of a tracked run, found no {TRACKING_FOLDER}/{RECORD_FILE} in {run_folder!r}; "
            "give the folder that the run named at its start"
        )
    journal = Journal(folder)
    uri = tracking_uri(uri, "") if uri else _recorded_uri(journal)
    shown = without_password(uri)
    delivery = Delivery(journal, uri)
    try:
        delivery.forget_if_lost()
    except Exception as error:
        raise _unsent(delivery, uri, error) from error
    unsent = delivery.left
    if not unsent:
        return f"nothing to send: {shown} has all {counted(len(journal))}"
    say(f"sending {counted(unsent)} to {shown}")
    refused = _deliver(journal, uri, say)
    journal.begin(journal.record.experiment, shown, journal.record.artifacts)
    return "\n".join([*(f"refused: {line}" for line in refused), f"sent {counted(unsent)} to {shown}"])


def _deliver(journal: Journal, uri: str, say: Callable[[str], None]) -> list[str]:
    refused: list[str] = []
    for again in (True, False):
        delivery = Delivery(journal, uri)
        try:
            delivery.attempt(lambda sent, total: say(f"{sent} of {total}"))
        except Exception as error:
            if not again:
                raise _unsent(delivery, uri, error) from error
            time.sleep(QUICK_RETRY_S)
        finally:
            refused += delivery.refused
        if not delivery.left:
            break
    return refused


def _unsent(delivery: Delivery, uri: str, error: Exception) -> ValueError:
    return ValueError(
        f"sync: {counted(delivery.left)} could not be sent to {without_password(uri)} ({reason(error)}); "
        "nothing is lost: start the server and run it again, or give another by --uri"
    )


def _recorded_uri(journal: Journal) -> str:
    recorded = journal.record.uri
    if "***" not in recorded:
        return recorded
    if URI_VARIABLE in os.environ:
        return os.environ[URI_VARIABLE]
    raise ValueError(f"sync: the password of {recorded} is not kept; set {URI_VARIABLE} or give --uri")


def counted(events: int) -> str:
    return f"{events} event{'' if events == 1 else 's'}"

"""The journal beside a run: what is written is read again, nothing is there twice, a torn line does no harm."""

import math
import threading
from pathlib import Path

import pytest

from actors.storage import Folder
from orchestrator.tracking.client import allowed_name
from orchestrator.tracking.delivery import groups, reason, without_password
from orchestrator.tracking.journal import (
    JOURNAL_FILE,
    KINDS,
    SENT_FILE,
    Ended,
    Journal,
    Kept,
    Measured,
    Modelled,
    Started,
    dotted,
    numbers,
)
from orchestrator.tracking.tracker import sync, tracking_uri

EVENTS = [
    Started(None, {"seed": "0"}, {"data": "abc"}),
    Measured("student", 3, {"hard": 0.1, "lost": math.inf}),
    Kept("student", "rungs/student/log", "files"),
    Modelled("mlflow_model", "student", "digits", "champion"),
    Ended(None, "FINISHED"),
]


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(str(tmp_path / "20261122-101500"))


def file_of(folder: Folder) -> Path:
    return Path(folder.path, "tracking", JOURNAL_FILE)


def filled(folder: Folder) -> Journal:
    journal = Journal(folder)
    for event in EVENTS:
        assert journal.add(event)
    return journal


def test_every_kind_of_event_is_read_as_it_was_written(folder):
    filled(folder)
    assert Journal(folder).events == EVENTS and {type(event) for event in EVENTS} == set(KINDS.values())


def test_nan_is_kept(folder):
    Journal(folder).add(Measured("student", 0, numbers({"hard": float("nan"), "accuracy": None, "epochs": 3})))
    [event] = Journal(folder).events
    assert isinstance(event, Measured) and math.isnan(event.values.pop("hard")) and event.values == {"epochs": 3.0}


@pytest.mark.parametrize("cut", [2, 5, 60])
def test_a_torn_last_line_counts_as_absent(folder, cut):
    filled(folder)
    file_of(folder).write_bytes(file_of(folder).read_bytes()[:-cut])
    journal = Journal(folder)
    assert journal.events == EVENTS[:-1]
    journal.add(Started("alone", {}, {}))
    assert Journal(folder).events == journal.events and len(journal) == len(EVENTS)


def test_a_line_that_cannot_be_read_hides_no_other(folder):
    filled(folder)
    with file_of(folder).open("ab") as stream:
        stream.write(b"\0\0\n[]\n{}\nnull")
    Journal(folder).add(EVENTS[0])
    assert Journal(folder).events == [*EVENTS, EVENTS[0]]


def test_a_value_of_an_epoch_is_taken_once_also_after_a_restart(folder):
    for _ in range(2):
        journal = Journal(folder)
        journal.add(Measured("student", 0, {"hard": 1.0}))
        journal.add(Measured("student", 1, {"hard": 0.5}))
        assert not journal.add(Measured("student", 1, {"hard": 0.6}))
    journal.add(Measured("alone", 1, {"hard": 0.7}))
    journal.add(Measured("student", 1, {"hard": 0.6, "soft": 2.0}))
    assert [(e.rung, e.step, e.values) for e in Journal(folder).events if isinstance(e, Measured)] == [
        ("student", 0, {"hard": 1.0}),
        ("student", 1, {"hard": 0.5}),
        ("alone", 1, {"hard": 0.7}),
        ("student", 1, {"soft": 2.0}),
    ]


def test_threads_write_whole_lines(folder):
    journal = Journal(folder)

    def write(rung: str) -> None:
        for step in range(50):
            journal.add(Measured(rung, step, {"hard": float(step)}))

    threads = [threading.Thread(target=write, args=(f"rung{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Journal(folder).events) == 200


def test_a_run_keeps_its_id_and_takes_another_server(folder):
    first = Journal(folder).begin("digits", "http://one", "/files").record
    second = Journal(folder).begin("digits", "http://two", "/files").record
    assert first.id == second.id and first.name == "20261122-101500" and second.uri == "http://two"


def test_what_was_sent_counts_for_its_server_alone(folder):
    journal = filled(folder)
    assert journal.sent("http://one") == 0
    journal.mark_sent("http://one", 3)
    assert Journal(folder).sent("http://one") == 3 and journal.sent("http://two") == 0


def test_a_cursor_beyond_the_journal_is_not_believed(folder):
    journal = filled(folder)
    journal.mark_sent("http://one", 9)
    assert journal.sent("http://one") == 0 and journal.folder.has(SENT_FILE)


def test_measurements_in_a_row_travel_together():
    measured = [Measured("student", step, {"hard": 0.0}) for step in range(250)]
    sizes = [len(group) for group in groups([EVENTS[0], *measured, EVENTS[4], measured[0]])]
    assert sizes == [1, 200, 50, 1, 1]


def test_parameters_have_dotted_paths():
    document = {"seed": 0, "losses": {"soft": {"weight": 0.9, "teachers": ["a", "b"], "kwargs": {}}}, "name": "x"}
    assert dotted(document) == {
        "seed": "0",
        "losses.soft.weight": "0.9",
        "losses.soft.teachers": '["a", "b"]',
        "losses.soft.kwargs": "{}",
        "name": "x",
    }


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("losses.soft/weight: a-b_c", "losses.soft/weight: a-b_c"),
        ("layers[0](x)", "layers_0__x_"),
        ("/a//b/../c/", "a/c"),
        ("../a", "_/a"),
        ("", "_"),
    ],
)
def test_names_are_those_that_mlflow_takes(name, allowed):
    assert allowed_name(name) == allowed


def test_long_names_stay_different():
    one, other = allowed_name("x" * 300 + "a"), allowed_name("x" * 300 + "b")
    assert one != other and len(one) == len(other) == 250


def test_the_tracking_uri_is_the_configs_then_the_environments_then_a_file_in_the_storage(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(None, str(tmp_path)) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert tracking_uri(None, str(tmp_path)) == "http://server:5000"
    assert tracking_uri("http://other", str(tmp_path)) == "http://other"
    monkeypatch.chdir(tmp_path)
    assert tracking_uri("sqlite:///here.db", "runs") == f"sqlite:///{tmp_path}/here.db"


def test_a_folder_that_is_no_run_cannot_be_synced(tmp_path):
    with pytest.raises(ValueError, match=r"sync: expected the folder of a tracked run, found no tracking/run.json in"):
        sync(str(tmp_path))


def test_no_password_is_kept_or_shown(folder, monkeypatch):
    assert without_password("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"
    assert without_password("sqlite:////a/b:c@d.db") == "sqlite:////a/b:c@d.db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Journal(folder).begin("digits", without_password("http://me:secret@host"), "/files")
    with pytest.raises(ValueError, match=r"sync: the password of http://me:[*]{3}@host is not kept; set MLFLOW_TRACK"):
        sync(folder.path)


def test_reasons_are_short():
    refused = "API request to http://x failed with exception HTTPConnectionPool(...): [Errno 111] Connection refused"
    assert reason(OSError(refused)) == "connection refused"
    assert reason(OSError("http://me:secret@host said no\nand more")) == "http://me:***@host said no"
    assert reason(OSError()) == "OSError" and len(reason(OSError("x" * 999))) < 210

"""MLflow as it is: sqlite files that several processes open, a server that is killed, hangs and comes back."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from actors.storage import Folder
from orchestrator.tracking.client import connect
from orchestrator.tracking.journal import Measured, now_ms
from orchestrator.tracking.models import fetch_registered_weights, save_mlflow_model
from orchestrator.tracking.tracker import PATIENCE_S, Tracker, sync, tracking_uri
from tests.cluster.runs import ROOT, wait_for
from tests.cluster.servers import LossyProxy, MlflowServer
from tests.cluster.stores import journal, runs_of, steps
from tests.cluster.tracked import EPOCHS, RUNGS, begin, epochs, finish, opened


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    started = MlflowServer(tmp_path_factory.mktemp("server"))
    yield started
    started.kill()


@pytest.fixture(params=["sqlite", "server"])
def uri(request, tmp_path):
    return tracking_uri(request.getfixturevalue("server").uri if request.param == "server" else None, str(tmp_path))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A run's folder with an MLflow model in it."""
    folder = tmp_path_factory.mktemp("saved")
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    save_file(model.state_dict(), folder / "weights.safetensors")
    save_mlflow_model(model, torch.rand(2, 1, 8, 8), str(folder / "weights.safetensors"), str(folder / "model"))
    return folder


def command_sync(run: Path) -> str:
    command = [sys.executable, "-m", "orchestrator", "sync", str(run)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_whole_in_another_process(run: Path, uri: str) -> None:
    """This one has the deleted file still open."""
    code = "import sys; from pathlib import Path; from tests.cluster.test_tracking import assert_whole; "
    command = [sys.executable, "-c", code + "assert_whole(Path(sys.argv[1]), sys.argv[2])", str(run), uri]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def process(run: Path, uri: str, storage: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.cluster.tracked", str(run), uri, str(storage)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def all_sent(run: Path, uri: str) -> None:
    wait_for(lambda: journal(run).sent(uri) == len(journal(run)), 120)


def assert_whole(run: Path, uri: str) -> None:
    client, runs = connect(uri), runs_of(run, uri)
    parent = runs.pop(run.name)
    assert set(runs) == set(RUNGS)
    assert parent.data.params == {"student.epochs": "6", "losses.soft.layers_0_": "x" * 6000}
    assert parent.data.tags["data.train"] == "abc" and parent.data.metrics == {"wall_s": 12.5}
    assert [file.path for file in client.list_artifacts(parent.info.run_id)] == ["config.yaml"]
    for one in (parent, *runs.values()):
        assert one.info.status == "FINISHED" and one.info.end_time >= one.info.start_time
    for rung in runs.values():
        assert rung.data.tags["mlflow.parentRunId"] == parent.info.run_id and rung.data.params == {"epochs": "6"}
        assert rung.data.tags["teachers.a"] == "def"
        assert sorted(steps(client, rung, "loss/hard")) == sorted(steps(client, rung, "lost")) == list(EPOCHS)
        assert steps(client, rung, "test.accuracy") == [0] and "accuracy" not in rung.data.metrics
        assert rung.data.metrics["loss/hard"] == 0.5


def test_three_experiments_at_once_on_one_fresh_sqlite_store_are_all_whole(tmp_path):
    uri = tracking_uri(None, str(tmp_path))
    started = {tmp_path / "digits" / name: process(tmp_path / "digits" / name, uri, tmp_path) for name in "abc"}
    for run, one in started.items():
        said, _ = one.communicate(timeout=300)
        assert one.returncode == 0 and said == "\n", said
        assert_whole(run, uri)
    assert {path.name for path in tmp_path.iterdir()} == {"digits", "mlartifacts", "mlflow.db", "mlflow.db.lock"}


def test_a_server_killed_mid_run_and_started_again_has_everything_once_after_sync(tmp_path, server):
    run = tmp_path / "digits" / "killed"
    tracker = opened(run, server.uri, tmp_path)
    begin(tracker)
    epochs(tracker, EPOCHS[:3])
    all_sent(run, server.uri)
    server.kill()
    epochs(tracker, EPOCHS[3:])
    finish(tracker, run)
    said = tracker.close()
    assert said.endswith(
        f"to {server.uri} (connection refused); kept in {run}/tracking; send with: collegium sync {run}"
    )
    with pytest.raises(
        ValueError, match=r"sync: \d+ events could not be sent to .* \(connection refused\); nothing is"
    ):
        sync(str(run))
    server.start()
    command = [sys.executable, "-m", "orchestrator", "sync", str(run)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith("sent "), done.stdout + done.stderr
    assert done.stderr == ""
    assert_whole(run, server.uri)
    assert sync(str(run)).startswith("nothing to send")


def holds_metrics(path: str, body: bytes) -> bool:
    return path.endswith("/runs/log-batch") and b"loss/hard" in body


def test_an_answer_that_is_lost_puts_nothing_twice(tmp_path, server):
    line, run = LossyProxy(server.uri, holds_metrics), tmp_path / "digits" / "lost"
    resume(run, line.uri, tmp_path)
    assert line.lost.is_set()
    assert_whole(run, server.uri)


def test_a_sender_killed_between_the_answer_and_its_note_puts_nothing_twice(tmp_path, server):
    line, run = LossyProxy(server.uri, holds_metrics), tmp_path / "digits" / "unnoted"
    sender = process(run, line.uri, tmp_path)
    line.then = sender.kill
    sender.communicate(timeout=60)
    assert line.lost.is_set() and journal(run).sent(line.uri) < len(journal(run))
    resume(run, line.uri, tmp_path)
    assert_whole(run, server.uri)


def test_another_server_gets_everything(tmp_path, server):
    run, here = tmp_path / "digits" / "moved", tracking_uri(None, str(tmp_path))
    resume(run, here, tmp_path)
    for _ in range(2):
        sync(str(run), server.uri)
        assert_whole(run, server.uri)
    assert sync(str(run), server.uri).startswith("nothing to send")


def test_a_store_that_was_deleted_gets_everything_again(tmp_path):
    run, uri = tmp_path / "digits" / "deleted", tracking_uri(None, str(tmp_path))
    resume(run, uri, tmp_path)
    (tmp_path / "mlflow.db").unlink()
    done = [command_sync(run) for _ in range(2)]
    assert done[0].splitlines()[-1].startswith("sent ") and done[1].startswith("nothing to send"), done
    assert_whole_in_another_process(run, uri)


def test_what_is_not_to_be_sent_opens_no_store_and_may_be_sent_later(tmp_path):
    run, uri = tmp_path / "digits" / "kept", tracking_uri(None, str(tmp_path))
    run.mkdir(parents=True)
    tracker = Tracker.open(Folder(str(run)), experiment="digits", uri=uri, storage=str(tmp_path), send=False)
    begin(tracker)
    epochs(tracker)
    finish(tracker, run)
    assert tracker.close() == "" and not (tmp_path / "mlflow.db").exists()
    assert sync(str(run)).startswith("sent ")
    assert_whole(run, uri)


def test_who_is_killed_while_it_makes_the_store_leaves_none(tmp_path):
    uri, run = tracking_uri(None, str(tmp_path)), tmp_path / "digits" / "early"
    sender = process(run, uri, tmp_path)
    wait_for(lambda: [file for file in tmp_path.glob(".mlflow.db.*") if file.stat().st_size], 60)
    sender.kill()
    sender.communicate()
    assert not (tmp_path / "mlflow.db").exists()
    resume(run, uri, tmp_path)
    assert_whole(run, uri)
    assert not list(tmp_path.glob(".mlflow.db.*"))


def resume(run: Path, uri: str, storage: Path) -> None:
    tracker = opened(run, uri, storage)
    begin(tracker)
    epochs(tracker)
    finish(tracker, run)
    assert tracker.close() == ""


def test_what_the_server_has_is_left_out_whatever_its_time(tmp_path, uri):
    run = tmp_path / "digits" / "compared"
    with closing(opened(run, uri, tmp_path)) as tracker:
        begin(tracker)
    client, student = connect(uri), runs_of(run, uri)["student"]
    client.log_metric(student.info.run_id, "loss/hard", 0.2, now_ms() - 5, step=2)
    journal(run).add(Measured("student", 2, {"loss/hard": 0.2}))
    resume(run, uri, tmp_path)
    assert_whole(run, uri)


def test_a_resumed_run_is_the_same_run_and_runs_again(tmp_path, uri):
    run = tmp_path / "digits" / "resumed"
    with closing(opened(run, uri, tmp_path)) as tracker:
        begin(tracker)
        epochs(tracker, EPOCHS[:4])
        tracker.end("student", "KILLED")
        tracker.end(None, "KILLED")
    assert runs_of(run, uri)["resumed"].info.status == "KILLED"
    with closing(opened(run, uri, tmp_path)) as tracker:
        begin(tracker)
        all_sent(run, uri)
        assert runs_of(run, uri)["resumed"].info.status == "RUNNING"
    resume(run, uri, tmp_path)
    assert_whole(run, uri)


def test_a_server_that_hangs_does_not_hang_the_end_of_a_run(tmp_path, server, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    run = tmp_path / "digits" / "hanging"
    tracker = opened(run, server.uri, tmp_path)
    begin(tracker)
    all_sent(run, server.uri)
    server.signal(signal.SIGSTOP)
    try:
        before = time.monotonic()
        epochs(tracker)
        finish(tracker, run)
        assert time.monotonic() - before < 2
        said = tracker.close()
        assert "(no answer in time)" in said and time.monotonic() - before < 2 * PATIENCE_S
    finally:
        server.signal(signal.SIGCONT)
    sync(str(run))
    assert_whole(run, server.uri)


def with_model(tracker: Tracker, folder: str, name: str) -> str:
    tracker.start(None, {}, {})
    tracker.model(folder, "student", register=name, alias="champion")
    return tracker.close()


def test_a_registered_student_comes_back_byte_for_byte(tmp_path, uri, saved):
    run, into = tmp_path / "digits" / "registered", str(tmp_path / "fetched")
    run.mkdir(parents=True)
    (run / "model").symlink_to(saved / "model")
    for _ in range(2):
        assert with_model(opened(run, uri, tmp_path), "model", "small") == ""
    [fetched, again] = [fetch_registered_weights(f"models:/small{end}", uri, into) for end in ("@champion", "/1")]
    assert fetched == again and fetched.uri == "models:/small/1"
    assert Path(fetched.path).read_bytes() == (saved / "weights.safetensors").read_bytes()
    [output] = runs_of(run, uri)["registered"].outputs.model_outputs
    model = connect(uri).get_logged_model(output.model_id)
    assert (model.name, str(model.status.value)) == ("student", "READY")
    assert len(connect(uri).search_model_versions("name = 'small'")) == 1
    stamp = os.stat(fetched.path).st_mtime_ns
    fetch_registered_weights("models:/small@champion", uri, into)
    assert os.stat(fetched.path).st_mtime_ns == stamp


def test_the_logged_model_answers_without_collegium(tmp_path, saved):
    uri, run = tracking_uri(None, str(tmp_path)), tmp_path / "digits" / "loaded"
    run.mkdir(parents=True)
    (run / "model").symlink_to(saved / "model")
    assert with_model(opened(run, uri, tmp_path), "model", "small") == ""
    code = (
        "import sys, mlflow, torch; mlflow.set_tracking_uri(sys.argv[1])\n"
        "print(mlflow.pytorch.load_model('models:/small@champion')(torch.rand(5, 1, 8, 8)).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code, uri], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "torch.Size([5, 10])", done.stderr


@pytest.mark.parametrize(
    ("uri_of_model", "problem"),
    [
        (
            "models:/pickled@champion",
            "teachers.a.checkpoint: models:/pickled/1: its weights are not safetensors; nothing",
        ),
        ("models:/pickled@best", "found no models:/pickled@best at sqlite"),
        ("models:/pickled/7", "found no models:/pickled/7 at sqlite"),
        ("models:/absent@champion", "found no models:/absent@champion at sqlite"),
        ("models:/pickled", "expected models:/NAME@ALIAS or models:/NAME/VERSION, got 'models:/pickled'"),
    ],
)
def test_what_is_no_registered_safetensors_file_is_refused(pickled, uri_of_model, problem):
    storage, uri = pickled
    with pytest.raises(ValueError, match=r"teachers\.a\.checkpoint: ") as refused:
        fetch_registered_weights(uri_of_model, uri, str(storage / "fetched"), "teachers.a.checkpoint")
    assert problem in str(refused.value) and not (storage / "fetched").exists()


@pytest.fixture(scope="module")
def pickled(tmp_path_factory, saved) -> tuple[Path, str]:
    """A store whose one registered model has no safetensors file."""
    storage = tmp_path_factory.mktemp("pickled")
    uri, run = tracking_uri(None, str(storage)), storage / "digits" / "pickled"
    (run / "model").mkdir(parents=True)
    (run / "model" / "MLmodel").write_bytes((saved / "model" / "MLmodel").read_bytes())
    torch.save(nn.Linear(2, 2), run / "model" / "model.pth")
    assert with_model(opened(run, uri, storage), "model", "pickled") == ""
    return storage, uri


def test_what_can_never_be_sent_is_said_and_the_rest_goes_on(tmp_path):
    uri, run = tracking_uri(None, str(tmp_path)), tmp_path / "digits" / "refused"
    tracker = opened(run, uri, tmp_path)
    begin(tracker)
    tracker.artifact(None, "absent.txt")
    epochs(tracker)
    finish(tracker, run)
    assert tracker.close() == f"tracking: refused: {run}/absent.txt is not there any more"
    assert_whole(run, uri)


def test_a_server_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"checkpoint: models:/a@b cannot be read from .*: connection refused; is it"):
        fetch_registered_weights("models:/a@b", "http://127.0.0.1:9", str(tmp_path))

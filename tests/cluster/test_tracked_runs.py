"""Whole runs of the command and what MLflow has of them afterwards."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.tracking.tracker import tracking_uri
from tests.cluster.runs import RECIPE, ROOT, kill, run_folder, start, steps_done, wait_for
from tests.cluster.servers import MlflowServer
from tests.cluster.stores import assert_tracked_whole, runs_of

QUICK = ["teachers.wide.train.epochs=2", "teachers.convolutional.train.epochs=1", "student.alone=false", "source=local"]
EPOCHS = {"wide": 2, "convolutional": 1}


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "server"
    folder.mkdir()
    started = MlflowServer(folder)
    yield started
    started.kill()


def test_a_server_killed_in_the_middle_of_a_run_costs_nothing_but_a_sync(tmp_path, server):
    overrides = [RECIPE, *QUICK, "name=left", f"storage={tmp_path}", f"tracking.uri={server.uri}", "student.epochs=40"]
    driver = start(*overrides)
    run = run_folder(tmp_path, "left")
    wait_for(lambda: steps_done(run) >= 50)
    server.kill()
    said, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, said.decode()
    assert f"send with: collegium sync {run}" in said.decode() and "student" in said.decode()
    assert (run / "result.json").is_file() and (run / "report.html").is_file()

    server.start()
    command = [sys.executable, "-m", "orchestrator", "sync", str(run)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    assert_tracked_whole(run, server.uri, {**EPOCHS, "student": 40})


def test_two_experiments_at_once_on_one_fresh_store_are_whole_though_one_is_ended_while_it_writes_its_report(tmp_path):
    uri = tracking_uri(None, str(tmp_path))
    quick = [RECIPE, *QUICK, f"storage={tmp_path}", "student.epochs=3"]
    one, other = start(*quick, "name=one"), start(*quick, "name=ended")
    run = run_folder(tmp_path, "ended")
    wait_for(lambda: (run / "result.json").is_file())
    kill(other.pid, signal.SIGTERM)
    said, _ = other.communicate(timeout=120)
    assert other.returncode == 130 and not (run / "report.html").exists(), said.decode()
    assert f"go on with: collegium run --resume {run}" in said.decode() and "Traceback" not in said.decode()
    assert runs_of(run, uri)[run.name].info.status == "KILLED"

    finished("--resume", str(run))

    said, _ = one.communicate(timeout=300)
    assert one.returncode == 0, said.decode()
    for folder in (run, run_folder(tmp_path, "one")):
        assert_tracked_whole(folder, uri, {**EPOCHS, "student": 3})


def finished(*arguments: str) -> Path:
    """The folder of a run that is done."""
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-m", "orchestrator", "run", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(next(line for line in done.stdout.splitlines() if line.startswith("run ")).removeprefix("run "))

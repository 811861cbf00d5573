"""Runs that are killed or interrupted, and go on, end with the same student as a run that nothing disturbed.

Ctrl-C leaves nothing else behind. Ray's object store is a file in shared memory without a name: it goes with the last
process that maps it.
"""

import json
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import psutil
import pytest

from orchestrator.tracking.tracker import tracking_uri
from tests.cluster.runs import (
    RECIPE,
    ROOT,
    finish,
    kill,
    run_folder,
    sha256,
    start,
    steps_done,
    student_workers,
    wait_for,
)
from tests.cluster.stores import assert_tracked_whole

EPOCHS, STEPS_PER_EPOCH = 12, 10
EPOCHS_OF_ALL = {"wide": 30, "convolutional": 10, "student": EPOCHS}
# One more process per teacher costs seconds of every start; a pool matters where there are several workers too.
SOURCES = {1: "local", 2: "pool"}


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """Shared by the runs of this module, so that teachers are trained once."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def undisturbed(storage):
    """The folder of a run with so many workers that nothing disturbed."""

    @cache
    def folder(num_workers: int) -> Path:
        finish(*settings(storage, f"undisturbed-{num_workers}", num_workers))
        return run_folder(storage, f"undisturbed-{num_workers}")

    return folder


def settings(storage: Path, name: str, num_workers: int, send: bool = False) -> list[str]:
    """Not sent to MLflow where nobody looks at it: that costs seconds."""
    return [
        RECIPE,
        f"tracking.send={str(send).lower()}",
        f"name={name}",
        f"storage={storage}",
        f"source={SOURCES[num_workers]}",
        f"student.num_workers={num_workers}",
        f"student.epochs={EPOCHS}",
        "student.alone=false",
        "student.model={target: 'tests.cluster.nets:restless'}",
        "student.taps={}",
        "student.checkpoint_every_steps=2",
        "student.scheduler={target: 'torch.optim.lr_scheduler:OneCycleLR', kwargs: {max_lr: 0.01}, every: step}",
    ]


def end_of(folder: Path) -> tuple[str, list[int]]:
    """The hash of the student and the epochs of its history."""
    history = json.loads((folder / "rungs/student/outcome.json").read_text())["history"]
    return sha256(folder / "student.safetensors"), [record["epoch"] for record in history]


def test_a_killed_worker_and_a_killed_driver_change_nothing(storage, undisturbed):
    expected = end_of(undisturbed(1))
    driver = start(*settings(storage, "killed-1", 1))
    folder = run_folder(storage, "killed-1")
    kill_a_worker(driver, folder, at_step=20)
    kill(driver.pid)
    driver.wait()
    assert steps_done(folder) < EPOCHS * STEPS_PER_EPOCH, "the run was over before it could be killed"

    finish("--resume", str(folder))

    assert end_of(folder) == expected and expected[1] == list(range(EPOCHS))


def test_nor_do_ctrl_c_and_another_kill_with_several_workers_and_a_pool_of_which_nothing_is_left(storage, undisturbed):
    expected = end_of(undisturbed(2))
    shared_before = set(Path("/dev/shm").iterdir())
    driver = start(*settings(storage, "killed-2", 2, send=True))
    folder = run_folder(storage, "killed-2")
    kill_a_worker(driver, folder, at_step=10)
    session = session_of(driver)
    kill(driver.pid, signal.SIGINT)
    output = driver.communicate(timeout=60)[0].decode()

    assert driver.returncode == 130, output
    assert f"go on with: collegium run --resume {folder}" in output and "Traceback" not in output
    wait_for(lambda: not [pid for pid in session if psutil.pid_exists(pid)], seconds=30)
    assert not set(Path("/dev/shm").iterdir()) - shared_before

    interrupted_at = steps_done(folder)
    driver = start("--resume", str(folder))
    wait_for(lambda: steps_done(folder) > interrupted_at + 10)
    session = session_of(driver)
    kill(driver.pid)
    driver.wait()
    assert steps_done(folder) < EPOCHS * STEPS_PER_EPOCH, "the run was over before it could be killed"

    finish("--resume", str(folder))

    assert end_of(folder) == expected and expected[1] == list(range(EPOCHS))
    assert_tracked_whole(folder, tracking_uri(None, str(storage)), EPOCHS_OF_ALL)
    # Two processes of Ray's own try for a minute to say that the cluster is gone.
    wait_for(lambda: not [pid for pid in session if psutil.pid_exists(pid)], seconds=90)
    assert not set(Path("/dev/shm").iterdir()) - shared_before


def kill_a_worker(driver: subprocess.Popen, folder: Path, at_step: int) -> None:
    """And waits until another has taken its place."""
    wait_for(lambda: steps_done(folder) >= at_step)
    worker = student_workers(driver.pid)[-1]
    kill(worker.pid)
    at_death = steps_done(folder)
    wait_for(lambda: steps_done(folder) > at_death + 10)
    assert worker.pid not in [process.pid for process in student_workers(driver.pid)]


def session_of(driver: subprocess.Popen) -> set[int]:
    """The processes that it has started, and they others."""
    session = {process.pid for process in psutil.Process(driver.pid).children(recursive=True)}
    assert len(session) > 5
    return session


def test_a_cluster_may_be_started_outside_of_the_main_thread():
    code = (
        "import threading; from orchestrator.cluster import connected\n"
        "def run():\n"
        "    with connected(None, {}) as resources: print(resources['CPU'] > 0)\n"
        "one = threading.Thread(target=run); one.start(); one.join()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["True"], done.stderr

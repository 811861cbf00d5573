"""Runs that are killed or interrupted, and go on, end with the same student as a run that nothing disturbed.

Ctrl-C leaves nothing else behind. Ray's object store is a file in shared memory without a name: it goes with the last
process that maps it.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from orchestrator.tracking.tracker import tracking_uri
from tests.cluster.runs import (
    RECIPE,
    ROOT,
    SOON_S,
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
SAMPLES, OF_A_FEW_SECONDS = 600, 3600
EPOCHS_OF_ALL = {"wide": 30, "convolutional": 10, "student": EPOCHS}
# One more process per teacher costs seconds of every start; a pool matters where there are several workers too.
SOURCES = {1: "local", 2: "pool"}


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """Shared by the runs of this module, so that teachers are trained once."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module", autouse=True)
def sessions():
    """The processes of drivers that were killed; in the end none is left, nor is shared memory. Two of Ray's own try
    for a minute to say that their cluster is gone: meanwhile other tests run."""
    shared_before = set(Path("/dev/shm").iterdir())
    killed: list[set[int]] = []
    yield killed
    wait_for(lambda: not [pid for session in killed for pid in session if psutil.pid_exists(pid)], seconds=90)
    assert killed and not set(Path("/dev/shm").iterdir()) - shared_before


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


def end_of(folder: Path) -> str:
    """The hash of the student; each epoch is in its history once."""
    history = json.loads((folder / "rungs/student/outcome.json").read_text())["history"]
    assert [record["epoch"] for record in history] == list(range(EPOCHS))
    return sha256(folder / "student.safetensors")


def test_ctrl_c_and_kills_change_nothing_with_several_workers_and_a_pool(storage, sessions):
    undisturbed = start(*settings(storage, "undisturbed-2", 2))
    driver = start(*settings(storage, "killed-2", 2, send=True))
    folder = run_folder(storage, "killed-2")
    kill_a_worker(driver, folder, at_step=10)
    session = session_of(driver)
    kill(driver.pid, signal.SIGINT)
    output = driver.communicate(timeout=60)[0].decode()

    assert driver.returncode == 130, output
    assert f"go on with: collegium run --resume {folder}" in output and "Traceback" not in output
    wait_for(lambda: not [pid for pid in session if psutil.pid_exists(pid)], seconds=30)

    interrupted_at = steps_done(folder)
    driver = start("--resume", str(folder))
    wait_for(lambda: steps_done(folder) > interrupted_at + 10)
    sessions.append(session_of(driver))
    kill_driver(driver, folder)

    finish("--resume", str(folder))

    assert end_of(folder) == end_of(ended(undisturbed, storage, "undisturbed-2"))
    assert_tracked_whole(folder, tracking_uri(None, str(storage)), EPOCHS_OF_ALL)


def test_kills_change_nothing_with_one_worker_and_a_store(storage):
    """The store is in float32, and the undisturbed run has none. What was written is not computed again: what was not,
    is that of a few seconds."""
    undisturbed = start(*settings(storage, "undisturbed-1", 1), f"data.num_views={EPOCHS}")
    driver = start(*settings(storage, "killed-1", 1), "store={encoding: float32}", f"data.num_views={EPOCHS}")
    folder = run_folder(storage, "killed-1")
    kill_a_worker(driver, folder, at_step=20)
    kill_driver(driver, folder)

    finish("--resume", str(folder))

    assert end_of(folder) == end_of(ended(undisturbed, storage, "undisturbed-1"))
    for passes in json.loads((folder / "result.json").read_text())["rungs"][-1]["passes"].values():
        assert abs(passes["computed"] - SAMPLES * EPOCHS) <= OF_A_FEW_SECONDS


def ended(driver: subprocess.Popen, storage: Path, name: str) -> Path:
    """The folder of a run that nothing disturbed and that went on beside."""
    output = driver.communicate(timeout=SOON_S)[0].decode()
    assert driver.returncode == 0, output
    return run_folder(storage, name)


def kill_driver(driver: subprocess.Popen, folder: Path) -> None:
    kill(driver.pid)
    driver.wait()
    assert steps_done(folder) < EPOCHS * STEPS_PER_EPOCH, "the run was over before it could be killed"


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

"""Ctrl-C leaves a run that can be resumed, and nothing else.

Ray's object store is a file in shared memory without a name: it goes with the last process that maps it.
"""

import signal
from pathlib import Path

import psutil

from tests.cluster.runs import RECIPE, finish, kill, run_folder, sha256, start, steps_done, wait_for


def test_ctrl_c_leaves_a_resumable_run_and_nothing_else(tmp_path):
    settings = [RECIPE, f"storage={tmp_path}", "student.epochs=25", "student.alone=false", "student.num_workers=2"]
    finish(*settings, "name=undisturbed")

    shared_before = set(Path("/dev/shm").iterdir())
    driver = start(*settings, "name=interrupted")
    folder = run_folder(tmp_path, "interrupted")
    wait_for(lambda: steps_done(folder) >= 20)
    session = {process.pid for process in psutil.Process(driver.pid).children(recursive=True)}
    assert len(session) > 5
    kill(driver.pid, signal.SIGINT)
    output, _ = driver.communicate(timeout=60)

    assert driver.returncode == 130
    assert f"go on with: collegium run --resume {folder}" in output.decode()
    assert "Traceback" not in output.decode()
    wait_for(lambda: not [pid for pid in session if psutil.pid_exists(pid)], seconds=30)
    assert not [path for path in Path("/dev/shm").iterdir() if path not in shared_before]

    finish("--resume", str(folder))
    assert sha256(folder / "student.safetensors") == sha256(run_folder(tmp_path, "undisturbed") / "student.safetensors")

"""Runs of the command in processes of their own, as a user starts them."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
RECIPE = "orchestrator/recipes/digits.yaml"
SOON_S = 300


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "orchestrator", *arguments]


def start(*arguments: str) -> subprocess.Popen:
    """A run in the background, in its own session, so that what it leaves behind can be found. It hears Ctrl-C even
    where these tests, put in the background by a shell, do not."""
    return subprocess.Popen(
        command("run", *arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(*arguments: str) -> str:
    done = subprocess.run(command("run", *arguments), cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_folder(storage: Path, name: str) -> Path:
    """The folder of the only run of that name, once it is there."""
    wait_for(lambda: list((storage / name).glob("*/config.yaml")))
    [config] = (storage / name).glob("*/config.yaml")
    return config.parent


def steps_done(folder: Path) -> int:
    checkpoints = sorted((folder / "rungs/student/checkpoints").glob("step-*.pt"))
    return int(checkpoints[-1].stem.removeprefix("step-")) if checkpoints else 0


def wait_for(condition, seconds: float = SOON_S):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def student_workers(driver: int) -> list[psutil.Process]:
    """The processes that train the student now: Ray Train's workers, or the one Ray task."""
    children = psutil.Process(driver).children(recursive=True)
    titles = {child: " ".join(_title(child)) for child in children}
    return [child for child, title in titles.items() if "RayTrainWorker" in title or "ray::train_task" in title]


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    os.kill(pid, number)


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _title(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []

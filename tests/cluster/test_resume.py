"""Runs that are killed and go on end with the same student as a run that nothing disturbed."""

import json

import pytest

from tests.cluster.runs import (
    RECIPE,
    finish,
    kill,
    run_folder,
    sha256,
    start,
    steps_done,
    student_workers,
    wait_for,
)

EPOCHS, STEPS_PER_EPOCH = 20, 10


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """Shared by the runs of this module, so that teachers are trained once."""
    return tmp_path_factory.mktemp("runs")


def settings(storage, name: str, num_workers: int) -> list[str]:
    return [
        RECIPE,
        f"name={name}",
        f"storage={storage}",
        f"student.num_workers={num_workers}",
        f"student.epochs={EPOCHS}",
        "student.alone=false",
        "student.model={target: 'tests.cluster.nets:restless'}",
        "student.checkpoint_every_steps=2",
        "student.scheduler={target: 'torch.optim.lr_scheduler:OneCycleLR', kwargs: {max_lr: 0.01}, every: step}",
    ]


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_a_killed_worker_and_a_killed_driver_change_nothing(storage, num_workers):
    finish(*settings(storage, f"undisturbed-{num_workers}", num_workers))
    undisturbed = run_folder(storage, f"undisturbed-{num_workers}")

    driver = start(*settings(storage, f"killed-{num_workers}", num_workers))
    killed = run_folder(storage, f"killed-{num_workers}")
    wait_for(lambda: steps_done(killed) >= 20)
    worker = student_workers(driver.pid)[-1]
    kill(worker.pid)
    at_death = steps_done(killed)
    wait_for(lambda: steps_done(killed) > at_death + 10)
    assert worker.pid not in [process.pid for process in student_workers(driver.pid)]
    kill(driver.pid)
    driver.wait()
    at_second_death = steps_done(killed)
    assert at_second_death < EPOCHS * STEPS_PER_EPOCH, "the run was over before it could be killed"

    finish("--resume", str(killed))

    assert sha256(killed / "student.safetensors") == sha256(undisturbed / "student.safetensors")
    history = json.loads((killed / "rungs/student/outcome.json").read_text())["history"]
    assert [record["epoch"] for record in history] == list(range(EPOCHS))

"""`collegium pool`: replicas come and go by hand while a run goes on."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path

import ray
import torch
from rich.console import Console
from typer.testing import CliRunner

from actors.data import SharedDataset
from actors.datasets import Digits
from actors.models import mlp
from actors.pool.members import HostStatus
from actors.storage import Folder
from actors.training import WEIGHTS_FILE, TrainJob
from actors.weights import weights_as_bytes
from orchestrator.cli import app
from orchestrator.experiment import Experiment
from orchestrator.ladder import ladder
from orchestrator.launch import train_rung
from orchestrator.live import LiveView
from orchestrator.pools import pools_of
from tests.cluster.runs import ROOT, run_folder, sha256, wait_for

PAUSES = (5, 40)


def experiment(tmp_path: Path) -> Experiment:
    """One teacher that was trained elsewhere; its student pauses when it has had some knowledge, and some more."""
    torch.manual_seed(0)
    (tmp_path / "wide.safetensors").write_bytes(weights_as_bytes(mlp(width=32, depth=1)))
    model = "{target: 'actors.models:mlp', kwargs: {width: 32, depth: 1}}"
    kwargs = f"{{folder: {tmp_path}, pauses: {list(PAUSES)}, lr: 0.01}}"
    return Experiment.from_yaml(
        "orchestrator/recipes/digits.yaml",
        [
            f"storage={tmp_path}",
            "tracking.send=false",
            f"teachers={{wide: {{model: {model}, checkpoint: {tmp_path / 'wide.safetensors'}}}}}",
            "student.alone=false",
            "student.epochs=5",
            f"student.optimizer={{target: 'tests.cluster.nets:PausedSGD', kwargs: {kwargs}}}",
        ],
    )


def undisturbed(begun: Experiment, folder: Path) -> str:
    """The SHA-256 of its student, from a teacher in its own process."""
    config, found = begun.config, begun.findings
    [rung] = ladder(config)
    spec = rung.spec(config.data.spec(), config.data.validation, found.num_classes, found.teachers)
    train_rung(TrainJob(spec, ray.put(SharedDataset.of(Digits())), Folder(str(folder))))
    return sha256(folder / WEIGHTS_FILE)


def teachers(folder: Path) -> HostStatus:
    with pools_of(str(folder)) as pools:
        return pools.status()["student"].hosts["wide"]


def told(*arguments: str) -> str:
    shown = CliRunner().invoke(app, ["pool", *arguments])
    return shown.output if shown.exit_code == 0 else str(shown.exception)


def test_a_replica_joins_works_and_leaves_and_the_student_is_the_same(cluster, tmp_path):
    with ThreadPoolExecutor(1) as beside:
        begun = experiment(tmp_path)
        running = beside.submit(begun.run, view=LiveView(Console(file=StringIO())))
        folder = run_folder(tmp_path, "digits")
        wait_for(lambda: (tmp_path / "at-5").exists() or running.done())
        assert "one is always left; it is the last" in told("remove", str(folder), "wide")

        # A process of its own, as from a second terminal.
        added = [sys.executable, "-m", "orchestrator", "pool", "add", str(folder), "wide"]
        done = subprocess.run(added, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.stdout == "student: wide: 2 wanted\n", done.stderr
        wait_for(lambda: teachers(folder).serving == 2, seconds=60)
        (tmp_path / "go-5").touch()

        wait_for(lambda: (tmp_path / "at-40").exists() or running.done())
        assert "wide           2       2" in told("status", str(folder))
        assert told("remove", str(folder), "wide") == "student: wide: 1 wanted\n"
        wait_for(lambda: teachers(folder).serving == 1, seconds=60)
        (tmp_path / "go-40").touch()
        running.result()

    assert told("status", str(folder)) == f"pool: this run is finished, its result is {folder / 'result.json'}"
    [rung] = json.loads((folder / "result.json").read_text())["rungs"]
    assert [count for _, count in rung["pool"]["replicas"]["wide"]][-3:] == [1, 2, 1]
    assert max(worker["wide"]["replicas"] for epoch in rung["history"] for worker in epoch["serving"]) == 2
    assert sha256(folder / "student.safetensors") == undisturbed(begun, tmp_path / "undisturbed")

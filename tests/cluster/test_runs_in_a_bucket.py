"""A run whose storage is a bucket: killed, gone on with, finished; everything that it leaves lies there."""

import io
import json
import signal
from pathlib import Path

import pytest
from pyarrow import parquet
from safetensors.torch import load

from actors.models import mlp
from actors.storage import Folder
from orchestrator.reporting.report import write_comparison, write_report
from orchestrator.tracking.tracker import sync, tracking_uri
from tests.cluster.bucket_server import bucket_server
from tests.cluster.runs import RECIPE, ROOT, finish, start, wait_for
from tests.cluster.stores import runs_of

NAME = "remote"
IN_A_RUN = {
    "config.yaml",
    "result.json",
    "report.html",
    "student.safetensors",
    "predictions.parquet",
    "mlflow-model/MLmodel",
    "rungs/student/weights.safetensors",
    "rungs/student/outcome.json",
    "rungs/student/pool.json",
    "tracking/journal.jsonl",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with open(tmp_path_factory.mktemp("moto") / "log.txt", "w") as log, bucket_server(log) as one:
        yield one


@pytest.fixture
def storage(server, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return server.uri("ours")


def settings(storage: str, tmp_path: Path) -> list[str]:
    return [
        RECIPE,
        f"storage={storage}",
        f"name={NAME}",
        f"tracking.uri=sqlite:///{tmp_path}/mlflow.db",
        "teachers.wide.train.epochs=2",
        "teachers.convolutional.train.epochs=1",
        "student.alone=false",
        "student.num_workers=2",
        "student.epochs=6",
        "student.checkpoint_every_steps=2",
    ]


def test_a_run_in_a_bucket_is_killed_goes_on_and_leaves_everything_there(server, storage, tmp_path):
    driver = start(*settings(storage, tmp_path))
    home = f"ours/{NAME}/"
    try:
        wait_for(
            lambda: (
                driver.poll() is not None
                or (
                    server.keys(home)
                    and [key for key in server.keys(home) if "/rungs/student/checkpoints/step-" in key]
                )
            )
        )
        assert driver.poll() is None, driver.stdout.read().decode()
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    [run] = (Folder(storage) / NAME).folders()
    folder = Folder(storage) / NAME / run

    said = finish("--resume", folder.path)

    keys = server.keys(home)
    inside = {key.removeprefix(f"{home}{run}/") for key in keys}
    assert inside >= IN_A_RUN and "cluster.json" not in inside, sorted(inside)
    assert len([key for key in inside if key.startswith("rungs/student/checkpoints/")]) == 2
    models = {key.split("/")[2] for key in server.keys("ours/models/")}
    assert len(models) == 2 and f"ours/models/{min(models)}/outcome.json" in server.keys("ours/models/")
    result = json.loads(server.get(f"{home}{run}/result.json"))
    assert result["folder"] == folder.path and result["folder"] in said
    assert len(result["rungs"][-1]["history"]) == 6
    mlp(width=32, depth=1).load_state_dict(load(server.get(f"{home}{run}/student.safetensors")))
    assert parquet.read_table(io.BytesIO(server.get(f"{home}{run}/predictions.parquet"))).num_rows == 400
    assert b"</html>" in server.get(f"{home}{run}/report.html")
    assert not [path for path in ROOT.iterdir() if path.name.startswith("s3:")]
    reports_again(server, folder, tmp_path)
    tells_mlflow(folder, tmp_path)


def reports_again(server, folder: Folder, tmp_path: Path) -> None:
    before = server.get(f"ours/{NAME}/{folder.name}/report.html")
    folder.write("report.html", b"")
    assert write_report(folder.path) == folder.file("report.html")
    assert len(server.get(f"ours/{NAME}/{folder.name}/report.html")) == len(before)
    assert "local_file(" in before.decode()
    write_comparison([folder.path, folder.path], str(tmp_path / "comparison.html"))
    assert (tmp_path / "comparison.html").is_file()


def tells_mlflow(folder: Folder, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    told = runs_of(folder, uri)
    assert {one.info.status for one in told.values()} == {"FINISHED"}
    assert told.keys() == {folder.name, "wide", "convolutional", "student"}
    assert sync(folder.path, uri).startswith("nothing to send")


def test_what_stands_for_the_storage_folder_of_mlflow(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert tracking_uri(None, "s3://bucket/x") == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert tracking_uri(None, "elsewhere") == f"sqlite:///{tmp_path}/elsewhere/mlflow.db"

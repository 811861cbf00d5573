"""What an MLflow store holds of our runs."""

from pathlib import Path

from actors.storage import Folder
from orchestrator.tracking.client import connect
from orchestrator.tracking.journal import Journal


def journal(run: Path) -> Journal:
    return Journal(Folder(str(run)))


def runs_of(run: Path, uri: str) -> dict:
    """The parent, by the name of its folder, and its rungs by name; there is one of each."""
    client, record = connect(uri), journal(run).record
    experiment = client.get_experiment_by_name(record.experiment)
    found = client.search_runs([experiment.experiment_id], f"tags.`collegium.run` = '{record.id}'")
    runs = {one.info.run_name: one for one in found}
    assert len(runs) == len(found)
    return runs


def steps(client, run, key: str) -> list[int]:
    return [metric.step for metric in client.get_metric_history(run.info.run_id, key)]


def assert_tracked_whole(run: Path, uri: str, epochs: dict[str, int]) -> None:
    """`epochs` of each rung: every one there once, nothing unsent, and what belongs to the whole."""
    client, runs = connect(uri), runs_of(run, uri)
    parent = runs.pop(run.name)
    assert set(runs) == set(epochs)
    for name, count in epochs.items():
        for key in ("loss/hard", "validation/accuracy", "images_per_s", "time_share/forward"):
            assert sorted(steps(client, runs[name], key)) == list(range(count)), (name, key)
        assert steps(client, runs[name], "bytes_per_sample") == [0]
        assert runs[name].data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert len(runs[name].data.tags["data.sha256"]) == 64
    assert {one.info.status for one in (parent, *runs.values())} == {"FINISHED"}
    teachers = [name for name in epochs if name != "student"]
    assert {f"teachers.{name}.sha256" for name in teachers} <= set(runs["student"].data.tags)
    assert parent.data.params["losses.soft.kwargs.temperature"] == "2.0"
    assert 0 < parent.data.metrics["test/student/accuracy"] <= 1
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
        "config.yaml",
        "predictions.parquet",
        "report.html",
        "result.json",
        "student.safetensors",
    }
    assert [output.model_id for output in parent.outputs.model_outputs]
    assert journal(run).sent(uri) == len(journal(run))

"""What a run tells MLflow, name by name."""

from pathlib import Path

from orchestrator.config import ExperimentConfig
from orchestrator.ladder import ladder
from orchestrator.result import ExperimentResult, ModelResult
from orchestrator.tracking.telling import epoch_values, experiment_params, result_values, rung_params, rung_values

DIGITS = Path(__file__).parents[2] / "orchestrator" / "recipes" / "digits.yaml"
RECORD = {
    "epoch": 3,
    "terms": {"hard": 0.5, "soft": 2.0},
    "weights": {"soft": {"a": 0.25, "b": 0.75}},
    "accuracy": 0.9,
    "cross_entropy": 0.3,
    "seconds": 12.0,
    "shares": {"wait": 0.1, "forward": 0.9},
    "images_per_s": 100.0,
}


def test_the_values_of_an_epoch():
    assert epoch_values(RECORD) == {
        "loss/hard": 0.5,
        "loss/soft": 2.0,
        "teacher_weight/soft/a": 0.25,
        "teacher_weight/soft/b": 0.75,
        "time_share/wait": 0.1,
        "time_share/forward": 0.9,
        "validation/accuracy": 0.9,
        "validation/cross_entropy": 0.3,
        "images_per_s": 100.0,
        "seconds": 12.0,
    }


def served(rows, waited_s, retries=0):
    times = {"median": 50.0, "p99": 80.0}
    rates = {"seconds": 10.0, "rows": rows, "images_per_s": rows / 10}
    waits = {"waited_s": waited_s, "waited_share": waited_s / 10}
    return {**rates, "service_ms": times, "queue_ms": {**times, "median": 4.0}, **waits} | {
        "bytes_per_sample": 40.0,
        "retries": retries,
        "replicas": 2,
    }


def test_the_values_of_an_epoch_say_how_the_teachers_served():
    told = epoch_values({**RECORD, "serving": [{"a": served(500, 0.5)}]})
    assert {name: value for name, value in told.items() if name not in epoch_values(RECORD)} == {
        "teacher/a/images_per_s": 50.0,
        "teacher/a/service_ms_median": 50.0,
        "teacher/a/service_ms_p99": 80.0,
        "teacher/a/queue_ms_median": 4.0,
        "teacher/a/queue_ms_p99": 80.0,
        "teacher/a/replicas": 2,
        "teacher/a/waited_share": 0.05,
        "teacher/a/bytes_per_sample": 40.0,
        "teacher/a/retries": 0,
    }


def test_where_there_are_several_workers_each_is_told_too():
    told = epoch_values({**RECORD, "serving": [{"a": served(500, 0.5)}, {"a": served(300, 1.5, retries=2)}]})
    assert told["teacher/a/images_per_s"] == 80.0 and told["teacher/a/retries"] == 2
    assert told["teacher/a/waited_share"] == 0.1
    assert {name: value for name, value in told.items() if name.startswith("worker/")} == {
        "worker/0/a/waited_share": 0.05,
        "worker/0/a/images_per_s": 50.0,
        "worker/1/a/waited_share": 0.15,
        "worker/1/a/images_per_s": 30.0,
    }


def test_the_values_of_a_rung_say_how_often_replicas_were_restarted():
    outcome = {"bytes_per_sample": 40.0, "parameters": 10, "history": []}
    assert rung_values(outcome) == {"bytes_per_sample": 40.0, "parameters": 10}
    assert rung_values(outcome, {"restarts": {"a": 3, "b": 0}}) == {
        "bytes_per_sample": 40.0,
        "parameters": 10,
        "teacher/a/restarts": 3,
        "teacher/b/restarts": 0,
    }
    passes = {"a": {"asked": 100, "read": 60, "computed": 40, "written": 40, "other_pixels": 0}}
    told = rung_values(outcome, None, passes)
    assert told["teacher/a/asked"] == 100 and told["teacher/a/read"] == 60 and told["teacher/a/computed"] == 40


def test_the_values_of_a_result_leave_out_what_is_not_known():
    model = ModelResult("a", "teacher", 0.9, 0.3, 10, 100, 0.02, [0.9], [], 40, None, {"1": 2.0, "64": 30.0})
    result = ExperimentResult("x", 0, "/x", (model,), (), 5.0, None, 100, ["c"], {}, None, [], [])
    assert result_values(result) == {
        "wall_s": 5.0,
        "test/a/accuracy": 0.9,
        "test/a/cross_entropy": 0.3,
        "test/a/ece": 0.02,
        "test/a/parameters": 10,
        "test/a/bytes_on_disk": 40,
        "test/a/latency_ms_1": 2.0,
        "test/a/latency_ms_64": 30.0,
    }


def test_a_rung_is_told_its_own_sections():
    config = ExperimentConfig.from_yaml(DIGITS)
    params = experiment_params(config)
    assert params["losses.soft.kwargs.temperature"] == "2.0" and params["seed"] == "0"
    assert not any(path.startswith("tracking") for path in params)
    by_rung = {rung.name: rung_params(config, rung) for rung in ladder(config)}
    sections = {name: {path.partition(".")[0] for path in told} for name, told in by_rung.items()}
    assert sections["student"] == {"student", "losses", "data", "seed"}
    teacher = next(name for name in config.teachers if config.teachers[name].train)
    assert sections[teacher] == {"teachers", "data", "seed"}
    assert all(path.startswith(f"teachers.{teacher}.") for path in by_rung[teacher] if path.startswith("teachers"))

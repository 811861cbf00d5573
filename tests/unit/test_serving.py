"""How teachers served, counted by hand."""

import json

import pytest

from actors import serving
from actors.serving import Served, ServingLog, merged, over_epochs, timeline_file


def served(
    teacher="resnet", replica="0", rows=32, num_bytes=1280, service_s=0.05, queue_s=0.01, began_s=0.0, retries=0
):
    return Served(teacher, replica, rows, num_bytes, service_s, queue_s, began_s, retries)


def test_the_summary_of_an_epoch_by_teacher():
    log = ServingLog()
    for number in range(101):
        replica = str(number % 3)
        log.answer(served(replica=replica, service_s=number / 1000, queue_s=0.002, retries=number % 50 == 1))
    log.answer(served("wide", rows=20, num_bytes=100, service_s=0.03, queue_s=0.0))
    log.waited("resnet", 5.0, 0.5)
    log.waited("resnet", 7.0, 1.5)
    found = log.summary(40.0)
    assert list(found) == ["resnet", "wide"]
    assert found["resnet"] == {
        "seconds": 40.0,
        "rows": 3232,
        "images_per_s": pytest.approx(80.8),
        "service_ms": {"median": pytest.approx(50), "p99": pytest.approx(99)},
        "queue_ms": {"median": pytest.approx(2), "p99": pytest.approx(2)},
        "waited_s": 2.0,
        "waited_share": 0.05,
        "bytes_per_sample": 40.0,
        "retries": 2,
        "replicas": 3,
    }
    assert found["wide"]["bytes_per_sample"] == 5.0 and found["wide"]["images_per_s"] == 0.5
    assert found["wide"]["waited_s"] == 0.0
    json.dumps(found)


def test_a_summary_is_of_the_time_since_the_last_one():
    log = ServingLog()
    log.answer(served())
    log.summary(1.0)
    log.answer(served(rows=8))
    assert log.summary(2.0)["resnet"]["rows"] == 8
    assert log.summary(1.0) == {}


def test_a_teacher_that_never_answered_was_still_waited_for():
    log = ServingLog()
    log.waited("resnet", 0.0, 3.0)
    found = log.summary(4.0)["resnet"]
    assert found["waited_share"] == 0.75 and found["rows"] == 0 and found["bytes_per_sample"] == 0
    assert found["service_ms"] == {"median": 0.0, "p99": 0.0}


def test_the_timeline_is_of_the_recorded_epoch_alone_and_counts_from_its_first_step_or_wait():
    log = ServingLog()
    log.step(50.0, 1.0)
    log.record(1)
    log.step(102.0, 0.5)
    log.waited("wide", 102.5, 0.25)
    log.answer(served("wide", "7", began_s=101.5, service_s=0.75))
    log.answer(served("wide", "7", began_s=101.0, service_s=0.5))
    log.answer(served("wide", "2", began_s=103.0, service_s=0.125))
    log.answer(served("resnet", "7", began_s=101.25, service_s=1.123456789))
    log.summary(3.0)
    log.step(110.0, 1.0)
    log.answer(served(began_s=110.0))
    found = log.timeline()
    assert json.loads(json.dumps(found)) == {
        "epoch": 1,
        "began": 102.0,
        "steps": [[0.0, 0.5]],
        "waits": {"wide": [[0.5, 0.25]]},
        "answers": {"wide": {"7": [[0.0, 0.25]], "2": [[1.0, 0.125]]}, "resnet": {"7": [[0.0, 0.37346]]}},
    }
    log.record(4)
    assert log.timeline() == {"epoch": 4, "began": 0.0, "steps": [], "waits": {}, "answers": {}}


def test_a_timeline_is_bounded_and_its_lanes_end_together(monkeypatch):
    monkeypatch.setattr(serving, "MOST_SPANS", 5)
    log = ServingLog()
    log.record(0)
    for number in range(4):
        log.answer(served(began_s=float(number)))
        log.step(float(number), 1.0)
    found = log.timeline()
    assert len(found["steps"]) == 2 and len(found["answers"]["resnet"]["0"]) == 3
    assert log.summary(1.0)["resnet"]["rows"] == 4 * 32, "numbers go on"


def summary(rows, seconds=10.0, median=10.0, p99=90.0, waited_s=1.0, **more):
    given = {"bytes_per_sample": 10.0, "retries": 1, "replicas": 2, **more}
    times, shares = {"median": median, "p99": p99}, {"waited_s": waited_s, "waited_share": waited_s / seconds}
    rates = {"seconds": seconds, "rows": rows, "images_per_s": rows / seconds}
    return {**rates, "service_ms": times, "queue_ms": times, **shares, **given}


def test_workers_are_merged_by_teacher():
    one = {"a": summary(300), "b": summary(0, median=0.0, p99=0.0)}
    two = {"a": summary(100, median=50.0, p99=50.0, waited_s=3.0, bytes_per_sample=30.0, replicas=5)}
    found = merged([one, two])
    assert found["a"] == {
        "seconds": 10.0,
        "rows": 400,
        "images_per_s": 40.0,
        "service_ms": {"median": 20.0, "p99": 80.0},
        "queue_ms": {"median": 20.0, "p99": 80.0},
        "waited_s": 4.0,
        "waited_share": 0.2,
        "bytes_per_sample": 15.0,
        "retries": 2,
        "replicas": 5,
    }
    assert found["b"]["waited_share"] == 0.05, "of both workers' time"
    assert merged([one])["a"] == one["a"] and merged([]) == {} == merged([{}, {}])


def test_epochs_of_one_worker_are_put_together():
    found = over_epochs([summary(300, 10.0), summary(100, 30.0, 50.0, 50.0, 3.0, retries=0)])
    assert found["images_per_s"] == 10.0 and found["waited_share"] == 0.1 and found["seconds"] == 40.0
    assert found["service_ms"] == {"median": 20.0, "p99": 80.0} and found["retries"] == 1


def test_a_timeline_has_a_file_by_rank():
    assert [timeline_file(3), timeline_file("*")] == ["timeline-3.json", "timeline-*.json"]
